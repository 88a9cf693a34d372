"""Operators that move elements: Transpose, Concat, Split, Gather, Tile, DepthToSpace, SpaceToDepth.

Takes tensors and bounds in any of ONNX's spellings; gives core ops. Invariant: bounds reach the graph normalised
(0 <= start <= stop <= extent), as extents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.content import is_symbolic
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed
from tessera_build.frontends.onnx.shapes import reshaped
from tessera_build.frontends.onnx.slicing import SLICE_OPERATORS
from tessera_build.ir.core.dims import Extent, floordiv


def _transpose(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    return c.transpose(x, n.integers("perm", tuple(range(x.rank))[::-1]))


def _concat(c: Context, n: Call) -> Tensor:
    operands = n.all_inputs()
    return joined(c, operands, n.axis(operands[0].rank, 1), n.op)


def joined(c: Context, operands: Sequence[Tensor], axis: int, op: str) -> Tensor:
    """Tensors one behind the other along an axis; their other extents agree."""
    rank = operands[0].rank
    if any(t.rank != rank for t in operands):
        raise ill_formed(f"{op} joins tensors of one rank", found=", ".join(str(t.type) for t in operands))
    shape = list(operands[0].shape)
    for operand in operands[1:]:
        for i in range(rank):
            if i != axis:
                shape[i] = c.unify(shape[i], operand.shape[i], f"{op}'s operands differ at axis {i}")
    fitted = [c.retyped(t, [t.shape[i] if i == axis else e for i, e in enumerate(shape)]) for t in operands]
    return fitted[0] if len(fitted) == 1 else c.op("concat", *fitted, axis=axis)


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
        return c.extents_of(stated, extent)
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
    axis, places = n.axis(x.rank, 0), indices.content
    # Known places say how long the axis is, where the node surely runs.
    if c.builder.depth == 0 and places is not None and not is_symbolic(places) and not isinstance(x.shape[axis], int):
        least = int(max(places.max(initial=-1) + 1, -places.min(initial=0)))
        c.require(x.shape[axis], ">=", least, f"{n.op} reads beyond its data at axis {axis}")
    return c.op("gather", x, indices, axis=axis)


def _tile(c: Context, n: Call) -> Tensor:
    """[a, b] becomes [1, a, 1, b], is repeated to [r, a, s, b] and read as [r * a, s * b]."""
    x = n.input(0)
    repeats = c.extents_of(n.input(1))
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
    block = n.integer("blocksize")
    if block < 1:
        raise ill_formed(f"{n.op} takes blocks of one element at least", found=str(block))
    return block


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
    **SLICE_OPERATORS,
    "Split": _split,
    "Gather": _gather,
    "Tile": _tile,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}
