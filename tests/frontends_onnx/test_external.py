"""Weights outside the model's file: mapped, at any offset, shared by tensors, never from elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tessera_build.frontends.onnx import ModelError, read_onnx
from tessera_build.ir.graph.reference import run


def _model(folder: Path, entries: list[tuple[str, int, tuple[int, ...]]], **changes: str) -> Path:
    """x plus every tensor (name, offset, shape) of `w.bin`; `changes` are other external-data entries for all."""
    graph = onnx.GraphProto(name="g")
    graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]))
    value = "x"
    for name, offset, shape in entries:
        tensor = graph.initializer.add(name=name, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, word in ({"location": "w.bin", "offset": str(offset)} | changes).items():
            tensor.external_data.add(key=key, value=word)
        graph.node.append(helper.make_node("Add", [value, name], [f"{name}_sum"]))
        value = f"{name}_sum"
    graph.output.append(onnx.ValueInfoProto(name=value))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "m.onnx")
    return folder / "m.onnx"


@pytest.mark.numerics
def test_weights_when_they_lie_at_any_offset_and_share_bytes_then_are_read_exactly(tmp_path: Path) -> None:
    data = np.random.default_rng(0).random(5000, np.float32)
    (tmp_path / "w.bin").write_bytes(b"xyz" + data.tobytes())
    path = _model(tmp_path, [("a", 3, (1000,)), ("b", 3 + 4 * 4000, (1000,)), ("again", 3, (1000,))])
    module = read_onnx(path)
    (found,) = run(module, "main", {"x": np.zeros(1, np.float32)}).values()
    np.testing.assert_array_equal(found, (data[:1000] + data[4000:]) + data[:1000])
    assert len(module.constants) == 2


@pytest.mark.errors
@pytest.mark.parametrize(
    ("offset", "shape", "changes"),
    [
        (0, (2**40,), {}),
        (0, (2**32, 2**32), {}),
        (4 * 4990, (20,), {}),
        (-4, (4,), {}),
        (2**62, (4,), {}),
        (0, (4,), {"length": "3"}),
        (0, (4,), {"location": "../w.bin"}),
        (0, (4,), {"location": "/etc/passwd"}),
        (0, (4,), {"location": "."}),
        (0, (4,), {"location": "w.bin\0"}),
        (0, (4,), {"location": "link"}),
        (0, (4,), {"location": "none.bin"}),
    ],
)
def test_weights_when_they_are_not_where_the_model_says_then_are_refused(
    tmp_path: Path, offset: int, shape: tuple[int, ...], changes: dict[str, str]
) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    (folder / "w.bin").write_bytes(bytes(4 * 5000))
    (tmp_path / "w.bin").write_bytes(bytes(64))
    (folder / "link").symlink_to(tmp_path / "w.bin")
    with pytest.raises(ModelError):
        read_onnx(_model(folder, [("w", offset, shape)], **changes))
