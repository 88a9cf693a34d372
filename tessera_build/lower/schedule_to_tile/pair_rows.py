"""Rows of a product whose terms are taken in pairs, scaled, with the sums of their own pairs (`space.pairs`).

Before: x[i, k]. After, in the task's scratch memory: x[i, k] * 2**e; then minus the sum over k of +- of the products
of the first third's elements by the second's; then 2**-e, or 0 for a row of zeros. e is such that the sizes of all
elements add up to 2**scale or more, and less than twice as much, if they lie between 1e-29 and 1e29; a row with a
number that is none has none behind it. Invariant: a row's bits depend on that row alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tessera_build.ir.core.dims import Extent, minimum, symbol
from tessera_build.ir.core.scalar import ScalarBuilder
from tessera_build.ir.core.types import F32, I32, int_extent, tile
from tessera_build.ir.schedule.nodes import Compute
from tessera_build.ir.schedule.trace import Pair
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.schedule_to_tile.nest import LoopRange, Nest
from tessera_build.lower.schedule_to_tile.pairs import PairedRows, paired_rows, row_view, rows_buffer
from tessera_build.space.pairs import Paired

# Registers that a row is read by at a time.
_REGISTERS = 4
# Rows that a thread takes at a time, of the innermost axis that has several.
_CHUNK = 16
# Exponents as f32 has them: of 1, and the smallest and largest that sums of sizes are taken to have.
_MANTISSA_BITS, _ONE, _LEAST, _MOST = 23, 127, 27, 227


def emit_pair_rows(nest: Nest, node: Compute, paired: Paired, pair: Pair) -> None:
    """Append the nest over all rows."""
    rows = paired_rows(nest, paired)
    rows_buffer(nest, rows)
    nest.tiles = {}
    _loops(nest, list(nest.axes[:-1]), lambda: _Row(nest, node, rows, pair).emit())


def _loops(nest: Nest, axes: list[str], body: Callable[[], None]) -> None:
    """Loops over rows: all but the innermost in parallel, and that one if it is alone, some rows at a time."""
    long = [axis for axis in axes if nest.domain[axis] != 1]
    for axis in axes:
        nest.offsets[axis] = 0 if nest.domain[axis] == 1 else symbol(axis)

    def serial(first: Extent, count: Extent) -> None:
        def turn(_: tuple[int, ...]) -> tuple[int, ...]:
            nest.offsets[long[-1]] = first + symbol(long[-1])
            body()
            return ()

        nest.loop(LoopRange(long[-1], count), (), turn)

    def around(outer: list[str]) -> None:
        if outer:
            nest.loop(LoopRange(outer[0], nest.domain[outer[0]], 1, "parallel"), (), lambda _: inside(outer[1:]))
        elif len(long) > 1:
            serial(0, nest.domain[long[-1]])
        elif long:
            chunks(int_extent(nest.domain[long[-1]]))
        else:
            body()

    def inside(outer: list[str]) -> tuple[int, ...]:
        around(outer)
        return ()

    def chunks(extent: int) -> None:
        index = f"{long[-1]}_chunk"

        def chunk(_: tuple[int, ...]) -> tuple[int, ...]:
            serial(symbol(index), minimum(extent - symbol(index), _CHUNK))
            return ()

        nest.loop(LoopRange(index, extent, _CHUNK, "parallel"), (), chunk)

    around(long[:-1])


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Elements of a row from `at` on; `ends`: some lie beyond."""

    at: Extent
    width: int
    ends: bool = False


@dataclass(frozen=True, slots=True)
class _Row:
    """One row under construction."""

    nest: Nest
    node: Compute
    rows: PairedRows
    pair: Pair

    def emit(self) -> None:
        """Its scale, its elements, and what stands behind them."""
        nest, rows = self.nest, self.rows
        extent = rows.paired.extent
        size = self._size()
        factor = nest.map(self._shape(1), (size,), self._factor)

        def scaled(stretch: _Stretch, _: tuple[int, ...]) -> tuple[int, ...]:
            kind = self._shape(stretch.width)
            value = nest.map(kind, (self._element(stretch), factor), lambda s: s.op("mul", 0, 1))
            view = row_view(nest, rows, stretch.at, stretch.width, checked=stretch.ends)
            nest.builder.add(t.Store(view, value))
            return ()

        self._stretches(extent, (), scaled)
        products = self._products(factor)
        self._store(rows.begin, nest.map(self._shape(1), (products,), lambda s: s.op("neg", 0)))
        self._store(rows.begin + 1, nest.map(self._shape(1), (size, factor), self._undone))

    # -- numbers of a row ---------------------------------------------------------------------------------------------

    def _factor(self, s: ScalarBuilder) -> int:
        """2**(scale - exponent of the size)."""
        bits = s.op("shr", s.bitcast(0, I32), s.const(_MANTISSA_BITS, I32))
        exponent = s.op("min", s.op("max", bits, s.const(_LEAST, I32)), s.const(_MOST, I32))
        turned = s.op("sub", s.const(2 * _ONE + self.pair.scale, I32), exponent)
        return s.bitcast(s.op("shl", turned, s.const(_MANTISSA_BITS, I32)), F32)

    @staticmethod
    def _undone(s: ScalarBuilder) -> int:
        """1 / factor; 0 for a row of zeros, whose sums are what rounding left of the columns' own."""
        bits = s.op("sub", s.const(2 * _ONE << _MANTISSA_BITS, I32), s.bitcast(1, I32))
        zero = s.const(0.0, F32)
        return s.op("select", s.op("eq", 0, zero), zero, s.bitcast(bits, F32))

    # -- stretches of a row -------------------------------------------------------------------------------------------

    def _stretches(
        self, extent: int, carried: tuple[int, ...], step: Callable[[_Stretch, tuple[int, ...]], tuple[int, ...]]
    ) -> tuple[int, ...]:
        """So many elements, some registers at a time; the last ones may be fewer."""
        width, index = self._width(extent), self.rows.paired.depth
        whole = extent // width * width
        if whole > width:

            def turn(values: tuple[int, ...]) -> tuple[int, ...]:
                return step(_Stretch(symbol(index), width), values)

            carried = self.nest.loop(LoopRange(index, whole, width), carried, turn)
        elif whole:
            carried = step(_Stretch(0, width), carried)
        return carried if whole == extent else step(_Stretch(whole, width, ends=True), carried)

    def _width(self, extent: int) -> int:
        return min(_REGISTERS, -(-extent // self.nest.lanes)) * self.nest.lanes

    def _size(self) -> int:
        """The sum of the sizes of all elements."""
        nest, extent = self.nest, self.rows.paired.extent
        shape = self._shape(self._width(extent))

        def step(stretch: _Stretch, values: tuple[int, ...]) -> tuple[int, ...]:
            terms = (values[0], self._element(stretch))
            return (nest.map(shape, terms, lambda s: s.op("add", 0, s.op("abs", 1))),)

        return self._across(self._stretches(extent, (nest.constant(0.0, F32, shape),), step)[0])

    def _products(self, factor: int) -> int:
        """The sum of the products of all pairs, every other one negated."""
        nest, third = self.nest, self.rows.paired.third
        shape = self._shape(self._width(third))

        def step(stretch: _Stretch, values: tuple[int, ...]) -> tuple[int, ...]:
            x, y = (self._element(replace(stretch, at=stretch.at + place)) for place in (0, third))
            if stretch.ends:
                beyond = self._number(stretch.at - third, stretch.width)
                x = nest.map(shape, (x, beyond), _below_zero)
            return (nest.map(shape, (values[0], x, y, factor), _plus_product),)

        (total,) = self._stretches(third, (nest.constant(0.0, F32, shape),), step)
        return self._across(nest.map(shape, (total, self._number(0, shape[-1])), _with_sign))

    def _across(self, total: int) -> int:
        """The sum of a tile's elements."""
        nest, last = self.nest, len(self.nest.axes) - 1
        builder = ScalarBuilder((F32, F32))
        program, kind = builder.finish(builder.op("add", 0, 1)), tile(F32, *self._shape(1))
        result = nest.builder.value(kind)
        nest.builder.add(t.Reduce((result,), (total,), (last,), program, (0.0,), f"tree({nest.lanes})"))
        return result

    def _element(self, stretch: _Stretch) -> int:
        """Elements of a stretch; zeros beyond the row."""
        nest, node, depth = self.nest, self.node, self.rows.paired.depth
        nest.offsets[depth], nest.tiles = stretch.at, {depth: stretch.width}
        nest.ragged = {depth} if stretch.ends else set()
        view = nest.view(node.reads[0], node.accesses[0], [*nest.axes[:-1], depth])
        nest.tiles, nest.ragged = {}, set()
        return nest.builder.emit(lambda r: t.Load(r, view), tile(F32, *nest.builder.types[view].static_shape))

    def _number(self, first: Extent, width: int) -> int:
        """The numbers from `first` on."""
        shape = self._shape(width)
        return self.nest.builder.emit(lambda r: t.Iota(r, len(shape) - 1, first), tile(I32, *shape))

    def _shape(self, width: int) -> tuple[int, ...]:
        return (*(1 for _ in self.nest.axes[:-1]), width)

    def _store(self, place: int, value: int) -> None:
        self.nest.builder.add(t.Store(row_view(self.nest, self.rows, place), value))


def _plus_product(s: ScalarBuilder) -> int:
    """A total and the product of two elements, scaled."""
    total, x, y, factor = range(4)
    return s.op("fma", s.op("mul", x, factor), s.op("mul", y, factor), total)


def _below_zero(s: ScalarBuilder) -> int:
    """The first where the second is a number below zero, else 0."""
    return s.op("select", s.op("lt", 1, s.const(0, I32)), 0, s.const(0.0, F32))


def _with_sign(s: ScalarBuilder) -> int:
    """The first, negated where the second is odd."""
    odd = s.op("ne", s.op("and", 1, s.const(1, I32)), s.const(0, I32))
    return s.op("select", odd, s.op("neg", 0), 0)
