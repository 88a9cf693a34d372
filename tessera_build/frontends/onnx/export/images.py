"""Ops that change the resolution of images as ONNX operators.

Takes an operand; gives one. Invariant: elements are moved by reshapes and transpositions, never by Resize, whose
rounding of positions would have to be proved for each extent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tessera_build.frontends.onnx.export.elementwise import scalar
from tessera_build.frontends.onnx.export.movement import cut, expanded, reshaped, transposed
from tessera_build.frontends.onnx.export.site import Site, WriteNode
from tessera_build.frontends.onnx.export.writer import Operand
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import int_extent
from tessera_build.ir.graph.ops.contraction import LAYOUTS
from tessera_build.ir.graph.ops.images import ORDERS
from tessera_build.ir.graph.ops.op import axis_of, extents_of, ints_of, word_of


def repeated(site: Site, x: Operand, shape: Sequence[Extent], factors: Sequence[int]) -> Operand:
    """Every element as often as its axis says: [.., n, 1, ..] expanded to [.., n, factor, ..]."""
    if all(factor == 1 for factor in factors):
        return x
    split = [(e, 1) if f > 1 else (e,) for e, f in zip(shape, factors, strict=True)]
    spread = [(e, f) if f > 1 else (e,) for e, f in zip(shape, factors, strict=True)]
    x = reshaped(site, x, [e for part in split for e in part])
    x = expanded(site, x, [e for part in spread for e in part])
    return reshaped(site, x, [e * f for e, f in zip(shape, factors, strict=True)])


def _repeat(site: Site) -> Operand:
    return repeated(site, site.inputs[0], site.types[0].shape, ints_of(site.attributes, "factors"))


def _depth_to_space(site: Site) -> Operand:
    """As the reference moves them: the block's axes behind the extents that they refine, then the cut."""
    (x,), type_ = site.inputs, site.types[0]
    blocks, rank = ints_of(site.attributes, "blocks"), type_.rank
    last = word_of(site.attributes, "layout", LAYOUTS) == "NHWC"
    shape = (type_.shape[0], type_.shape[-1], *type_.shape[1:-1]) if last else type_.shape
    x = transposed(site, x, [0, rank - 1, *range(1, rank - 1)]) if last else x
    count, left = len(blocks), shape[1] // math.prod(blocks)
    inner = word_of(site.attributes, "order", ORDERS) == "DCR"
    split = (shape[0], *blocks, left, *shape[2:]) if inner else (shape[0], left, *blocks, *shape[2:])
    channel, first = (1 + count, 1) if inner else (1, 2)
    pairs = [axis for i in range(count) for axis in (2 + count + i, first + i)]
    x = transposed(site, reshaped(site, x, split), (0, channel, *pairs))
    whole = [e * b for e, b in zip(shape[2:], blocks, strict=True)]
    x = reshaped(site, x, (shape[0], left, *whole))
    kept = extents_of(site.attributes, "extents")
    x = cut(site, x, [(2 + i, 0, e, 1) for i, e in enumerate(kept) if e != whole[i]])
    return transposed(site, x, [0, *range(2, rank), 1]) if last else x


def _resample(site: Site) -> Operand:
    """The sum over the taps of gathered elements times their weights, tap by tap."""
    (x, indices, weights), rank = site.inputs, site.types[0].rank
    axis, taps = axis_of(site.attributes, rank), int_extent(site.types[1].shape[0])
    along = [-1 if i == axis else 1 for i in range(rank)]
    total: Operand | None = None
    for tap in range(taps):
        places = site.writer.reshaped(cut(site, indices, [(0, tap, tap + 1, 1)]), -1)
        factors = site.writer.reshaped(cut(site, weights, [(0, tap, tap + 1, 1)]), *along)
        term = scalar(site.writer, "mul", [site.writer.run_on("Gather", x, places, axis=axis), factors])
        total = term if total is None else scalar(site.writer, "add", [total, term])
    assert total is not None, "a sample has a tap"
    return total


IMAGE_WRITERS: Mapping[str, WriteNode] = {
    "repeat": _repeat,
    "depth_to_space": _depth_to_space,
    "resample": _resample,
}
