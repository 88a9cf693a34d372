"""Graphs through the complete compiled path against the Graph reference: results, threads, batches, lanes."""

from __future__ import annotations

import numpy as np
import pytest

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.types import BF16, F16, F32, F64, I8, I32, I64, U8, DType, tensor
from tessera_build.ir.graph import reference as graph_reference
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.lower.program.assemble import lower_module
from tests.lower.compiled import assert_close, check_module, compile_module
from tests.lower.execution import AVX512
from tests.lower.graphs import GRAPHS, inputs_of
from tests.lower.risks import RISKS

SSE = CpuMachine("sse", lanes=4, registers=16, fused=False)
AVX2 = CpuMachine("avx2", lanes=8, registers=16, fused=True)


def _sizes(module: Module, size: int) -> dict[str, int]:
    return {name: size if low else 0 for name, (low, _) in module.dims.items()}


@pytest.mark.parametrize("name", RISKS)
def test_compiled_when_a_graph_lays_a_trap_then_it_equals_the_graph_reference(name: str) -> None:
    rng = np.random.default_rng(7)
    module = RISKS[name](rng)
    sizes = _sizes(module, 3)
    check_module(module, inputs_of(module, sizes, rng), sizes)


@pytest.mark.parametrize(
    "name", ["convolution-multiplier", "image", "lookup", "chosen", "shared-heads", "normalisation-short"]
)
@pytest.mark.parametrize("machine", [SSE, AVX2], ids=lambda m: m.name)
def test_compiled_when_vectors_are_narrower_then_it_equals_the_graph_reference(name: str, machine: CpuMachine) -> None:
    rng = np.random.default_rng(7)
    module = GRAPHS[name](rng)
    sizes = {n: max(5, low or 1) for n, (low, _) in module.dims.items()}
    check_module(module, inputs_of(module, sizes, rng), sizes, machine)


@pytest.mark.slow
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("size", [1, 4, 19])
def test_compiled_when_any_graph_has_any_size_then_it_equals_the_graph_reference(name: str, size: int) -> None:
    rng = np.random.default_rng(size)
    module = GRAPHS[name](rng)
    sizes = {n: max(size, low or 1) for n, (low, _) in module.dims.items()}
    check_module(module, inputs_of(module, sizes, rng), sizes)


@pytest.mark.parametrize("name", ["chain", "convolution"])
def test_compiled_when_the_batch_grows_then_each_row_keeps_its_bits(name: str) -> None:
    rng = np.random.default_rng(3)
    module = GRAPHS[name](rng)
    compiled = compile_module(module)
    inputs = inputs_of(module, {"N": 5}, rng)
    together = compiled.run(inputs, {"N": 5}, threads=2)["y"]
    for row in range(5):
        alone = compiled.run({"x": inputs["x"][row : row + 1]}, {"N": 1})["y"]
        assert alone.tobytes() == together[row : row + 1].tobytes()


@pytest.mark.parametrize("rows", [1, 2, 7, 13, 14, 15, 40])
def test_product_when_its_rows_are_dynamic_then_each_row_keeps_its_bits(rows: int) -> None:
    rng = np.random.default_rng(rows)
    builder = GraphBuilder(dims={"M": (1, None)})
    x = builder.input("x", tensor(F32, symbol("M"), 37))
    builder.output("y", builder.op("matmul", x, builder.constant(rng.standard_normal((37, 70)).astype(np.float32))))
    compiled = compile_module(builder.finish())
    given = rng.standard_normal((rows, 37)).astype(np.float32)
    together = compiled.run({"x": given}, {"M": rows}, threads=2)["y"]
    for row in range(rows):
        assert compiled.run({"x": given[row : row + 1]}, {"M": 1})["y"].tobytes() == together[row].tobytes()


def test_lowering_when_a_dim_is_called_like_a_loop_then_it_is_refused_with_the_name() -> None:
    builder = GraphBuilder(dims={"_d0": (1, None)})
    builder.output("y", builder.op("exp", builder.input("x", tensor(F32, symbol("_d0"), 3))))
    with pytest.raises(TesseraError, match="_d0"):
        lower_module(builder.finish(), AVX512)


def _of_type(dtype: DType) -> Module:
    """Padded pools, a product, reductions, a pad and a concatenation over one element type."""
    b = GraphBuilder(dims={"N": (1, None)})
    x, w = b.input("x", tensor(dtype, symbol("N"), 7, 7, 5)), b.input("w", tensor(dtype, 5, 21))
    around = {"window": (1, 3, 3, 1), "strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 1)}
    for kind in ("max", "min", "sum"):
        doubled = b.op("add", x, x)
        b.output(kind, b.op("reduce_window", doubled, kind=kind, low=(0, 1, 1, 0), high=(0, 1, 1, 0), **around))
    z = b.op("matmul", x, w)
    b.output("z", z)
    b.output("rows", b.op("reduce", z, kind="max", axes=(3,), keepdims=False))
    b.output("padded", b.op("pad", z, low=(0, 1, 2, 0), high=(0, 0, 3, 1), value=3.0))
    b.output("joined", b.op("concat", z, z, axis=3))
    return b.finish()


@pytest.mark.parametrize("dtype", [F64, F16, BF16, I64, I32, I8, U8], ids=str)
def test_compiled_when_elements_are_of_another_type_then_it_equals_the_graph_reference(dtype: DType) -> None:
    module, rng = _of_type(dtype), np.random.default_rng(2)
    inputs = inputs_of(module, {"N": 2}, rng)
    if not dtype.is_float:
        inputs = {name: np.mod(array, 5).astype(dtype.numpy) for name, array in inputs.items()}
    expected = graph_reference.run(module, "main", inputs)
    for name, array in compile_module(module).run(inputs, {"N": 2}).items():
        kind = np.float64 if dtype.is_float else np.int64
        # bf16 keeps 8 bits: a sum of five products that is rounded at every step is off by some units of the last one.
        assert_close(array.astype(kind), expected[name].astype(kind), name, 3e-2 if dtype.bits == 16 else 1e-5)
