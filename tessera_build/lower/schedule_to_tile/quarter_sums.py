"""Sums of the quarters of a product's first operand, which Strassen's seven products read.

Before: x[i, k]. After: s1 .. s4 of `space.strassen` in the task's scratch memory, for rows and depth of a quarter.
Invariant: every sum is made once, of the elements at the same place of four quarters.
"""

from __future__ import annotations

from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.types import F32, tile
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.schedule_to_tile.halves import (
    Halves,
    axes_around,
    loops_around,
    quarter_view,
    sum_view,
    sums_buffer,
)
from tessera_build.lower.schedule_to_tile.nest import LoopRange, Nest

# Registers a step: four quarters of each, and the four sums, are held at a time.
_REGISTERS = (4, 2, 1)


def emit_quarter_sums(nest: Nest, halves: Halves) -> None:
    """Append the nest that makes all sums, rows in parallel."""
    (rows, depth, _), (most, _), sums = halves.extents, halves.product.largest, sums_buffer(nest, halves)
    width = next(n * halves.lanes for n in _REGISTERS if depth % (n * halves.lanes) == 0)
    nest.tiles = {halves.product.depth: width}

    def row(_: tuple[int, ...]) -> tuple[int, ...]:
        if rows == most:
            nest.loop(LoopRange(halves.product.depth, depth, width), (), step)
            return ()
        # Blocks differ by a row: threads share the loop of the largest ones.
        with nest.builder.region() as inside:
            nest.loop(LoopRange(halves.product.depth, depth, width), (), step)
        with nest.builder.region() as outside:
            pass
        there = symbol(halves.product.rows)
        nest.builder.add(t.If((), there, "lt", rows, inside.region, outside.region))
        return ()

    def step(_: tuple[int, ...]) -> tuple[int, ...]:
        _sums(nest, halves, sums, (symbol(halves.product.rows), symbol(halves.product.depth)))
        return ()

    span = LoopRange(halves.product.rows, most, 1, "parallel")
    loops_around(nest, halves, axes_around(nest, halves), lambda: nest.loop(span, (), row))


def _sums(nest: Nest, halves: Halves, sums: int, at: tuple[Extent, Extent]) -> None:
    def quarter(*half: int) -> int:
        view = quarter_view(nest, halves, (half[0], half[1]), at)
        return nest.builder.emit(lambda r: t.Load(r, view), tile(F32, *nest.builder.types[view].static_shape))

    def both(name: str, left: int, right: int) -> int:
        return nest.map(nest.builder.types[left].static_shape, (left, right), lambda s: s.op(name, 0, 1))

    a11, a12, a21, a22 = quarter(0, 0), quarter(0, 1), quarter(1, 0), quarter(1, 1)
    s1 = both("add", a21, a22)
    s2 = both("sub", s1, a11)
    size = nest.tiles[halves.product.depth]
    for number, value in enumerate((s1, s2, both("sub", a11, a21), both("sub", a12, s2))):
        nest.builder.add(t.Store(sum_view(nest, halves, (sums, number), at, size), value))
