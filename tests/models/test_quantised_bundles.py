"""Networks quantised by onnxruntime's own tool, in each of its forms, from ONNX to bundles that answer as it does.

Takes two seeded networks and their calibration data; builds what the tool writes. Invariant: products of bytes are
computed in integers, which the lowered module is asked for, not guessed from the answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

import tessera_build
import tessera_runtime
from tessera_build.frontends.onnx import read_onnx
from tessera_build.ir.core.types import I32
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.passes.pipeline import run_passes
from tests.frontends_onnx.oracle import expected

pytestmark = pytest.mark.numerics

Floats = NDArray[np.float32]
SIGNS = {
    "u8s8": (QuantType.QUInt8, QuantType.QInt8),
    "s8s8": (QuantType.QInt8, QuantType.QInt8),
    "u8u8": (QuantType.QUInt8, QuantType.QUInt8),
}
# What the tests of quantised models allow: a share of the largest value, and how often the first place may differ.
TOLERANCE, AGREEMENT = 0.05, 0.98


class _Calibration(CalibrationDataReader):
    def __init__(self, rows: list[Floats]) -> None:
        self._rows: Iterator[Floats] = iter(rows)

    def get_next(self) -> dict[str, Floats] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        row = next(self._rows, None)
        return None if row is None else {"x": row}


def _weights(**shapes: tuple[int, ...]) -> list[onnx.TensorProto]:
    rng = np.random.default_rng(5)
    made: list[onnx.TensorProto] = []
    for name, shape in shapes.items():
        depth = max(1, int(np.prod(shape[1:]))) if len(shape) > 1 else 4
        made.append(numpy_helper.from_array((rng.standard_normal(shape) / np.sqrt(depth)).astype(np.float32), name))
    return made


def _model(nodes: list[onnx.NodeProto], shape: tuple[int, ...], weights: list[onnx.TensorProto]) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])
    graph = helper.make_graph(nodes, "network", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _images() -> onnx.ModelProto:
    """Dense, strided and depthwise convolutions, a sum of two branches, pools, a classifier."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w0", "b0"], ["c0"], pads=[1] * 4),
        node("Relu", ["c0"], ["r0"]),
        node("Conv", ["r0", "w1", "b1"], ["c1"], pads=[1] * 4, strides=[2, 2]),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1] * 4, group=32),
        node("Conv", ["c2", "w3", "b3"], ["c3"]),
        node("Add", ["c3", "r1"], ["a"]),
        node("MaxPool", ["a"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["m"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "w4", "b4"], ["y"], transB=1),
    ]
    kernels = {"w0": (16, 3, 3, 3), "w1": (32, 16, 3, 3), "w2": (32, 1, 3, 3), "w3": (32, 32, 1, 1), "w4": (10, 32)}
    biases = {f"b{i}": (size,) for i, size in enumerate((16, 32, 32, 32, 10))}
    return _model(nodes, (3, 24, 24), _weights(**kernels, **biases))


def _rows() -> onnx.ModelProto:
    """Products of odd depth and width with a bias, activations, a Gemm."""
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "w0"], ["m0"]),
        node("Add", ["m0", "b0"], ["a0"]),
        node("Relu", ["a0"], ["r0"]),
        node("MatMul", ["r0", "w1"], ["m1"]),
        node("Sigmoid", ["m1"], ["s1"]),
        node("Gemm", ["s1", "w2", "b2"], ["y"]),
    ]
    return _model(nodes, (65,), _weights(w0=(65, 128), b0=(128,), w1=(128, 97), w2=(97, 10), b2=(10,)))


NETWORKS = {"images": (_images, (3, 24, 24)), "rows": (_rows, (65,))}


def _data(name: str, seed: int, count: int = 8) -> Floats:
    return np.random.default_rng(seed).standard_normal((count, *NETWORKS[name][1])).astype(np.float32)


def _check(path: Path, name: str, folder: Path) -> None:
    """Integer products, and onnxruntime's answers for several batches."""
    model = onnx.load(str(path))
    function = run_passes(read_onnx(model)).entries["main"]
    products = [n for n in graph_nodes(function) if n.op in ("matmul", "conv")]
    whole = [n for n in products if function.types[n.output].dtype == I32]
    assert len(whole) >= len(products) - 1, "only the depthwise convolution may stay in floats"
    built = tessera_build.build(model, ["native"], folder / "m.tessera", cache=False, workers=1)
    with tessera_runtime.load(built.path, threads=1) as loaded:
        for count in (1, 3, 50):
            x = _data(name, 1000 + count, count)
            found = np.asarray(loaded.run({"x": x})["y"], np.float32)
            wanted = np.asarray(expected(model, {"x": x})[0], np.float32)
            assert float(np.abs(found - wanted).max()) <= TOLERANCE * float(np.abs(wanted).max())
            assert float(np.mean(found.argmax(-1) == wanted.argmax(-1))) >= AGREEMENT


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator], ids=lambda f: f.name)
@pytest.mark.parametrize("signs", SIGNS)
def test_static_quantisation_when_built_then_equals_onnxruntime(
    name: str, form: QuantFormat, signs: str, tmp_path: Path
) -> None:
    source, target = tmp_path / "float.onnx", tmp_path / "bytes.onnx"
    onnx.save(NETWORKS[name][0](), str(source))
    activation, weight = SIGNS[signs]
    quantize_static(
        source,
        target,
        _Calibration([_data(name, seed) for seed in range(4)]),
        quant_format=form,
        per_channel=weight == QuantType.QInt8,
        activation_type=activation,
        weight_type=weight,
    )
    _check(target, name, tmp_path)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("weight", [QuantType.QInt8, QuantType.QUInt8], ids=lambda t: t.name)
def test_dynamic_quantisation_when_built_then_equals_onnxruntime(name: str, weight: QuantType, tmp_path: Path) -> None:
    source, target = tmp_path / "float.onnx", tmp_path / "bytes.onnx"
    onnx.save(NETWORKS[name][0](), str(source))
    quantize_dynamic(source, target, weight_type=weight)
    _check(target, name, tmp_path)
