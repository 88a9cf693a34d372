"""Requests and answers as bytes: every datatype both ways, every mistake refused with its name."""

import json
from typing import Any

import numpy as np
import pytest

from tessera_runtime import TensorSpec
from tessera_runtime.serve.datatypes import datatype_name
from tessera_runtime.serve.errors import RequestError
from tessera_runtime.serve.protocol import Signature, parse_infer, render_answer, tensor_metadata

NUMBERS: dict[str, list[Any]] = {
    "bool": [True, False],
    "i8": [-128, 127],
    "i16": [-32768, 32767],
    "i32": [-(2**31), 2**31 - 1],
    "i64": [-(2**63), 2**63 - 1],
    "u8": [0, 255],
    "u16": [0, 65535],
    "u32": [0, 2**32 - 1],
    "u64": [0, 2**64 - 1],
    "f16": [0.5, -65504.0],
    "f32": [0.5, -3.0e38],
    "f64": [0.1, -1e300],
    "bf16": [0.5, -3.0e38],
}


def signature(dtype: str) -> Signature:
    spec = TensorSpec("x", dtype, ("N",))
    return Signature((spec,), (spec._replace(name="y"),))


def view(root: object, raw: bytes = b"") -> tuple[memoryview, int | None]:
    head = json.dumps(root).encode()
    return memoryview(head + raw), len(head) if raw else None


@pytest.mark.unit
@pytest.mark.parametrize("dtype", NUMBERS)
def test_numbers_when_sent_as_json_and_as_bytes_then_are_the_same_both_ways(dtype: str) -> None:
    values, known = NUMBERS[dtype], signature(dtype)
    plain = {"name": "x", "shape": [2], "datatype": datatype_name(dtype), "data": values}
    request = parse_infer(*view({"id": "7", "inputs": [plain]}), known)
    array = request.feeds["x"]
    assert array.dtype == known.inputs[0].numpy

    raw = array.tobytes()
    sized = {**plain, "parameters": {"binary_data_size": len(raw)}}
    del sized["data"]
    wanted = {"inputs": [sized], "parameters": {"binary_data_output": True}}
    again = parse_infer(*view(wanted, raw), known)
    assert again.feeds["x"].tobytes() == raw

    answer = render_answer(request, {"y": array}, "m", "1")
    (output,) = json.loads(answer.body)["outputs"]
    assert (json.loads(answer.body)["id"], answer.json_bytes) == ("7", None)
    assert (output["datatype"], output["shape"]) == (datatype_name(dtype), [2])
    assert output["data"] == [pytest.approx(value, rel=0.01) if dtype[0] in "fb" else value for value in values]

    packed = render_answer(again, {"y": array}, "m", "1")
    assert packed.json_bytes is not None
    assert packed.body[packed.json_bytes :] == raw
    assert json.loads(packed.body[: packed.json_bytes])["outputs"][0]["parameters"] == {"binary_data_size": len(raw)}


@pytest.mark.unit
def test_data_when_nested_by_rows_then_is_the_same_as_flat() -> None:
    spec = TensorSpec("x", "f32", ("N", 2, 2))
    known = Signature((spec,), ())
    data = np.arange(8.0).reshape(2, 2, 2)
    for values in (data.tolist(), data.ravel().tolist()):
        root = {"inputs": [{"name": "x", "shape": [2, 2, 2], "datatype": "FP32", "data": values}]}
        np.testing.assert_array_equal(parse_infer(*view(root), known).feeds["x"], data)


@pytest.mark.unit
def test_bytes_when_they_lie_at_an_odd_place_then_the_array_is_aligned() -> None:
    root: Any = {"inputs": [{"name": "x", "shape": [2], "datatype": "FP64", "parameters": {"binary_data_size": 16}}]}
    for padding in range(8):
        root["id"] = "i" * padding
        assert parse_infer(*view(root, np.array([1.0, 2.0]).tobytes()), signature("f64")).feeds["x"].flags.aligned


@pytest.mark.unit
@pytest.mark.parametrize("dtype", ["f8e4m3", "f8e5m2", "i4", "u4", "f4e2m1"])
def test_datatype_when_the_protocol_has_no_name_for_it_then_travels_only_as_bytes(dtype: str) -> None:
    known, raw = signature(dtype), bytes([1, 7])
    name = {"name": "x", "shape": [2], "datatype": dtype.upper()}
    request = parse_infer(*view({"inputs": [{**name, "parameters": {"binary_data_size": 2}}]}, raw), known)
    assert request.feeds["x"].tobytes() == raw
    with pytest.raises(RequestError, match="only as binary data"):
        parse_infer(*view({"inputs": [{**name, "data": [1, 7]}]}), known)
    with pytest.raises(RequestError, match="only as binary data"):
        render_answer(request, {"y": request.feeds["x"]}, "m", "1")


@pytest.mark.errors
@pytest.mark.parametrize(("dtype", "byte"), [("i4", 8), ("i4", 0xF7), ("u4", 16), ("u2", 4), ("f6e2m3", 64)])
def test_byte_when_its_datatype_cannot_hold_it_then_is_refused(dtype: str, byte: int) -> None:
    one = {"name": "x", "shape": [1], "datatype": dtype.upper(), "parameters": {"binary_data_size": 1}}
    with pytest.raises(RequestError, match="its datatype cannot"):
        parse_infer(*view({"inputs": [one]}, bytes([byte])), signature(dtype))


@pytest.mark.unit
def test_metadata_when_shown_then_dynamic_extents_are_minus_one() -> None:
    shown = tensor_metadata((TensorSpec("x", "bf16", ("N", 3, "2*N+1")), TensorSpec("s", "bool", ())))
    assert shown == [
        {"name": "x", "datatype": "BF16", "shape": [-1, 3, -1]},
        {"name": "s", "datatype": "BOOL", "shape": []},
    ]


GOOD: dict[str, Any] = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}


def with_input(**changes: object) -> dict[str, Any]:
    return {"inputs": [{name: value for name, value in {**GOOD, **changes}.items() if value is not ...}]}


MISTAKES: list[tuple[str, object]] = [
    ("not a JSON object", []),
    ("'inputs' is not a list", {}),
    ("'inputs' is not a list", {"inputs": {"x": 1}}),
    ("an input is not a JSON object", {"inputs": [1]}),
    ("was not given", {"inputs": []}),
    ("given twice", {"inputs": [GOOD, GOOD]}),
    ("no such input", with_input(name="z")),
    ("no such input", with_input(name=["x"])),
    ("another datatype", with_input(datatype="FP64")),
    ("another datatype", with_input(datatype="BYTES")),
    ("another datatype", with_input(datatype={})),
    ("shape is not a list", with_input(shape=...)),
    ("shape is not a list of sizes", with_input(shape=[-1])),
    ("shape is not a list of sizes", with_input(shape=[2.0])),
    ("shape is not a list of sizes", with_input(shape=[True, 2])),
    ("shape is not a list of sizes", with_input(shape=[1 << 70])),
    ("shape is not a list of sizes", with_input(shape=[1] * 100)),
    ("does not fill its shape", with_input(shape=[3])),
    ("larger than memory can be", with_input(shape=[1 << 40, 1 << 40])),
    ("larger than memory can be", with_input(shape=[0, 1 << 61], data=[])),
    ("data of an input is not a list", with_input(data=...)),
    ("data of an input is not a list", with_input(data="12")),
    ("values of another kind", with_input(data=["1", "2"])),
    ("values of another kind", with_input(data=[None, 1])),
    ("values of another kind", with_input(data=[True, False])),
    ("values of another kind", with_input(data=[[1], [2]])),
    ("number too large", with_input(data=[1e39, 1])),
    ("number too large", with_input(data=[10**400, 1])),
    ("parameters of x is not", with_input(parameters=[])),
    ("binary_data_size", with_input(parameters={"binary_data_size": 8})),
    ("binary_data_size", with_input(data=..., parameters={"binary_data_size": -8})),
    ("binary_data_size", with_input(data=..., parameters={"binary_data_size": "8"})),
    ("ends before", with_input(data=..., parameters={"binary_data_size": 8})),
    ("another size than its shape", with_input(data=..., parameters={"binary_data_size": 0})),
    ("extension", with_input(parameters={"shared_memory_region": "r"})),
    ("id is not", {"inputs": [GOOD], "id": 3}),
    ("neither true nor false", {"inputs": [GOOD], "parameters": {"binary_data_output": 1}}),
    ("'outputs' is not a list", {"inputs": [GOOD], "outputs": "y"}),
    ("unknown or named twice", {"inputs": [GOOD], "outputs": [{"name": "z"}]}),
    ("unknown or named twice", {"inputs": [GOOD], "outputs": [{"name": "y"}, {"name": "y"}]}),
    ("extension", {"inputs": [GOOD], "outputs": [{"name": "y", "parameters": {"classification": 2}}]}),
]


@pytest.mark.errors
@pytest.mark.parametrize(("words", "root"), MISTAKES)
def test_request_when_it_has_a_mistake_then_is_refused_by_name(words: str, root: object) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        parse_infer(*view(root), signature("f32"))
    assert caught.value.status == 400


@pytest.mark.errors
@pytest.mark.parametrize(
    ("dtype", "values"),
    [("i8", [128, 0]), ("i8", [1.5, 0]), ("u64", [-1, 0]), ("u64", [2**64, 0]), ("bool", [2, 0]), ("f16", [7e4, 0])],
)
def test_number_when_its_datatype_cannot_hold_it_then_is_refused(dtype: str, values: list[Any]) -> None:
    root = {"inputs": [{"name": "x", "shape": [2], "datatype": datatype_name(dtype), "data": values}]}
    with pytest.raises(RequestError):
        parse_infer(*view(root), signature(dtype))


@pytest.mark.errors
@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b'{"inputs": [NaN]}', b"[" * 100_000, b"1" * 10_000, b'{"inputs": [1e999]}']
)
def test_body_when_it_is_not_json_then_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError):
        parse_infer(memoryview(body), None, signature("f32"))


@pytest.mark.errors
def test_binary_data_when_more_than_claimed_or_not_boolean_then_is_refused() -> None:
    claimed = with_input(data=..., parameters={"binary_data_size": 8})
    with pytest.raises(RequestError, match="more binary data"):
        parse_infer(*view(claimed, bytes(9)), signature("f32"))
    with pytest.raises(RequestError, match="larger than the body"):
        parse_infer(memoryview(b"{}"), 3, signature("f32"))
    flags = with_input(data=..., datatype="BOOL", parameters={"binary_data_size": 2})
    with pytest.raises(RequestError, match="its datatype cannot"):
        parse_infer(*view(flags, b"\x00\x02"), signature("bool"))


@pytest.mark.errors
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_answer_when_json_cannot_hold_it_then_the_caller_is_told_to_take_bytes(value: float) -> None:
    known = signature("f32")
    request = parse_infer(*view(with_input()), known)
    with pytest.raises(RequestError, match="binary_data") as caught:
        render_answer(request, {"y": np.array([1, value], np.float32)}, "m", "1")
    assert caught.value.status == 400
    wanted = with_input() | {"outputs": [{"name": "y", "parameters": {"binary_data": True}}]}
    request = parse_infer(*view(wanted), known)
    assert render_answer(request, {"y": np.array([1, value], np.float32)}, "m", "1").json_bytes is not None
