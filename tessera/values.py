"""What a kernel's body handles: buffers, views of buffers, and tiles with Python's operators.

Takes values of a trace; gives new ones, recording a node each time. Invariant: a tile's shape is static; extents meet
Python's operators only through views (`x[row, column : column + 64]`) and through `TileBuilder.iota`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tessera.trace import Tracer
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.scalar import ScalarBuilder
from tessera_build.ir.core.types import DType, memref, tile
from tessera_build.ir.tile import nodes


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """A value of static shape. Operators work elementwise, with axes of extent 1 broadcast; scalars are constants."""

    tracer: Tracer
    value: int

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self.tracer.types[self.value].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of all axes."""
        return self.tracer.types[self.value].static_shape

    def __add__(self, other: Tile | float) -> Tile:
        return elementwise("add", self, other)

    def __radd__(self, other: float) -> Tile:
        return elementwise("add", self, other, swapped=True)

    def __sub__(self, other: Tile | float) -> Tile:
        return elementwise("sub", self, other)

    def __rsub__(self, other: float) -> Tile:
        return elementwise("sub", self, other, swapped=True)

    def __mul__(self, other: Tile | float) -> Tile:
        return elementwise("mul", self, other)

    def __rmul__(self, other: float) -> Tile:
        return elementwise("mul", self, other, swapped=True)

    def __truediv__(self, other: Tile | float) -> Tile:
        return elementwise("div", self, other)

    def __rtruediv__(self, other: float) -> Tile:
        return elementwise("div", self, other, swapped=True)

    def __lt__(self, other: Tile | float) -> Tile:
        return elementwise("lt", self, other)

    def __le__(self, other: Tile | float) -> Tile:
        return elementwise("le", self, other)

    def __gt__(self, other: Tile | float) -> Tile:
        return elementwise("gt", self, other)

    def __ge__(self, other: Tile | float) -> Tile:
        return elementwise("ge", self, other)

    def __neg__(self) -> Tile:
        builder = ScalarBuilder((self.dtype,))
        return record_map(self.tracer, (self,), builder, builder.op("neg", 0))


def elementwise(name: str, left: Tile, right: Tile | float, *, swapped: bool = False) -> Tile:
    """One operation on two tiles, or on a tile and a constant of its element type."""
    if isinstance(right, Tile):
        if left.dtype != right.dtype:
            raise left.tracer.error(f"{name} of two element types", expected=str(left.dtype), found=str(right.dtype))
        builder = ScalarBuilder((left.dtype, right.dtype))
        return record_map(left.tracer, (left, right), builder, builder.op(name, 0, 1))
    builder = ScalarBuilder((left.dtype,))
    constant = builder.const(right, left.dtype)
    result = builder.op(name, constant, 0) if swapped else builder.op(name, 0, constant)
    return record_map(left.tracer, (left,), builder, result)


def broadcast_shape(tracer: Tracer, tiles: Sequence[Tile]) -> tuple[int, ...]:
    """The common shape of tiles of one rank whose axes are equal or 1."""
    shapes = [t.shape for t in tiles]
    if len({len(s) for s in shapes}) > 1:
        raise tracer.error("tiles of different rank", expected="equal rank", found=" and ".join(map(str, shapes)))
    result = tuple(max(extents) for extents in zip(*shapes, strict=True))
    for shape in shapes:
        if any(extent not in (1, whole) for extent, whole in zip(shape, result, strict=True)):
            raise tracer.error("shapes do not broadcast", expected=str(result), found=str(shape))
    return result


def record_map(tracer: Tracer, operands: Sequence[Tile], builder: ScalarBuilder, result: int) -> Tile:
    """Record the elementwise program in `builder` that gives `result`."""
    kind = tile(builder.dtype(result), *broadcast_shape(tracer, operands))
    value = tracer.value(kind)
    tracer.append(nodes.Map(value, tuple(o.value for o in operands), builder.finish(result)))
    return Tile(tracer, value)


Index = Extent | slice | Tile | None


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A window into a buffer, of static shape. It becomes a node where it is used."""

    buffer: Buffer
    offsets: tuple[Extent, ...]
    axes: tuple[nodes.ViewAxis, ...]
    shape: tuple[int, ...]
    indices: Tile | None = None
    gather_axis: int = -1

    def permute(self, *permutation: int) -> View:
        """The same window with its axes in another order; no data moves."""
        if self.indices is not None:
            raise self.buffer.tracer.error("a view of chosen elements has no other order", expected="a window")
        return replace(
            self,
            axes=tuple(self.axes[p] for p in permutation),
            shape=tuple(self.shape[p] for p in permutation),
        )

    def record(self) -> int:
        """Record the view; gives its value."""
        tracer = self.buffer.tracer
        value = tracer.value(memref(self.buffer.dtype, *self.shape))
        if self.indices is None:
            tracer.append(nodes.View(value, self.buffer.value, self.offsets, self.axes))
        else:
            window = (self.offsets, self.axes, self.indices.value, self.gather_axis)
            tracer.append(nodes.View(value, self.buffer.value, *window, gather_checked=True))
        return value


@dataclass(frozen=True, slots=True, eq=False)
class Buffer:
    """Memory with a logical row-major shape: an argument of the kernel, or scratch from `TileBuilder.alloc`."""

    tracer: Tracer
    value: int

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self.tracer.types[self.value].dtype

    @property
    def shape(self) -> tuple[Extent, ...]:
        """Extents of all axes, symbolic ones included."""
        return self.tracer.types[self.value].shape

    def __getitem__(self, index: Index | tuple[Index, ...]) -> View:
        """A view: one index per buffer axis (an integer drops the axis, a slice of static length keeps it), None: new.

        A slice that may reach past the buffer is checked: outside, loads give the pad value and stores do nothing.
        One index may be an integer tile, beside integers: then the view has the tile's shape and shows, or stores
        into, the elements that it names, checked in the same way; later lanes win where two name one element.
        """
        entries = index if isinstance(index, tuple) else (index,)
        if sum(e is not None for e in entries) != len(self.shape):
            raise self.tracer.error(
                "wrong number of indices", expected=str(len(self.shape)), found=str(sum(e is not None for e in entries))
            )
        offsets: list[Extent] = []
        axes: list[nodes.ViewAxis] = []
        shape: list[int] = []
        chosen: Tile | None = None
        gather_axis = -1
        for entry in entries:
            if isinstance(entry, Tile):
                if sum(isinstance(e, Tile | slice) or e is None for e in entries) > 1:
                    raise self.tracer.error("an index tile stands beside integers only")
                chosen, gather_axis = entry, len(offsets)
                offsets.append(0)
                axes += [nodes.ViewAxis(-1)] * len(entry.shape)
                shape += entry.shape
            elif entry is None:
                axes.append(nodes.ViewAxis(-1))
                shape.append(1)
            elif isinstance(entry, slice):
                start, axis, count = self._sliced(len(offsets), entry)
                offsets.append(start)
                axes.append(axis)
                shape.append(count)
            else:
                offsets.append(entry)
        return View(self, tuple(offsets), tuple(axes), tuple(shape), chosen, gather_axis)

    def _sliced(self, axis: int, entry: slice) -> tuple[Extent, nodes.ViewAxis, int]:
        start: Extent = 0 if entry.start is None else entry.start
        stop: Extent = self.shape[axis] if entry.stop is None else entry.stop
        step: int = 1 if entry.step is None else entry.step
        length = stop - start
        if not isinstance(length, int) or length <= 0 or step < 1:
            raise self.tracer.error("a slice needs a static, positive length", found=f"{start} : {stop} : {step}")
        count = -(-length // step)
        checked = not self.tracer.inside(start, (count - 1) * step + 1, self.shape[axis])
        return start, nodes.ViewAxis(axis, step, checked), count
