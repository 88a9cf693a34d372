"""Graphs through the complete compiled path against the Graph reference: results, threads, batches, lanes."""

from __future__ import annotations

import numpy as np
import pytest

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.lower.program.assemble import lower_module
from tests.lower.compiled import check_module, compile_module
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


@pytest.mark.parametrize("name", ["convolution-multiplier", "image", "lookup", "normalisation-short"])
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
