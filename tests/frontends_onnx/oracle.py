"""Compares imported models, run by the reference interpreter, with onnxruntime.

Takes small models built from nodes; gives assertions. Invariant: onnxruntime runs the very protobuf that was imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import ArrayLike, NDArray
from onnx import helper, numpy_helper

from tessera_build.frontends.onnx import read_onnx
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.reference import run

Shape = Sequence[int | str | None]
_RANDOM = np.random.default_rng(7)


def floats(*shape: int) -> NDArray[np.float32]:
    """Seeded normal float32 numbers."""
    return _RANDOM.standard_normal(shape).astype(np.float32)


def integers(*values: int) -> NDArray[np.int64]:
    """An int64 vector."""
    return np.asarray(values, np.int64)


def make_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[type[np.generic], Shape]],
    outputs: Sequence[str],
    weights: Mapping[str, ArrayLike] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """A model whose outputs' types are left to inference."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(n, _code(dtype), list(shape)) for n, (dtype, shape) in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


def _code(dtype: type[np.generic]) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def one_node(
    op: str,
    inputs: Mapping[str, Array | Shape],
    weights: Mapping[str, ArrayLike] | None = None,
    opset: int = 17,
    **attributes: object,
) -> onnx.ModelProto:
    """A model of one node: float inputs of these shapes, then constant operands, then the output `y`."""
    constants = dict(weights or {})
    shapes = {name: tuple(v.shape) if isinstance(v, np.ndarray) else tuple(v) for name, v in inputs.items()}
    node = helper.make_node(op, [*shapes, *constants], ["y"], name="node")
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    return make_model([node], {n: (np.float32, s) for n, s in shapes.items()}, ["y"], constants, opset)


def expected(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
    """What onnxruntime computes."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(v) for v in session.run(None, dict(inputs))]


def assert_agrees(
    model: onnx.ModelProto, *cases: Mapping[str, Array], tolerance: float = 1e-5, module: Module | None = None
) -> Module:
    """Import once, then compare every case with onnxruntime; `tolerance` is relative to each output's maximum."""
    module = module or read_onnx(model)
    for case in cases:
        found = run(module, "main", case)
        for info, reference in zip(model.graph.output, expected(model, case), strict=True):
            result = found[info.name]
            assert result.dtype == reference.dtype, info.name
            assert result.shape == reference.shape, (info.name, result.shape, reference.shape)
            if reference.dtype.kind in "iub":
                assert np.array_equal(result, reference), info.name
                continue
            scale = float(np.max(np.abs(reference), initial=1e-30, where=np.isfinite(reference)))
            np.testing.assert_allclose(
                result.astype(np.float64),
                reference.astype(np.float64),
                rtol=0,
                atol=tolerance * scale,
                err_msg=info.name,
            )
    return module
