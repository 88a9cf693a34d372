"""Products of rows as they lie: asking for the next columns, and convolutions that became such products."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest

from tessera_build.ir.core.dims import Extent, evaluate, symbol
from tessera_build.ir.core.node import Node
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.schedule.trace import Prefetch, Reorder, Schedule, ScheduleRejectedError, Split, Step, Tensorise
from tessera_build.ir.target import kernel as k
from tessera_build.ir.tile import nodes as t
from tessera_build.ir.tile import reference
from tessera_build.ir.tile.erase import strip_bindings
from tessera_build.ir.tile.spec import verify
from tessera_build.ir.tile.text import parse_function, print_function
from tessera_build.lower.graph_to_schedule.tasks import Task
from tessera_build.lower.program.kernels import Setting, derived
from tessera_build.lower.schedule_to_tile.replay import Bindings, TileProgram, schedule_to_tile
from tessera_build.lower.tile_to_target.cpu import lower_cpu
from tests.lower.compiled import check_module, compile_module
from tests.lower.execution import AVX512
from tests.lower.steps import steps_of
from tests.lower.tasks import task_of

LINE = 16
TILE = (Split("_d0", 8), Split("_d1", 48), Split("_k", 16), Tensorise("_k"), Reorder(("_d1", "_d0")))


def _task(rows: int, depth: int, columns: int, across: bool = False) -> Task:
    """max(w x + b, 0) of two inputs; `across`: x is read along its other axis."""
    b = GraphBuilder()
    shape = (columns, depth) if across else (depth, columns)
    w, x = b.input("w", tensor(F32, rows, depth)), b.input("x", tensor(F32, *shape))
    y = b.op("add", b.op("matmul", w, x, transpose_b=across), b.input("b", tensor(F32, rows, 1)))
    b.output("y", b.op("max", y, b.scalar(0.0, F32)))
    module = b.finish()
    return task_of(module)


def _program(rows: int, depth: int, columns: int, *more: Step) -> TileProgram:
    return schedule_to_tile(_task(rows, depth, columns), Schedule((*TILE, *more)), Bindings({}, {}, AVX512.lanes))


def _asked(nodes: Sequence[Node], places: dict[str, int]) -> Iterator[tuple[Node, dict[str, int], int]]:
    """Every element from which on a line is asked for: by which node, and where the loops are."""
    for node, here in steps_of(nodes, places):
        binding = getattr(node, "binding", None)
        if binding is not None and binding.ahead is not None:
            first = evaluate(binding.ahead.first, here)
            for line in range(binding.ahead.lines * binding.ahead.rows):
                row, place = divmod(line, binding.ahead.lines)
                yield node, here, first + row * binding.ahead.apart + place * LINE


def _covered(elements: Sequence[int]) -> set[int]:
    return {element + lane for element in elements for lane in range(LINE)}


@pytest.mark.parametrize(("rows", "depth", "columns"), [(64, 64, 192), (61, 96, 200), (8, 48, 144), (300, 32, 96)])
def test_columns_when_used_then_all_of_the_next_were_asked_for_once_or_little_more(
    rows: int, depth: int, columns: int
) -> None:
    found: dict[int, list[int]] = {}
    for node, places, element in _asked(_program(rows, depth, columns, Prefetch(1)).function.nodes, {}):
        if isinstance(node, t.Contract):
            found.setdefault(places["_d1"], []).append(element)
    assert len(found) == -(-columns // 48)
    for start, elements in found.items():
        wanted = {row * columns + c for row in range(depth) for c in range(start + 48, min(start + 96, columns))}
        assert wanted <= _covered(elements)
        assert len(elements) <= max(depth * 3, 3 * -(-rows // 8) * depth // 16)


@pytest.mark.parametrize(("rows", "depth", "columns"), [(64, 32, 96), (13, 20, 48)])
def test_results_when_a_tile_begins_then_their_lines_are_asked_for(rows: int, depth: int, columns: int) -> None:
    found: dict[tuple[int, int], list[int]] = {}
    for node, places, element in _asked(_program(rows, depth, columns, Prefetch(1)).function.nodes, {}):
        if isinstance(node, t.View):
            found.setdefault((places.get("_d0", 0), places.get("_d1", 0)), []).append(element)
    assert len(found) == -(-rows // 8) * -(-columns // 48)
    every = set[int]().union(*(_covered(elements) for elements in found.values()))
    assert {row * columns + column for row in range(rows) for column in range(columns)} <= every


@pytest.mark.parametrize(("rows", "depth", "columns"), [(16, 37, 51), (16, 32, 96), (8, 20, 48)])
def test_asking_when_erased_then_bits_are_as_before(rows: int, depth: int, columns: int) -> None:
    plain, asking = _program(rows, depth, columns), _program(rows, depth, columns, Prefetch(1))
    verify(asking.function)
    assert print_function(parse_function(print_function(asking.function))) == print_function(asking.function)
    assert not list(_asked(strip_bindings(asking.function).nodes, {}))
    values = [_values(program) for program in (plain, asking)]
    assert values[0].keys() == values[1].keys()
    assert all(values[0][value] == values[1][value] for value in values[0])


def _values(program: TileProgram) -> dict[int, bytes]:
    """What every buffer holds after a run, by the value that it is."""
    function, buffers = program.function, list[Array]()
    for operand, arg in zip(program.operands, function.args, strict=True):
        shape = [evaluate(e, {}) for e in function.types[arg].shape]
        buffers.append(np.random.default_rng(operand.value).standard_normal(shape).astype(np.float32))
    reference.run(function, buffers, {})
    return {operand.value: b.tobytes() for operand, b in zip(program.operands, buffers, strict=True)}


def test_asking_when_lowered_then_every_line_is_one_request() -> None:
    program = _program(16, 32, 96, Prefetch(1))
    bindings = [getattr(node, "binding", None) for node in program.function.walk()]
    wanted = sum(b.ahead.lines * b.ahead.rows for b in bindings if b is not None and b.ahead is not None)
    nodes = list(lower_cpu(program.function, AVX512, {}).kernel.walk())
    assert sum(isinstance(node, k.Prefetch) for node in nodes) == wanted > 0


def test_asking_when_columns_lie_apart_then_the_schedule_is_rejected() -> None:
    task = _task(16, 32, 96, across=True)
    with pytest.raises(ScheduleRejectedError, match="does not fit"):
        schedule_to_tile(task, Schedule((*TILE, Prefetch(1))), Bindings({}, {}, AVX512.lanes))


def test_product_when_its_columns_are_far_apart_then_it_asks_for_them() -> None:
    def asks(rows: int, depth: int, columns: int) -> bool:
        return derived(Setting(_task(rows, depth, columns), {}, {}, {}), AVX512).prefetched() == 1

    assert asks(64, 256, 3136)
    assert asks(256, 64, 3136)
    assert not asks(64, 256, 196)  # rows on the same page
    assert not asks(64, 16, 1568)  # stays in the second-level cache


def _convolutions(batch: Extent, side: int, channels: Sequence[int]) -> Module:
    """Convolutions of single pixels with biases and rectifiers; the last one is added to the image where it fits."""
    rng, b = np.random.default_rng(1), GraphBuilder(dims={"N": (1, None)})
    x = first = b.input("x", tensor(F32, batch, channels[0], side, side + 1))
    for inputs, outputs in itertools.pairwise(channels):
        w = b.constant((rng.standard_normal((outputs, inputs, 1, 1)) / np.sqrt(inputs)).astype(np.float32))
        x = b.op("conv", x, w, strides=(1, 1), low=(0, 0), high=(0, 0), dilations=(1, 1))
        x = b.op("add", x, b.constant(rng.standard_normal((outputs, 1, 1)).astype(np.float32)))
        x = b.op("max", x, b.scalar(0.0, F32))
    b.output("y", b.op("add", x, first) if channels[0] == channels[-1] else x)
    return run_passes(b.finish())


def _image(module: Module, batch: int) -> Mapping[str, Array]:
    kind = module.entries["main"].types[module.entries["main"].args[0]]
    shape = [e if isinstance(e, int) else batch for e in kind.shape]
    return {"x": np.random.default_rng(2).standard_normal(shape).astype(np.float32)}


@pytest.mark.parametrize("side", [5, 7, 23, 56])
@pytest.mark.parametrize("batch", [1, 3, symbol("N")])
def test_convolutions_of_pixels_when_compiled_then_right_for_any_number_of_threads(batch: Extent, side: int) -> None:
    module = _convolutions(batch, side, (24, 70, 24))
    assert "matmul" in {getattr(node, "op", "") for node in module.entries["main"].nodes}
    for number in (1, 4) if batch == symbol("N") else (int(str(batch)),):
        check_module(module, _image(module, number), {"N": number})


def test_convolutions_of_pixels_when_requests_share_a_batch_then_each_has_the_bits_that_it_has_alone() -> None:
    module = _convolutions(symbol("N"), 30, (64, 96, 64))
    compiled, inputs = compile_module(module), _image(module, 3)
    whole = compiled.run(inputs, {"N": 3})["y"]
    for number in range(3):
        alone = compiled.run({"x": np.ascontiguousarray(inputs["x"][number : number + 1])}, {"N": 1})["y"]
        assert alone.tobytes() == whole[number : number + 1].tobytes()
