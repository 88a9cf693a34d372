"""Every graph lowered to tiles computes what the Graph reference computes, on machines of different shapes."""

from __future__ import annotations

import numpy as np
import pytest

from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph import reference as graph_reference
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.lower.program.assemble import lower_module
from tests.lower.execution import AVX2, AVX512, run_tiles
from tests.lower.graphs import GRAPHS, inputs_of

TOLERANCE = 2e-5


def _sizes(module: Module, size: int) -> dict[str, int]:
    return {name: max(size, low or 1) for name, (low, _) in module.dims.items()}


@pytest.mark.parametrize("machine", [AVX512, AVX2], ids=lambda m: m.name)
@pytest.mark.parametrize("size", [3, 1, 13])
@pytest.mark.parametrize("name", GRAPHS)
def test_tiles_when_any_graph_is_lowered_then_they_equal_the_graph_reference(
    name: str, size: int, machine: CpuMachine
) -> None:
    rng = np.random.default_rng(7)
    module = GRAPHS[name](rng)
    sizes = _sizes(module, size)
    inputs = inputs_of(module, sizes, rng)
    expected = graph_reference.run(module, "main", inputs)
    outputs, _ = run_tiles(module, inputs, sizes, machine)
    for output, label in zip(outputs, module.output_names["main"], strict=True):
        scale = max(float(np.abs(expected[label]).max()), 1e-6)
        assert float(np.abs(np.subtract(output, expected[label])).max()) <= TOLERANCE * scale, label


def test_lowering_when_repeated_then_every_launch_is_the_same() -> None:
    module = GRAPHS["chain"](np.random.default_rng(7))
    inputs = inputs_of(module, {"N": 2}, np.random.default_rng(8))
    first, one = run_tiles(module, inputs, {"N": 2})
    second, two = run_tiles(module, inputs, {"N": 2})
    assert [r.schedule for r in one.launches[0]] == [r.schedule for r in two.launches[0]]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


def test_rows_when_the_batch_grows_then_their_bits_stay() -> None:
    rng = np.random.default_rng(9)
    module = GRAPHS["chain"](rng)
    inputs = inputs_of(module, {"N": 3}, rng)
    together, _ = run_tiles(module, inputs, {"N": 3})
    alone, _ = run_tiles(module, {"x": inputs["x"][1:2]}, {"N": 1})
    assert together[0][1:2].tobytes() == alone[0].tobytes()


def test_module_when_a_chain_is_very_long_then_is_cut_into_tasks_of_bounded_size() -> None:
    b = GraphBuilder()
    x = b.input("x", tensor(F32, 4, 16))
    for _ in range(700):
        x = b.op("abs", b.op("neg", x))
    b.output("y", x)
    lowered = lower_module(b.finish(), AVX2)
    sizes = [len(record.schedule_function.nodes) for record in lowered.launches[0]]
    assert sum(sizes) == 1400
    assert max(sizes) <= 128
