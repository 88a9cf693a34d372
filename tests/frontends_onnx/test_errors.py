"""Models that are refused: each with one clear error that names the node and, where there is one, the way out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tessera_build.config import ConfigError
from tessera_build.frontends.onnx import ModelError, UnsupportedError, read_onnx
from tessera_build.ir.graph.reference import run
from tests.frontends_onnx.oracle import floats, integers, make_model, one_node

pytestmark = pytest.mark.errors
SINGLE = {"x": (np.float32, [2, 3])}


def test_file_when_missing_then_error_names_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file") as caught:
        read_onnx(tmp_path / "absent.onnx")
    assert str(caught.value.where).endswith("absent.onnx")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("content", [b"", b"this is text, not a model", b"\x08\x08\x3a\xff\xff\xff\x7f"])
def test_file_when_not_onnx_then_error_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not an ONNX model"):
        read_onnx(path)


def test_file_when_truncated_then_error_is_a_model_error(tmp_path: Path) -> None:
    data = one_node("Gemm", {"x": (2, 3)}, {"w": floats(3, 4)}).SerializeToString()
    path = tmp_path / "short.onnx"
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(ModelError):
            read_onnx(path)


def test_file_when_a_name_is_no_text_then_error_says_so(tmp_path: Path) -> None:
    path = tmp_path / "damaged.onnx"
    path.write_bytes(one_node("Relu", {"x": (2,)}).SerializeToString().replace(b"Relu", b"R\xffl\xfe"))
    with pytest.raises(ModelError, match="not an ONNX model"):
        read_onnx(path)


def test_operators_when_several_are_unsupported_then_all_are_named_at_once() -> None:
    nodes = [
        helper.make_node("StringNormalizer", ["x"], ["a"], name="first"),
        helper.make_node("StringSplit", ["x"], ["b"]),
        helper.make_node("Fancy", ["x"], ["c"], name="third", domain="com.example"),
        helper.make_node("Concat", ["a", "b", "c"], ["y"], axis=0),
    ]
    with pytest.raises(UnsupportedError) as caught:
        read_onnx(make_model(nodes, SINGLE, ["y"]))
    assert [p.where for p in caught.value.problems] == ["first", "StringSplit_1", "third"]
    text = caught.value.diagnostics()
    assert "operator StringNormalizer is not built" in text
    assert "com.example::Fancy" in text
    assert "do the text processing outside the model" in text
    assert caught.value.exit_code == 4


def test_problems_when_in_independent_branches_then_each_is_reported() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="strange", strange=1),
        helper.make_node("MaxPool", ["x"], ["b"], name="pool", kernel_shape=[2]),
        helper.make_node("Add", ["a", "b"], ["y"], name="sum"),
    ]
    with pytest.raises(UnsupportedError) as caught:
        read_onnx(make_model(nodes, SINGLE, ["y"]))
    assert [p.where for p in caught.value.problems] == ["strange", "pool"]


def test_operator_when_misspelt_then_the_near_name_is_suggested() -> None:
    with pytest.raises(ModelError, match="ONNX has no operator Sofmax") as caught:
        read_onnx(make_model([helper.make_node("Sofmax", ["x"], ["y"])], SINGLE, ["y"]))
    assert "Softmax" in caught.value.diagnostics()


def test_attribute_when_unknown_then_it_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="attributes that are not built") as caught:
        read_onnx(one_node("Relu", {"x": (2,)}, strange=1))
    assert "strange" in caught.value.diagnostics()


def _strings() -> onnx.ModelProto:
    model = one_node("Identity", {"x": (2,)})
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    return model


def _sequence() -> onnx.ModelProto:
    model = one_node("Identity", {"x": (2,)})
    inner = helper.make_tensor_type_proto(TensorProto.FLOAT, [2])
    model.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(inner))
    return model


def _rankless() -> onnx.ModelProto:
    model = one_node("Identity", {"x": (2,)})
    model.graph.input[0].type.tensor_type.ClearField("shape")
    return model


def _data_dependent() -> onnx.ModelProto:
    node = helper.make_node("Squeeze", ["x", "s"], ["y"], name="squeeze")
    return make_model([node], {"x": (np.float32, [6, 1]), "s": (np.int64, [1])}, ["y"])


REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "strings": (_strings, "strings are refused"),
    "sequence": (_sequence, "is no tensor"),
    "no rank": (_rankless, "has no shape"),
    "data-dependent rank": (_data_dependent, "computed from data at run time"),
    "old opset": (
        lambda: one_node("Upsample", {"x": (1, 1, 2, 2)}, opset=6, width_scale=2.0, height_scale=2.0),
        "Upsample of opset 6",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_model_when_beyond_tessera_then_reason_is_given(name: str) -> None:
    make, reason = REFUSED[name]
    with pytest.raises(UnsupportedError, match=reason):
        read_onnx(make())


BROKEN: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "broadcast": (lambda: one_node("Add", {"a": (2, 3), "b": (2, 4)}), "do not broadcast at axis 1"),
    "product": (lambda: one_node("MatMul", {"a": (2, 3), "b": (2, 4)}), "contracted extents"),
    "reshape": (lambda: one_node("Reshape", {"x": (2, 3)}, {"s": integers(4, 2)}), "number of elements"),
    "two open": (lambda: one_node("Reshape", {"x": (2, 3)}, {"s": integers(-1, -1)}), "two extents open"),
    "squeeze": (lambda: one_node("Squeeze", {"x": (2, 3)}, {"a": integers(0)}), "Squeeze removes axis 0"),
    "axis": (lambda: one_node("Softmax", {"x": (2, 3)}, axis=5), "axis is out of range"),
    "kernel": (lambda: one_node("MaxPool", {"x": (1, 1, 3, 3)}, kernel_shape=[5, 5]), "does not fit"),
    "channels": (lambda: one_node("Conv", {"x": (1, 3, 8, 8)}, {"w": floats(4, 2, 3, 3)}), "channels"),
    "blocks in": (lambda: one_node("SpaceToDepth", {"x": (1, 3, 8, 8)}, blocksize=-2), "blocks of one element"),
    "blocks out": (lambda: one_node("DepthToSpace", {"x": (1, 4, 8, 8)}, blocksize=0), "blocks of one element"),
    "missing operand": (lambda: one_node("Add", {"a": (2, 3)}), "another number of operands"),
    "missing value": (
        lambda: make_model([helper.make_node("Add", ["x", "ghost"], ["y"])], SINGLE, ["y"]),
        "operand 'ghost'",
    ),
    "rank": (lambda: one_node("GlobalAveragePool", {"x": (3,)}), "no spatial axes"),
    "pooled rank": (lambda: one_node("MaxPool", {"x": (3,)}, kernel_shape=[2]), "does not fit"),
    "assigned twice": (
        lambda: make_model(
            [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["y"])], SINGLE, ["y"]
        ),
        "two nodes make 'y'",
    ),
    "missing output": (lambda: make_model([helper.make_node("Relu", ["x"], ["z"])], SINGLE, ["y"]), "output 'y'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_model_when_ill_formed_then_reason_is_given(name: str) -> None:
    make, reason = BROKEN[name]
    with pytest.raises(ModelError, match=reason):
        read_onnx(make())


def test_dim_when_unknown_then_known_ones_are_listed() -> None:
    with pytest.raises(ConfigError, match="no dynamic dim 'bach'") as caught:
        read_onnx(one_node("Relu", {"x": ("batch", 3)}), dims={"bach": 4})
    assert "did you mean batch?" in caught.value.diagnostics()


@pytest.mark.parametrize("limits", [0, (4, 2)])
def test_dim_when_range_is_empty_then_it_is_refused(limits: int | tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="empty range"):
        read_onnx(one_node("Relu", {"x": ("N", 3)}), dims={"N": limits})


def _external(folder: Path, location: str) -> Path:
    model = one_node("Add", {"x": (2, 3)}, {"w": floats(3)})
    tensor = model.graph.initializer[0]
    (folder / "model").mkdir()
    for place in (folder / "outside.bin", folder / "model" / "inside.bin"):
        place.write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": "12"}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    path = folder / "model" / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_when_inside_the_folder_then_it_is_read(tmp_path: Path) -> None:
    module = read_onnx(_external(tmp_path, "inside.bin"))
    zeros = np.zeros((2, 3), np.float32)
    stored = np.frombuffer((tmp_path / "model" / "inside.bin").read_bytes(), np.float32)
    assert np.array_equal(run(module, "main", {"x": zeros})["y"], np.stack([stored, stored]))


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/hostname", "", "link.bin"])
def test_external_data_when_outside_the_folder_then_it_is_refused(tmp_path: Path, location: str) -> None:
    path = _external(tmp_path, location)
    (tmp_path / "model" / "link.bin").symlink_to(tmp_path / "outside.bin")
    with pytest.raises(ModelError, match="outside the model's folder"):
        read_onnx(path)


def test_external_data_when_short_or_missing_then_error_names_the_tensor(tmp_path: Path) -> None:
    path = _external(tmp_path, "inside.bin")
    (tmp_path / "model" / "inside.bin").write_bytes(b"1234")
    with pytest.raises(ModelError, match="'w'"):
        read_onnx(path)
    (tmp_path / "model" / "inside.bin").unlink()
    with pytest.raises(ModelError, match="'w' cannot be read"):
        read_onnx(path)
