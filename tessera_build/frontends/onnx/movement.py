"""Operators that move elements: Transpose, Concat, Slice, Split, Gather, Tile, DepthToSpace, SpaceToDepth.

Takes tensors and bounds in any of ONNX's spellings; gives core ops. Invariant: bounds reach the graph normalised
(0 <= start <= stop <= extent), as extents.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.frontends.onnx.call import Call, Translator, normalise_axes
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.order import larger, sign_of, smaller
from tessera_build.frontends.onnx.shapes import reshaped
from tessera_build.ir.core.dims import Extent, floordiv
from tessera_build.ir.core.types import I64

# Exporters write the largest 32- or 64-bit integer for "to the end".
BEYOND = 2**31 - 1
# Others write a round number; the guard costs nothing and keeps a minimum out of every later extent.
SURELY_BEYOND = 10**9


def _transpose(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    return c.transpose(x, n.integers("perm", tuple(range(x.rank))[::-1]))


def _concat(c: Context, n: Call) -> Tensor:
    operands = n.all_inputs()
    rank = operands[0].rank
    if any(t.rank != rank for t in operands):
        raise ill_formed("Concat joins tensors of one rank", found=", ".join(str(t.type) for t in operands))
    axis = n.axis(rank, 1)
    shape = list(operands[0].shape)
    for operand in operands[1:]:
        for i in range(rank):
            if i != axis:
                shape[i] = c.unify(shape[i], operand.shape[i], f"Concat's operands differ at axis {i}")
    fitted = [c.retyped(t, [t.shape[i] if i == axis else e for i, e in enumerate(shape)]) for t in operands]
    return fitted[0] if len(fitted) == 1 else c.op("concat", *fitted, axis=axis)


def _bound(c: Context, stated: Extent, extent: Extent) -> Extent:
    """A start or stop of a positive step: negative ones count from the end, then 0 <= bound <= extent."""
    if isinstance(stated, int) and stated >= BEYOND:
        return extent
    if isinstance(stated, int) and stated < -BEYOND:
        return 0
    if isinstance(stated, int) and stated >= SURELY_BEYOND:
        c.require(stated, ">=", extent, f"a slice ends at {stated}, which stands for the end")
        return extent
    sign = sign_of(stated, c.ranges)
    if sign is None:
        raise unsupported("a slice bound may be positive or negative, depending on a dim", found=str(stated))
    from_front = stated if sign == 1 else extent + stated
    return smaller(larger(from_front, 0, c.ranges), extent, c.ranges)


def _slice(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    starts, ends, axes, steps = _slice_operands(c, n, x.rank)
    for axis, start, end, step in sorted(zip(axes, starts, ends, steps, strict=True), key=lambda row: row[0]):
        x = _sliced(c, x, axis, (start, end, step))
    return x


def _slice_operands(
    c: Context, n: Call, rank: int
) -> tuple[tuple[Extent, ...], tuple[Extent, ...], tuple[int, ...], tuple[int, ...]]:
    if n.opset < 10:
        starts, ends = n.integers("starts"), n.integers("ends")
        axes, steps = n.integers("axes", tuple(range(len(starts)))), (1,) * len(starts)
    else:
        starts, ends = c.known_extents(n.input(1), "the starts"), c.known_extents(n.input(2), "the ends")
        axes_input, steps_input = n.optional(3), n.optional(4)
        axes = tuple(range(len(starts))) if axes_input is None else c.known_ints(axes_input, "the axes")
        steps = (1,) * len(starts) if steps_input is None else c.known_ints(steps_input, "the steps")
    return starts, ends, normalise_axes(axes, rank), steps


def _sliced(c: Context, x: Tensor, axis: int, bounds: tuple[Extent, Extent, int]) -> Tensor:
    start, end, step = bounds
    extent = x.shape[axis]
    if step == 0:
        raise ill_formed("Slice's step is 0")
    if step < 0:
        return _reversed(c, x, axis, bounds)
    first = _bound(c, start, extent)
    last = larger(_bound(c, end, extent), first, c.ranges)
    starts = [first if i == axis else 0 for i in range(x.rank)]
    stops = [last if i == axis else e for i, e in enumerate(x.shape)]
    return c.slice(x, starts, stops, [step if i == axis else 1 for i in range(x.rank)])


def _reversed(c: Context, x: Tensor, axis: int, bounds: tuple[Extent, Extent, int]) -> Tensor:
    """A negative step: gather at start, start + step, ... down to the end, exclusive."""
    start, end, step = bounds
    extent = x.shape[axis]
    first = extent - 1 if isinstance(start, int) and start >= BEYOND else _from_front(c, start, extent)
    first = larger(smaller(first, extent - 1, c.ranges), 0, c.ranges)
    # Both ends of the integers mean "as far as possible" to onnxruntime.
    last = -1 if isinstance(end, int) and abs(end) >= BEYOND else larger(_from_front(c, end, extent), -1, c.ranges)
    total = larger(floordiv(first - last + (-step - 1), -step), 0, c.ranges)
    steps = c.op("iota", shape=(total,), axis=0, dtype=I64)
    offsets = c.op("mul", steps, c.scalar(step, I64))
    return c.op("gather", x, c.op("add", offsets, c.number(first, I64)), axis=axis)


def _from_front(c: Context, stated: Extent, extent: Extent) -> Extent:
    sign = sign_of(stated, c.ranges)
    if sign is None:
        raise unsupported("a slice bound may be positive or negative, depending on a dim", found=str(stated))
    return stated if sign == 1 else extent + stated


def _split(c: Context, n: Call) -> tuple[Tensor, ...]:
    x = n.input(0)
    axis = n.axis(x.rank, 0)
    results: list[Tensor] = []
    first: Extent = 0
    for size in _split_sizes(c, n, x.shape[axis]):
        starts = [first if i == axis else 0 for i in range(x.rank)]
        stops = [first + size if i == axis else e for i, e in enumerate(x.shape)]
        results.append(c.slice(x, starts, stops))
        first = first + size
    c.unify(first, x.shape[axis], "Split's sizes do not add up to the extent")
    return tuple(results)


def _split_sizes(c: Context, n: Call, extent: Extent) -> tuple[Extent, ...]:
    stated = n.optional(1)
    if stated is not None:
        return c.known_extents(stated, "the sizes of Split")
    if n.has("split"):
        return n.integers("split")
    parts = n.integer("num_outputs", len(n.outputs))
    # Equal parts, the last one smaller when the division leaves a rest, which is allowed since opset 18.
    size = floordiv(extent + (parts - 1), parts)
    last = extent - size * (parts - 1)
    if n.opset < 18:
        c.require(last, "==", size, f"Split into {parts} parts leaves a rest")
    else:
        c.require(last, ">=", 0, f"Split into {parts} parts leaves nothing for the last")
    return (*(size,) * (parts - 1), last)


def _gather(c: Context, n: Call) -> Tensor:
    x, indices = n.input(0), n.input(1)
    return c.op("gather", x, indices, axis=n.axis(x.rank, 0))


def _tile(c: Context, n: Call) -> Tensor:
    """[a, b] becomes [1, a, 1, b], is repeated to [r, a, s, b] and read as [r * a, s * b]."""
    x = n.input(0)
    repeats = c.known_extents(n.input(1), "the repeats")
    if len(repeats) != x.rank:
        raise ill_formed("Tile's repeats do not fit its operand", expected=f"{x.rank} values", found=str(len(repeats)))
    if all(r == 1 for r in repeats):
        return x
    between = [e for extent in x.shape for e in (1, extent)]
    wide = [e for r, extent in zip(repeats, x.shape, strict=True) for e in (r, extent)]
    repeated = c.broadcast_to(c.reshape(x, between), wide)
    return c.reshape(repeated, [r * e for r, e in zip(repeats, x.shape, strict=True)])


def _block(n: Call, x: Tensor) -> int:
    if x.rank != 4:
        raise ill_formed(f"{n.op} takes rank 4", found=str(x.type))
    return n.integer("blocksize")


def _depth_to_space(c: Context, n: Call) -> Tensor:
    x, order = n.input(0), n.text("mode", "DCR")
    block = _block(n, x)
    if order not in ("DCR", "CRD"):
        raise ill_formed("DepthToSpace's mode is unknown", expected="DCR or CRD", found=order)
    batch, channels, height, width = x.shape
    if not isinstance(channels, int):
        left = floordiv(channels, block * block)
        apart = (block, block, left) if order == "DCR" else (left, block, block)
        split = reshaped(c, x, (batch, *apart, height, width))
        moved = c.transpose(split, (0, 3, 4, 1, 5, 2) if order == "DCR" else (0, 1, 4, 2, 5, 3))
        return c.reshape(moved, (batch, left, height * block, width * block))
    if channels % (block * block):
        raise ill_formed("DepthToSpace takes whole blocks of channels", expected=f"{block}²", found=str(x.type))
    return c.op("depth_to_space", x, blocks=(block, block), extents=(height * block, width * block), order=order)


def _space_to_depth(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    block = _block(n, x)
    batch, channels, height, width = x.shape
    rows, columns = floordiv(height, block), floordiv(width, block)
    split = reshaped(c, x, (batch, channels, rows, block, columns, block))
    order = (0, 3, 5, 1, 2, 4) if n.text("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return c.reshape(c.transpose(split, order), (batch, channels * (block * block), rows, columns))


MOVEMENT_OPERATORS: Mapping[str, Translator] = {
    "Transpose": _transpose,
    "Concat": _concat,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "Tile": _tile,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}
