"""The kernel that writes a stored border: the elements around a value that padded windows read.

Takes the stored extents, the border and an element type; gives a Tile function over the whole stored buffer.
Invariant: the inside is not touched.
"""

from __future__ import annotations

from collections.abc import Sequence

from tessera_build.ir.core.dims import Extent, symbol, symbols_of
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.rewrite import FunctionBuilder
from tessera_build.ir.core.scalar import ScalarBuilder
from tessera_build.ir.core.types import DType, memref, tile
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.program.places import Border

Box = list[tuple[Extent, Extent]]


def border_kernel(
    shape: Sequence[Extent], border: Border, dtype: DType, lanes: int, strides: tuple[Extent, ...]
) -> Function:
    """`shape`: extents of the value itself, without its border; `strides` of the stored buffer, in elements."""
    builder = FunctionBuilder("border")
    stored = [e + sum(border.widths[i]) for i, e in enumerate(shape)]
    buffer = builder.arg(memref(dtype, *stored))
    for number, box in enumerate(_boxes(shape, border)):
        _fill(builder, buffer, box, border.fill, (f"_b{number}", lanes))
    dims = sorted(s for e in stored for s in symbols_of(e))
    return builder.finish((), {"dims": tuple(dict.fromkeys(dims)), "strides": (strides,)})


def _boxes(shape: Sequence[Extent], border: Border) -> list[Box]:
    """(start, extent) per axis of every slab: axes before the slab's own run inside, axes after it run over all."""
    boxes: list[Box] = []
    for axis, (low, high) in enumerate(border.widths):
        for start, width in ((0, low), (shape[axis] + low, high)):
            if not width:
                continue
            box: Box = []
            for other, extent in enumerate(shape):
                before, after = border.widths[other]
                if other == axis:
                    box.append((start, width))
                elif other < axis:
                    box.append((before, extent))
                else:
                    box.append((0, extent + before + after))
            boxes.append(box)
    return boxes


def _fill(builder: FunctionBuilder, buffer: int, box: Box, fill: float, naming: tuple[str, int]) -> None:
    prefix, lanes = naming
    offsets: list[Extent] = []

    def nest(axis: int) -> None:
        start, extent = box[axis]
        index = f"{prefix}_{axis}"
        last = axis == len(box) - 1
        step = min(extent, 4 * lanes) if last and isinstance(extent, int) else (lanes if last else 1)
        with builder.region() as region:
            offsets.append(start + symbol(index))
            if last:
                _store(builder, buffer, offsets, step, fill)
            else:
                nest(axis + 1)
            offsets.pop()
            region.yields()
        builder.add(t.For((), index, extent, step, (), region.region))

    nest(0)


def _store(builder: FunctionBuilder, buffer: int, offsets: Sequence[Extent], size: int, fill: float) -> None:
    dtype = builder.types[buffer].dtype
    scalars = ScalarBuilder(())
    program = scalars.finish(scalars.const(fill, dtype))
    value = builder.emit(lambda r: t.Map(r, (), program), tile(dtype, size))
    axis = t.ViewAxis(len(offsets) - 1, 1, checked=True)
    view = builder.emit(lambda r: t.View(r, buffer, tuple(offsets), (axis,)), memref(dtype, size))
    builder.add(t.Store(view, value))
