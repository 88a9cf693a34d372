"""Every Tile node as machine code against the Tile reference interpreter, bit for bit, for several vector widths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tessera_build.ir.core.dims import floordiv, minimum, mod, symbol
from tessera_build.ir.core.scalar import ScalarBuilder, ScalarProgram
from tessera_build.ir.core.types import BF16, BOOL, F16, F32, F64, I32, I64, DType
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.tile import nodes as t
from tests.lower.tile_programs import MACHINES, WIDE, Program, check, execute, random


def _argmax() -> ScalarProgram:
    """(value, place) of the larger of two, the first where they are equal."""
    s = ScalarBuilder((F32, I32, F32, I32))
    later = s.op("gt", 2, 0)
    return s.finish(s.op("select", later, 2, 0), s.op("select", later, 3, 1))


every_machine = pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.name)
CHECKED = t.ViewAxis(1, 1, checked=True)


@every_machine
@pytest.mark.parametrize("offset", [-9, -3, 0, 4, 15, 40])
def test_load_when_the_last_axis_leaves_the_buffer_then_it_is_padded(
    offset: int, machine: CpuMachine, tmp_path: Path
) -> None:
    p = Program()
    view = p.view(p.buffer(3, 17), (3, 21), (0, offset), (0, CHECKED))
    p.put(p.load(view, -7.5))
    check(p.finish(), tmp_path, machine)


@pytest.mark.parametrize("step", [1, 2, 3, -1, -2])
@pytest.mark.parametrize("offset", [-5, 0, 6, 19])
def test_load_when_the_last_axis_has_a_step_then_only_the_domain_is_read(
    step: int, offset: int, tmp_path: Path
) -> None:
    p = Program()
    view = p.view(p.buffer(2, 20), (2, 13), (0, offset), (0, t.ViewAxis(1, step, checked=True)))
    p.put(p.load(view, 2.0))
    check(p.finish(), tmp_path)


@every_machine
@pytest.mark.parametrize("step", [1, 2, -1])
def test_load_when_an_outer_axis_leaves_the_buffer_then_it_is_padded(
    step: int, machine: CpuMachine, tmp_path: Path
) -> None:
    p = Program()
    view = p.view(p.buffer(5, 9), (7, 9), (1 if step > 0 else 5, 0), (t.ViewAxis(0, step, checked=True), 1))
    p.put(p.load(view, 3.0))
    check(p.finish(), tmp_path, machine)


@pytest.mark.parametrize("shape", [(4, 3), (3, 20)])
@pytest.mark.parametrize("start", [-3, 0, 2])
def test_load_when_two_tile_axes_walk_one_buffer_axis_then_their_sum_is_checked(
    shape: tuple[int, int], start: int, tmp_path: Path
) -> None:
    p = Program()
    walks = (t.ViewAxis(0, 2, checked=True), t.ViewAxis(0, 1, checked=True))
    p.put(p.load(p.view(p.buffer(8), shape, (start,), walks), 9.0))
    check(p.finish(), tmp_path)


def test_load_when_offsets_follow_loops_and_dims_then_edges_are_padded(tmp_path: Path) -> None:
    p = Program()
    n = symbol("N")
    source, target = p.buffer(n, 11), p.buffer(n, 30)

    def row(*_: int) -> tuple[int, ...]:
        def column(*_: int) -> tuple[int, ...]:
            offsets = (symbol("i") - 1, symbol("j") - 2)
            walks = (t.ViewAxis(0, 1, checked=True), CHECKED)
            tile = p.load(p.view(source, (1, 10), offsets, walks), 1.0)
            p.store(p.view(target, (1, 10), (symbol("i"), symbol("j")), (0, 1)), tile)
            return ()

        p.loop("j", 30, 10, column)
        return ()

    p.loop("i", n, 1, row, scope="parallel")
    for size in (1, 4):
        check(p.finish("N"), tmp_path, dims={"N": size})


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("offset", [-4, 0, 3])
@pytest.mark.parametrize("width", [1, 3, 16, 23])
def test_store_when_the_view_leaves_the_buffer_then_only_the_domain_is_written(
    width: int, offset: int, step: int, tmp_path: Path
) -> None:
    p = Program()
    tile = p.whole(p.buffer(3, width))
    walks = (t.ViewAxis(0, 1, checked=True), t.ViewAxis(1, step, checked=True))
    p.store(p.view(p.buffer(2, 18), (3, width), (-1, offset), walks), tile)
    check(p.finish(), tmp_path)


@every_machine
def test_load_and_store_when_buffers_have_strides_then_gaps_are_left_alone(machine: CpuMachine, tmp_path: Path) -> None:
    p = Program()
    tile = p.whole(p.buffer(4, 9))
    p.put(tile)
    data = np.random.default_rng(0).standard_normal((4, 20)).astype(np.float32)
    source, target = data[:, 1:19:2], np.zeros((4, 30), np.float32)[:, :9]
    check(p.finish(strides=((20, 2), (30, 1))), tmp_path, machine, buffers=[source, target])


@every_machine
@pytest.mark.parametrize("dtype", [I64, I32])
def test_gather_when_indices_vary_along_the_last_axis_then_elements_are_picked(
    dtype: DType, machine: CpuMachine, tmp_path: Path
) -> None:
    p = Program()
    table = p.buffer(5, 4)
    indices = p.whole(p.buffer(1, 19, dtype=dtype))
    p.put(p.load(p.view(table, (4, 19), (0, 0), (1, -1), (indices, 0))))
    check(p.finish(), tmp_path, machine)


def test_gather_when_indices_vary_along_an_outer_axis_then_rows_are_picked(tmp_path: Path) -> None:
    p = Program()
    table = p.buffer(6, 21)
    indices = p.whole(p.buffer(5, 1, dtype=I64))
    p.put(p.load(p.view(table, (5, 21), (1, 0), (-1, 1), (indices, 0))))
    check(p.finish(), tmp_path)


def test_gather_when_its_axis_is_checked_then_elements_outside_are_padded(tmp_path: Path) -> None:
    p = Program()
    table = p.buffer(3, 9)
    indices = p.whole(p.buffer(1, 13, dtype=I64))
    rows = p.whole(p.buffer(4, 1, dtype=I64))
    p.put(p.load(p.view(table, (3, 13), (0, 6), (0, CHECKED), (indices, 1)), 5.0))
    p.put(p.load(p.view(table, (4, 9), (0, 0), (t.ViewAxis(0, 1, checked=True), 1), (rows, 0)), 6.0))
    check(p.finish(), tmp_path)


def test_gather_when_lanes_lie_outside_the_tile_then_their_indices_do_not_count(tmp_path: Path) -> None:
    p = Program()
    table = p.buffer(5, 9)
    picked = p.map([p.iota((1, 5), 1)], lambda s: s.op("sub", s.const(4, I64), 0))
    p.put(p.load(p.view(table, (1, 5), (0, 3), (-1, -1), (picked, 0))))
    check(p.finish(), tmp_path)


def test_store_when_indices_are_gathered_then_elements_are_scattered(tmp_path: Path) -> None:
    p = Program()
    tile = p.whole(p.buffer(1, 6))
    even = p.map([p.iota((1, 6), 1)], lambda s: s.op("mul", 0, s.const(2, I64)))
    p.store(p.view(p.buffer(1, 12), (1, 6), (0, 1), (0, -1), (even, 1)), tile)
    p.store(p.view(p.buffer(1, 24), (1, 6), (0, 0), (0, 1), (even, 1)), tile)
    check(p.finish(), tmp_path)


@pytest.mark.parametrize("bad", [-1, 5])
@pytest.mark.parametrize("wide", [True, False])
def test_gather_when_an_index_is_outside_then_the_status_says_so(bad: int, wide: bool, tmp_path: Path) -> None:
    p = Program()
    table = p.buffer(5, 3)
    indices = p.whole(p.buffer(1, 19, dtype=I64) if wide else p.buffer(7, 1, dtype=I64))
    view = (
        p.view(table, (3, 19), (0, 0), (1, -1), (indices, 0))
        if wide
        else p.view(table, (7, 3), (0, 0), (-1, 1), (indices, 0))
    )
    p.put(p.load(view))
    function = p.finish()
    buffers = random(function, {})
    assert execute(function, tmp_path, WIDE, buffers, {}) == 0
    buffers[1].reshape(-1)[3] = bad
    assert execute(function, tmp_path, WIDE, buffers, {}) == 1


def test_copy_when_both_ends_are_ragged_then_the_domain_is_copied_through_scratch(tmp_path: Path) -> None:
    p = Program()
    source, scratch, target = p.buffer(3, 14), p.alloc(3, 20), p.buffer(3, 18)
    p.builder.add(t.Copy(p.view(source, (3, 20), (0, -2), (0, CHECKED)), p.all_of(scratch), 4.0))
    p.builder.add(t.Wait())
    p.builder.add(t.Copy(p.all_of(scratch), p.view(target, (3, 20), (0, 1), (0, CHECKED))))
    check(p.finish(), tmp_path)


@every_machine
@pytest.mark.parametrize("scope", [None, "serial", "unroll"])
@pytest.mark.parametrize("extent", [0, 1, 13])
def test_for_when_it_carries_tiles_then_each_turn_sees_the_last(
    extent: int, scope: str | None, machine: CpuMachine, tmp_path: Path
) -> None:
    p = Program()
    source = p.buffer(13, 18)

    def body(total: int, before: int) -> tuple[int, int]:
        row = p.load(p.view(source, (1, 18), (symbol("i"), 0), (0, 1)))
        return p.map([total, row, before], lambda s: s.op("fma", 1, 2, 0)), row

    start = p.fill(0.5, (1, 18)), p.fill(2.0, (1, 18))
    for result in p.loop("i", extent, 3, body, start, scope):
        p.put(result)
    check(p.finish(), tmp_path, machine)


def test_for_when_parallel_loops_nest_then_every_index_runs_once(tmp_path: Path) -> None:
    p = Program()
    n = symbol("N")
    target = p.buffer(n, 5, 9)

    def inner(*_: int) -> tuple[int, ...]:
        number = p.iota((1, 1, 3), 2, symbol("i") * 100 + symbol("j") * 10 + symbol("k"), I32)
        cast = p.map([number], lambda s: s.cast(0, F32))
        p.store(p.view(target, (1, 1, 3), (symbol("i"), symbol("j"), symbol("k")), (0, 1, 2)), cast)
        return ()

    def middle(*_: int) -> tuple[int, ...]:
        p.loop("k", 9, 3, inner, scope="parallel")
        return ()

    def outer(*_: int) -> tuple[int, ...]:
        p.loop("j", 5, 2, middle, scope="parallel")
        return ()

    p.loop("i", n, 1, outer, scope="parallel")
    check(p.finish("N"), tmp_path, dims={"N": 3})


@pytest.mark.parametrize("relation", ["lt", "le", "eq", "ne"])
def test_if_when_dims_decide_then_one_region_gives_the_results(relation: t.Relation, tmp_path: Path) -> None:
    p = Program()
    n = symbol("N")
    tile = p.whole(p.buffer(3, 18))
    chosen = p.branch(
        (n * 2, relation, 6),
        lambda: p.map([tile], lambda s: s.op("neg", 0)),
        lambda: p.map([p.reduce(tile, (1,), "tree(16)"), tile], lambda s: s.op("add", 0, 1)),
    )
    p.put(chosen)
    for size in (2, 3, 4):
        check(p.finish("N"), tmp_path, dims={"N": size})


@pytest.mark.parametrize("size", [0, 2, 3, 7])
def test_offsets_when_divisions_round_negative_numbers_then_they_round_down(size: int, tmp_path: Path) -> None:
    p = Program()
    n = symbol("N")
    low = minimum(n - 5, 1)
    offsets = (floordiv(n - 5, 2) + 3, mod(n - 5, 4), floordiv(low, 2), mod(low, 3), floordiv(low * n, n + 1))
    for position, offset in enumerate(offsets):
        p.put(p.iota((1, 3 + position), 1, offset))
    check(p.finish("N"), tmp_path, dims={"N": size})


@every_machine
@pytest.mark.parametrize(
    "spec", ["mk,kn->mn", "kn,mk->mn", "mk,nk->mn", "km,kn->mn", "k,kn->n", "mn,n->mn", "kmj,jkn->mn", "kjn,mjk->mn"]
)
@pytest.mark.parametrize("views", [True, False])
def test_contract_when_operands_lie_anyhow_then_sums_run_in_the_stated_order(
    spec: str, views: bool, machine: CpuMachine, tmp_path: Path
) -> None:
    extents = {"m": 3, "k": 5, "n": 18, "j": 2}
    left, right = spec.split("->")[0].split(",")
    p = Program()
    read = p.all_of if views else p.whole
    a, b = (read(p.buffer(*(extents[x] for x in letters))) for letters in (left, right))
    acc = p.whole(p.buffer(*(extents[x] for x in spec.split("->")[1])))
    p.put(p.contract(spec, acc, a, b))
    check(p.finish(), tmp_path, machine)


@pytest.mark.parametrize("columns", [1, 2, 7])
def test_contract_when_columns_are_few_then_it_still_adds_up(columns: int, tmp_path: Path) -> None:
    p = Program()
    a, b = p.whole(p.buffer(4, 6)), p.all_of(p.buffer(6, columns))
    p.put(p.contract("mk,kn->mn", p.fill(0.0, (4, columns)), a, b))
    check(p.finish(), tmp_path)


def test_contract_when_views_are_ragged_then_outside_counts_as_zero(tmp_path: Path) -> None:
    p = Program()
    a = p.view(p.buffer(5, 6), (4, 6), (3, 0), (t.ViewAxis(0, 1, checked=True), 1))
    b = p.view(p.buffer(6, 20), (6, 32), (0, -3), (0, CHECKED))
    p.put(p.contract("mk,kn->mn", p.fill(1.0, (4, 32)), a, b))
    check(p.finish(), tmp_path)


@pytest.mark.parametrize("narrow", [BF16, F16, F32])
def test_contract_when_operands_are_narrow_then_products_are_formed_wide(narrow: DType, tmp_path: Path) -> None:
    p = Program()
    a, b = p.whole(p.buffer(3, 4, dtype=narrow)), p.all_of(p.buffer(4, 18, dtype=narrow))
    wide = F64 if narrow is F32 else F32
    p.put(p.contract("mk,kn->mn", p.fill(0.0, (3, 18), wide), a, b))
    check(p.finish(), tmp_path)


@every_machine
@pytest.mark.parametrize("shapes", [((3, 1), (1, 19)), ((3, 19), (3, 1)), ((1, 1), (3, 2)), ((3, 5), (1, 5))])
def test_map_when_operands_broadcast_then_each_element_meets_its_own(
    shapes: tuple[tuple[int, int], tuple[int, int]], machine: CpuMachine, tmp_path: Path
) -> None:
    p = Program()
    tiles = [p.whole(p.buffer(*shape)) for shape in shapes]
    p.put(p.map(tiles, lambda s: s.op("sub", s.op("mul", 0, 1), s.op("div", 1, 0))))
    p.put(p.map(tiles, lambda s: s.op("select", s.op("lt", 0, 1), 0, s.op("neg", 1))))
    check(p.finish(), tmp_path, machine)


@pytest.mark.parametrize("dtype", [I64, I32, F64, F16, BF16])
def test_map_when_elements_are_of_another_type_then_arithmetic_is_theirs(dtype: DType, tmp_path: Path) -> None:
    p = Program()
    a, b = p.whole(p.buffer(3, 11, dtype=dtype)), p.whole(p.buffer(3, 11, dtype=dtype))
    for name in ("add", "sub", "mul", "max", "min"):
        p.put(p.map([a, b], lambda s, name=name: s.op(name, 0, 1)))
    p.put(p.map([a, b], lambda s: s.op("le", 0, 1)))
    p.put(p.map([a], lambda s: s.cast(0, F32)))
    check(p.finish(), tmp_path)


def test_map_when_elements_are_truth_values_then_logic_and_choice_agree(tmp_path: Path) -> None:
    p = Program()
    a, b = p.whole(p.buffer(2, 21, dtype=BOOL)), p.whole(p.buffer(2, 21, dtype=BOOL))
    for name in ("and", "or", "xor", "max", "min", "eq", "ne"):
        p.put(p.map([a, b], lambda s, name=name: s.op(name, 0, 1)))
    p.put(p.map([a], lambda s: s.op("not", 0)))
    p.put(p.map([a], lambda s: s.cast(0, F32)))
    p.put(p.map([a, b], lambda s: s.op("select", 0, s.const(True, BOOL), 1)))
    check(p.finish(), tmp_path)


@every_machine
@pytest.mark.parametrize("order", ["seq", "tree(4)", "tree(8)", "tree(16)", "tree(32)"])
@pytest.mark.parametrize("axes", [(1,), (0,), (0, 1), (1, 0)])
@pytest.mark.parametrize("width", [1, 3, 16, 21])
def test_reduce_when_its_order_is_stated_then_partial_sums_keep_to_it(
    width: int, axes: tuple[int, ...], order: str, machine: CpuMachine, tmp_path: Path
) -> None:
    p = Program()
    p.put(p.reduce(p.whole(p.buffer(3, width)), axes, order))
    check(p.finish(), tmp_path, machine)


@pytest.mark.parametrize("op", ["add", "mul", "max", "min"])
@pytest.mark.parametrize("dtype", [I32, I64, F64, BOOL])
def test_reduce_when_elements_are_of_another_type_then_lanes_outside_do_not_count(
    op: str, dtype: DType, tmp_path: Path
) -> None:
    if dtype is BOOL and op in {"add", "mul"}:
        op = {"add": "max", "mul": "min"}[op]
    p = Program()
    tile = p.whole(p.buffer(2, 19, dtype=dtype))
    p.put(p.reduce(tile, (1,), "tree(16)", op))
    p.put(p.reduce(tile, (0,), "seq", op))
    check(p.finish(), tmp_path)


@pytest.mark.parametrize("order", ["seq", "tree(16)"])
def test_reduce_when_tuples_are_combined_then_the_place_of_the_largest_comes_out(order: str, tmp_path: Path) -> None:
    p = Program()
    values = p.whole(p.buffer(3, 13))
    places = p.map([values, p.iota((3, 13), 1, 0, I32)], lambda _: 1)
    from_right = p.builder
    kinds = [from_right.types[v] for v in (values, places)]
    results = tuple(from_right.value(type(k)(k.container, k.dtype, (3, 1))) for k in kinds)
    from_right.add(t.Reduce(results, (values, places), (1,), _argmax(), (float("-inf"), -1), order))
    for result in results:
        p.put(result)
    check(p.finish(), tmp_path)


@every_machine
@pytest.mark.parametrize("permutation", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (0, 2, 1), (1, 2, 0)])
@pytest.mark.parametrize("shape", [(2, 3, 18), (5, 1, 4), (3, 17, 1)])
def test_permute_when_axes_move_then_elements_follow(
    shape: tuple[int, ...], permutation: tuple[int, ...], machine: CpuMachine, tmp_path: Path
) -> None:
    p = Program()
    p.put(p.permute(p.whole(p.buffer(*shape)), permutation))
    check(p.finish(), tmp_path, machine)


@every_machine
@pytest.mark.parametrize("dtype", [I64, I32])
@pytest.mark.parametrize("axis", [0, 1])
def test_iota_when_it_runs_along_any_axis_then_numbers_start_at_the_offset(
    axis: int, dtype: DType, machine: CpuMachine, tmp_path: Path
) -> None:
    p = Program()
    p.put(p.iota((3, 19), axis, symbol("N") - 4, dtype))
    p.put(p.iota((3, 1), axis, -2, dtype))
    check(p.finish("N"), tmp_path, machine, {"N": 2})
