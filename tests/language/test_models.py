"""Whole models in the language: built, run and compared with numpy."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import cast

import ml_dtypes
import numpy as np
import pytest

import tessera_build
import tessera_runtime
from bundle_format.errors import TesseraError
from tessera_build.frontends.python import read_python, shapes_of
from tessera_build.ir.graph.nodes import GraphNode
from tests.language.build import Floats, compiled, draw, written

MLP = """
W1 = op.tensor((8, 16), dtype="fp32", init=op.init.normal(seed=1, scale=0.3))
b1 = op.tensor((16,), dtype="fp32", init=op.init.uniform(seed=2))
W2 = op.tensor((16, 4), dtype="fp32", init=op.init.glorot(seed=3))

@graph.module("mlp")
def mlp(x: Tensor["B", 8, f32]):
    h = op.relu(op.matmul(x, W1) + b1)
    y = op.softmax(h @ W2)
    return y
"""


def _parameters(path: Path) -> dict[str, Floats]:
    module = read_python(path).module
    return {name: cast(Floats, module.constants[digest]) for digest, name in module.constant_names.items()}


@pytest.mark.numerics
def test_mlp_when_built_and_proved_then_gives_what_numpy_gives(tmp_path: Path) -> None:
    x = draw(0, 5, 8)
    found = compiled(tmp_path, MLP, {"x": x}, verify=True)
    p = _parameters(tmp_path / "model.py")
    scores = np.maximum(x @ p["W1"] + p["b1"], 0) @ p["W2"]
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    assert list(found) == ["y"]
    np.testing.assert_allclose(found["y"], powers / powers.sum(-1, keepdims=True), atol=1e-6)


@pytest.mark.bundle
def test_mlp_when_built_in_two_folders_then_has_one_digest(tmp_path: Path) -> None:
    digests: set[str] = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        path = written(tmp_path / name, MLP)
        out = tmp_path / name / "out.tessera"
        digests.add(str(tessera_build.build(path, ["x86-64-v3"], out, verify=False, workers=1).digest))
    assert len(digests) == 1


@pytest.mark.numerics
def test_weights_when_a_safetensors_file_lies_beside_then_are_its_numbers(tmp_path: Path) -> None:
    weight = draw(1, 3, 2)
    header = json.dumps({"W": {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, weight.nbytes]}}).encode()
    data = len(header).to_bytes(8, "little") + header + weight.tobytes()
    (tmp_path / "model.safetensors").write_bytes(data)
    body = """
    W = op.tensor((3, 2))

    @graph.module("main")
    def main(x: Tensor["B", 3]):
        return x @ W
    """
    x = draw(2, 4, 3)
    np.testing.assert_allclose(compiled(tmp_path, body, {"x": x})["output"], x @ weight, atol=1e-6)


@pytest.mark.numerics
def test_classes_when_nested_then_their_parameters_have_paths(tmp_path: Path) -> None:
    body = """
    class Linear(graph.Module):
        def __init__(self, inputs, outputs, seed):
            self.weight = op.tensor((inputs, outputs), init=op.init.normal(seed))
            self.bias = op.tensor((outputs,), init=op.init.uniform(seed + 1))

        def forward(self, x):
            return op.linear(x, self.weight, self.bias)

    class Net(graph.Module):
        def __init__(self):
            self.layers = [Linear(4, 6, 1), Linear(6, 2, 3)]

        def forward(self, x: Tensor["N", 4]):
            for layer in self.layers:
                x = op.tanh(layer(x))
            return {"score": x}

    net = Net()
    """
    x = draw(3, 3, 4)
    found = compiled(tmp_path, body, {"x": x})
    p = _parameters(tmp_path / "model.py")
    assert sorted(p) == ["net.layers.0.bias", "net.layers.0.weight", "net.layers.1.bias", "net.layers.1.weight"]
    for i in (0, 1):
        x = np.tanh(x @ p[f"net.layers.{i}.weight"] + p[f"net.layers.{i}.bias"])
    np.testing.assert_allclose(found["score"], x, atol=1e-6)


@pytest.mark.numerics
def test_entries_when_several_then_each_runs_and_weights_are_stored_once(tmp_path: Path) -> None:
    body = """
    W = op.tensor((4, 4), init=op.init.normal(1))

    @graph.module("double")
    def double(x: Tensor["B", 4]):
        return x @ W * 2

    @graph.module("both")
    def both(x: Tensor["B", 4], y: Tensor["B", 4]):
        return double(x), double(y) + 1
    """
    x, y = draw(1, 2, 4), draw(2, 2, 4)
    found = compiled(tmp_path, body, {"x": x, "y": y}, entry="both")
    module = read_python(tmp_path / "model.py").module
    assert list(module.entries) == ["double", "both"]
    assert list(module.constant_names.values()) == ["W"]
    (weight,) = _parameters(tmp_path / "model.py").values()
    np.testing.assert_allclose(found["output_0"], x @ weight * 2, atol=1e-5)
    np.testing.assert_allclose(found["output_1"], y @ weight * 2 + 1, atol=1e-5)


@pytest.mark.unit
def test_nodes_when_traced_then_carry_the_authors_line_and_column(tmp_path: Path) -> None:
    function = read_python(written(tmp_path, MLP)).module.entries["mlp"]
    places = {node.op: str(span) for node, span in function.locations.items() if isinstance(node, GraphNode)}
    assert places["matmul"] == "model.py:10:20"
    assert places["max"] == "model.py:9:9"


@pytest.mark.unit
def test_shapes_when_asked_then_tell_each_value_with_its_line(tmp_path: Path) -> None:
    found = shapes_of(written(tmp_path, MLP), dims={"B": (2, 9)})
    rows = {row.expression: (row.where, row.dtype, row.shape) for row in found.rows}
    assert rows["x"] == ("model.py:8:12", "f32", ("B", "8"))
    assert rows["h @ W2"] == ("model.py:10:20", "f32", ("B", "4"))
    assert found.dims == {"B": "2..9"}


@pytest.mark.unit
def test_dims_when_the_build_fixes_them_then_are_numbers_in_every_shape(tmp_path: Path) -> None:
    (row,) = (row for row in shapes_of(written(tmp_path, MLP), dims={"B": 4}).rows if row.expression == "h @ W2")
    assert row.shape == ("4", "4")


@pytest.mark.errors
def test_guard_when_a_call_breaks_it_then_the_bundle_refuses(tmp_path: Path) -> None:
    body = """
    @graph.module("halves")
    def halves(x: Tensor["B", "S"]):
        graph.require(x.shape[1] % 2, "==", 0, "the sequence must be even")
        return op.reshape(x, (x.shape[0], 2, x.shape[1] // 2))[:, 1]
    """
    compiled(tmp_path, body, {"x": draw(0, 2, 6)})
    with tessera_runtime.load(tmp_path / "model.tessera") as model, pytest.raises(TesseraError) as caught:
        model.run(x=draw(0, 2, 5))
    assert "the sequence must be even" in str(caught.value)


@pytest.mark.numerics
def test_policies_when_kept_then_sums_are_wide_and_casts_cut_off(tmp_path: Path) -> None:
    body = """
    from tessera import f8e4m3, saturate

    @graph.module("narrow")
    def narrow(x: Tensor["B", 64, bf16 @ accum(f32)], y: Tensor[64, 3, bf16 @ accum(f32)]):
        product = op.cast(x @ y, f32)
        small = op.cast(op.cast(op.cast(x, f32) * 1000, f8e4m3 @ saturate), f32)
        return product, small
    """
    x, y = (draw(s, *shape).astype(ml_dtypes.bfloat16) for s, shape in ((1, (2, 64)), (2, (64, 3))))
    found = compiled(tmp_path, body, {"x": x, "y": y})
    exact = (x.astype(np.float64) @ y.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(found["product"], exact, rtol=2**-8)
    wanted = np.clip(x.astype(np.float32) * 1000, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    np.testing.assert_array_equal(found["small"], wanted)


@pytest.mark.numerics
def test_eager_call_when_given_arrays_then_gives_the_references_numbers(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        written(tmp_path, MLP, "eager_mlp.py")
        found = cast(Floats, importlib.import_module("eager_mlp").mlp(draw(0, 3, 8)))
    assert found.shape == (3, 4)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)


@pytest.mark.unit
def test_entry_when_it_is_a_partial_function_then_has_its_types_and_its_numbers(tmp_path: Path) -> None:
    body = """
    from functools import partial

    def scaled(x: Tensor["B", 4, f32], factor):
        return x * factor

    m = graph.module("m")(partial(scaled, factor=3.0))
    """
    found = compiled(tmp_path, body, {"x": draw(0, 2, 4)})
    np.testing.assert_array_equal(found["output"], draw(0, 2, 4) * np.float32(3.0))
