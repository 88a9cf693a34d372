"""Ops that are kernels of their own, written out as other ops: regions of images, and probabilities of pairs.

Takes a builder, operands and attributes; gives a value. Whoever cannot take such an op as it is, as derivatives and
files of other tools cannot, takes this instead. Invariant: what is written means what the op means, but for the order
of sums; regions are taken one by one in a loop, so that nothing has the size of all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.types import BOOL, F32, F64, I64
from tessera_build.ir.graph.autodiff.emit import Emit
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.ops.op import Attributes, ints_of
from tessera_build.ir.graph.ops.selection import PRECISION, TURNS
from tessera_build.ir.graph.ops.shapes import count
from tessera_build.ir.graph.ops.sizes import UNBOUNDED

Write = Callable[[GraphBuilder, Sequence[int], Attributes], int]


def _for_each(to: GraphBuilder, trips: Extent, body: Callable[[str], int]) -> int:
    """The body's values for each index, stacked."""
    index = to.fresh_index("region")
    with to.region((), {index: (0, trips - 1 if isinstance(trips, int) else None)}) as block:
        block.yields(body(index))
    (found,) = to.node("loop", (), {"index": index, "trips": trips, "scans": 1}, (block.region,))
    return found


def _at(e: Emit, whole: int, index: str) -> int:
    """whole[index], with the first axis kept."""
    shape, place = e.shape(whole), symbol(index)
    rest = (0,) * (len(shape) - 1)
    return e.slice(whole, (place, *rest), (place + 1, *shape[1:]))


def _places(e: Emit, extent: Extent) -> int:
    return e.op("iota", shape=(extent,), axis=0, dtype=I64)


def _max_regions(to: GraphBuilder, inputs: Sequence[int], _: Attributes) -> int:
    """Along one axis after the other, the largest of the pixels that lie inside each bin."""
    e, (x, images, rows, columns) = Emit(to), inputs
    lowest = e.scalar(float(np.finfo(np.float32).min), x)
    clean = e.op("max", e.op("select", e.op("isnan", x), lowest, x), lowest)  # what is none wins no comparison

    def one(index: str) -> int:
        image = e.op("gather", clean, _at(e, images, index), axis=0)
        _, height, width, channels = e.shape(image)
        inside = [_inside(e, _at(e, ends, index), extent) for ends, extent in ((rows, height), (columns, width))]
        (down, across), (high, wide) = inside, [e.shape(mask)[0] for mask in inside]
        mask = e.reshape(across, (1, wide, width, 1))
        kept = e.op("select", mask, e.reshape(image, (height, 1, width, channels)), lowest)
        lines = e.op("reduce", kept, kind="max", axes=(2,), keepdims=False)
        kept = e.op(
            "select", e.reshape(down, (high, height, 1, 1)), e.reshape(lines, (1, height, wide, channels)), lowest
        )
        found = e.op("reduce", kept, kind="max", axes=(1,), keepdims=False)
        some = [e.op("reduce", e.op("cast", m, dtype=I64), kind="max", axes=(1,), keepdims=False) for m in inside]
        both = e.op("mul", e.reshape(some[0], (high, 1, 1)), e.reshape(some[1], (1, wide, 1)))
        return e.op("select", e.op("cast", both, dtype=BOOL), found, e.scalar(0.0, found))

    return _for_each(to, e.shape(images)[0], one)


def _inside(e: Emit, ends: int, extent: Extent) -> int:
    """Which places of an axis lie in each bin [B, extent], from its ends [1, B, 2]."""
    bins = e.shape(ends)[1]
    first, behind = (e.reshape(e.slice(ends, (0, 0, i), (1, bins, i + 1)), (bins, 1)) for i in (0, 1))
    place = e.reshape(_places(e, extent), (1, extent))
    return e.op("and", e.op("ge", place, first), e.op("lt", place, behind))


@dataclass(frozen=True, slots=True)
class _Taps:
    """Samples along one axis: their lower pixels [R, B, S] and how far above them they lie, and which there are."""

    low: int
    over: int
    inside: int  # in the image; the others are zeros
    there: int  # one of the samples that are asked for
    extent: Extent


def _taps(e: Emit, places: tuple[int, int, int], axis: int, bins: int, extent: Extent) -> _Taps:
    starts, _, counts = places
    number = e.shape(starts)[0]
    start, size, count = (e.reshape(e.slice(v, (0, axis), (number, axis + 1)), (number, 1, 1)) for v in places)
    most = _most(e, counts, axis)
    kind = e.type(starts).dtype
    part = e.op("cast", e.reshape(_places(e, bins), (1, bins, 1)), dtype=kind)
    step = e.reshape(_places(e, most), (1, 1, most))
    begin = e.op("add", start, e.op("mul", part, size))
    turn = e.op("add", e.op("cast", step, dtype=kind), e.scalar(0.5, starts))
    samples = e.op("max", e.op("cast", count, dtype=kind), e.scalar(1.0, starts))
    place = e.op("add", begin, e.op("div", e.op("mul", turn, size), samples))
    last, zero = e.extent(extent - 1, starts), e.scalar(0.0, starts)
    near = e.op("min", e.op("max", place, zero), last)
    low = e.op("floor", near)
    away = e.op("or", e.op("lt", place, e.scalar(-1.0, starts)), e.op("gt", place, e.extent(extent, starts)))
    there = e.broadcast(e.op("lt", step, count), (number, bins, most))
    return _Taps(e.op("cast", low, dtype=I64), e.op("sub", near, low), e.op("not", away), there, extent)


def _most(e: Emit, counts: int, axis: int) -> Extent:
    """The largest number of samples along an axis: known, or a size that data decide."""
    array, (number, _), to = e.to.array(counts), e.shape(counts), e.to
    if array is not None:
        return int(array[:, axis].max(initial=1))
    assert isinstance(to, GraphBuilder)
    column = e.slice(counts, (0, axis), (number, axis + 1))
    largest = e.op("reduce", column, kind="max", axes=(0, 1), keepdims=False)
    largest = e.op("max", largest, e.op("dimension", value=1, dtype=I64))  # of no regions, too
    name = to.fresh_index("samples")
    to.node("sizes", (e.reshape(largest, (1,)),), {"names": (name,), "uppers": (UNBOUNDED,)})
    return symbol(name)


def _weights(e: Emit, taps: _Taps) -> int:
    """How much each pixel of an axis counts in each bin [R, B, extent]: its shares in the samples, added up."""
    number, bins, most = e.shape(taps.low)
    place = e.reshape(_places(e, taps.extent), (1, 1, 1, taps.extent))
    total: int | None = None
    for at, share in _pairs(e, taps):
        here = e.op("eq", e.reshape(at, (number, bins, most, 1)), place)
        part = e.where(here, e.reshape(share, (number, bins, most, 1)))
        total = part if total is None else e.op("add", total, part)
    assert total is not None
    return e.sum(total, (2,))


def _pairs(e: Emit, taps: _Taps) -> list[tuple[int, int]]:
    """The two pixels of every sample and their shares; zero where a sample lies outside or is not asked for."""
    one = e.scalar(1.0, taps.over)
    counted = e.op("and", taps.inside, taps.there)
    behind = e.op(
        "min", e.op("add", taps.low, e.scalar(1, taps.low)), e.op("dimension", value=taps.extent - 1, dtype=I64)
    )
    shares = [e.where(counted, e.op("sub", one, taps.over)), e.where(counted, taps.over)]
    return [(taps.low, shares[0]), (behind, shares[1])]


def _averages(to: GraphBuilder, inputs: Sequence[int], taps: Sequence[_Taps]) -> int:
    """Two products for each region, with what its pixels count along each axis."""
    e, (x, images, starts, _, counts) = Emit(to), inputs
    matrices = [_weights(e, t) for t in taps]
    _, height, width, channels = e.shape(x)
    (number, high, _), wide = e.shape(matrices[0]), e.shape(matrices[1])[1]

    def one(index: str) -> int:
        image = e.reshape(e.op("gather", x, _at(e, images, index), axis=0), (height, _times(width, channels)))
        down, across = (e.reshape(_at(e, m, index), e.shape(m)[1:]) for m in matrices)
        rows = e.reshape(e.op("matmul", down, image), (high, width, channels))
        return e.op("matmul", e.reshape(across, (1, wide, width)), rows)

    total = _for_each(to, number, one)
    samples = e.op("cast", e.op("reduce", counts, kind="prod", axes=(1,), keepdims=False), dtype=e.type(starts).dtype)
    return e.op("div", total, e.reshape(e.op("max", samples, e.scalar(1.0, samples)), (number, 1, 1, 1)))


def _times(left: Extent, right: Extent) -> Extent:
    return count((left, right))


def _maxima(to: GraphBuilder, inputs: Sequence[int], taps: Sequence[_Taps]) -> int:
    """The largest of all pixels of all samples, each times its own share."""
    e, (x, images) = Emit(to), inputs[:2]
    lines = [_lines(e, t) for t in taps]
    number, _, _, channels = (e.shape(images)[0], *e.shape(x)[1:])

    def one(index: str) -> int:
        image = e.op("gather", x, _at(e, images, index), axis=0)
        for axis, (at, _, _) in enumerate(lines, 1):
            image = e.op("gather", image, e.reshape(_at(e, at, index), (count(e.shape(at)[1:]),)), axis=axis)
        (high, tall), (wide, long) = (e.shape(at)[1:] for at, _, _ in lines)
        whole = e.reshape(image, (high, tall, wide, long, channels))
        down, across = (e.reshape(_at(e, share, index), e.shape(share)[1:]) for _, share, _ in lines)
        shares = e.op("mul", e.reshape(down, (high, tall, 1, 1, 1)), e.reshape(across, (wide, long, 1)))
        there = [e.reshape(_at(e, mask, index), e.shape(mask)[1:]) for _, _, mask in lines]
        asked = e.op("and", e.reshape(there[0], (high, tall, 1, 1, 1)), e.reshape(there[1], (wide, long, 1)))
        parts = e.op("select", asked, e.op("mul", whole, shares), e.scalar(-np.inf, x))
        found = e.op("reduce", parts, kind="max", axes=(1, 3), keepdims=False)
        return e.op("select", e.op("eq", found, e.scalar(-np.inf, x)), e.scalar(0.0, x), found)

    return _for_each(to, number, one)


def _lines(e: Emit, taps: _Taps) -> tuple[int, int, int]:
    """The pixels that a bin reads along an axis [R, B, 2 S], their shares, and which of them are asked for."""
    at, shares = zip(*_pairs(e, taps), strict=True)
    joined = [e.op("concat", *values, axis=2) for values in (at, shares, (taps.there, taps.there))]
    return joined[0], joined[1], joined[2]


def _sample_regions(to: GraphBuilder, inputs: Sequence[int], attributes: Attributes) -> int:
    e, (x, _, *places) = Emit(to), inputs
    starts, sizes, counts = places
    rows = zip(ints_of(attributes, "bins"), e.shape(x)[1:3], strict=True)
    taps = [_taps(e, (starts, sizes, counts), axis, bins, extent) for axis, (bins, extent) in enumerate(rows)]
    return (_averages if attributes["kind"] == "avg" else _maxima)(to, inputs, taps)


def _coupled(to: GraphBuilder, inputs: Sequence[int], _: Attributes) -> int:
    """Rows that are good stay as they are while the others are improved, one class after the other."""
    e, wide = Emit(to), to.op("cast", inputs[0], dtype=F64)
    number, classes = e.shape(wide)[:2]
    assert isinstance(classes, int)
    own = to.constant(np.eye(classes, dtype=np.bool_))
    products = e.op("neg", e.op("mul", e.transpose(wide, (0, 2, 1)), wide))
    squares = e.where(e.op("not", own), e.op("mul", wide, wide))
    q = e.op("select", own, e.reshape(e.sum(squares, (1,)), (number, 1, classes)), products)
    start = e.full(1.0 / classes, e.type(e.sum(wide, (1,))))
    index = to.fresh_index("turn")
    going = to.constant(np.asarray(True))
    with to.region([e.type(start)], {index: (0, TURNS - 1)}) as block:
        block.yields(*_improved(to, q, block.args[0]))
    how = {"index": index, "trips": TURNS, "conditional": True}
    return to.op("cast", to.node("loop", (going, start), how, (block.region,))[0], dtype=F32)


def _improved(to: GraphBuilder, q: int, p: int) -> tuple[int, int]:
    """Whether a row was not good yet, and all rows after a turn."""
    e, (number, classes) = Emit(to), to.type(p).shape
    assert isinstance(classes, int)
    products = e.sum(e.op("mul", q, e.reshape(p, (number, 1, classes))), (2,))
    expected = e.sum(e.op("mul", p, products), (1,), keepdims=True)
    off = e.op("abs", e.op("sub", products, expected))
    worst = e.op("reduce", off, kind="max", axes=(1,), keepdims=True)
    bad = e.op("ge", worst, e.scalar(PRECISION / classes, worst))
    index = to.fresh_index("class")
    values = (p, products, expected)
    with to.region([e.type(v) for v in values], {index: (0, classes - 1)}) as block:
        block.yields(*_stepped(to, q, block.args, index))
    found = to.node("loop", values, {"index": index, "trips": classes}, (block.region,))[0]
    some = e.op("reduce", e.op("cast", bad, dtype=I64), kind="max", axes=(0, 1), keepdims=False)
    return e.op("cast", some, dtype=BOOL), e.op("select", bad, found, p)


def _stepped(to: GraphBuilder, q: int, values: Sequence[int], index: str) -> tuple[int, int, int]:
    """One class moved to where it agrees best with the others as they are."""
    e, (p, products, expected), at = Emit(to), values, symbol(index)
    number, classes = e.shape(p)
    row = e.reshape(e.slice(q, (0, at, 0), (number, at + 1, classes)), (number, classes))
    own, product = (e.slice(v, (0, at), (number, at + 1)) for v in (row, products))
    step = e.op("div", e.op("sub", expected, product), own)
    grown = e.op("add", step, e.scalar(1.0, step))
    change = e.op("add", e.op("mul", step, own), e.op("mul", product, e.scalar(2.0, product)))
    expected = e.op("div", e.op("add", expected, e.op("mul", step, change)), e.op("mul", grown, grown))
    here = e.op("eq", _places(e, classes), e.op("dimension", value=at, dtype=I64))
    moved = e.op("select", here, e.op("add", p, step), p)
    products = e.op("add", products, e.op("mul", step, row))
    return e.op("div", moved, grown), e.op("div", products, grown), expected


COMPOSED: Mapping[str, Write] = {
    "coupled": _coupled,
    "max_regions": _max_regions,
    "sample_regions": _sample_regions,
}
