"""Built models behind the server: every element type of the protocol there and back, and sizes that data decides."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tessera_build
from tests.runtime.serve.client import binary, serving, tensor

TYPES: dict[str, tuple[int, Any]] = {
    "BOOL": (TensorProto.BOOL, np.bool_),
    "INT8": (TensorProto.INT8, np.int8),
    "INT16": (TensorProto.INT16, np.int16),
    "INT32": (TensorProto.INT32, np.int32),
    "INT64": (TensorProto.INT64, np.int64),
    "UINT8": (TensorProto.UINT8, np.uint8),
    "UINT16": (TensorProto.UINT16, np.uint16),
    "UINT32": (TensorProto.UINT32, np.uint32),
    "UINT64": (TensorProto.UINT64, np.uint64),
    "FP16": (TensorProto.FLOAT16, np.float16),
    "FP32": (TensorProto.FLOAT, np.float32),
    "FP64": (TensorProto.DOUBLE, np.float64),
    "BF16": (TensorProto.BFLOAT16, np.uint16),
}


def build(folder: Path, graph: onnx.GraphProto) -> Path:
    """A bundle of one graph."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, folder / "m.onnx")
    tessera_build.build(folder / "m.onnx", ["native"], folder / "m.tessera", verify=False, workers=1)
    return folder / "m.tessera"


@pytest.mark.numerics
def test_model_when_it_has_an_input_of_every_type_then_all_travel_both_ways(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Transpose", [f"x{name}"], [f"y{name}"]) for name in TYPES],
        "g",
        [value(f"x{name}", number, ["N", 2]) for name, (number, _) in TYPES.items()],
        [value(f"y{name}", number, [2, "N"]) for name, (number, _) in TYPES.items()],
    )
    arrays = {name: np.array([[0, 1], [1, 1], [1, 0]]).astype(kind) for name, (_, kind) in TYPES.items()}
    with serving(build(tmp_path, graph)) as running:
        shown = running.client.get("/v2/models/m").json()
        assert [(found["datatype"], found["shape"]) for found in shown["inputs"]] == [(name, [-1, 2]) for name in TYPES]
        assert [found["shape"] for found in shown["outputs"]] == [[2, -1]] * len(TYPES)

        plain = running.client.infer({"inputs": [tensor(f"x{name}", arrays[name], name) for name in TYPES]})
        assert plain.status == 200, plain
        outputs = {output["name"]: output for output in plain.json()["outputs"]}
        for name in set(TYPES) - {"BF16"}:
            assert outputs[f"y{name}"]["data"] == arrays[name].T.ravel().tolist()
        assert outputs["yBF16"]["data"] == [0, 1, 1, 1, 1, 0]

        root = {"inputs": [binary(f"x{name}", arrays[name], name) for name in TYPES]}
        raw = b"".join(arrays[name].tobytes() for name in TYPES)
        packed = running.client.infer(root | {"parameters": {"binary_data_output": True}}, raw)
    assert packed.raw() == b"".join(arrays[name].T.tobytes() for name in TYPES)


@pytest.mark.numerics
def test_model_when_data_decides_the_size_of_its_output_then_the_answer_has_that_size(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("NonZero", ["x"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, ["N"])],
        [value("y", TensorProto.INT64, None)],
    )
    with serving(build(tmp_path, graph)) as running:
        assert running.client.get("/v2/models/m").json()["outputs"][0]["shape"] == [1, -1]
        for data in ([0.0, 2.0, 0.0, 3.0], [0.0], [1.0, 1.0]):
            answer = running.client.infer({"inputs": [tensor("x", np.array(data, np.float32), "FP32")]})
            assert answer.status == 200, answer
            (output,) = answer.json()["outputs"]
            expected = np.array(np.nonzero(np.array(data)))
            assert (output["shape"], output["data"]) == (list(expected.shape), expected.ravel().tolist())
