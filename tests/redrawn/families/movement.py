"""Operators that move elements: shapes, slices, gathers, scatters, pads.

Takes a Draw; gives nodes. Invariant: indices are inside (negative ones too), and scatters that have no reduction write
each place once.
"""

from __future__ import annotations

import numpy as np

from tests.redrawn.cases import Maker
from tests.redrawn.draw import ABSENT, ANY, NUMBERS, Draw, Drawn, Operand, Type, fixed

INDEX: tuple[Type, ...] = (np.int64, np.int64, np.int32)
_ENDS = (2**31 - 1, -(2**31), 2**63 - 1, -(2**63))


def _x(draw: Draw, shape: tuple[int, ...]) -> Operand:
    return draw.data(shape, draw.dtype(ANY), special=True)


def reshape(draw: Draw) -> Drawn:
    """Reshape with -1 and 0."""
    opset, shape = draw.opset("Reshape"), draw.shape(0, 5)
    kept = draw.whole(0, len(shape))
    target = [0 if draw.maybe(0.4) else e for e in shape[:kept]]
    rest = int(np.prod(shape[kept:]))
    factors = [f for f in range(1, min(rest, 40) + 1) if rest % f == 0]
    if factors and draw.maybe(0.6):
        factor = draw.one(factors)
        target += [factor, rest // factor][:: draw.one([1, -1])]
    elif draw.maybe(0.9) or rest != 1:
        target.append(rest)
    free = [i for i, e in enumerate(target) if e > 0]
    if free and draw.maybe(0.6) and 0 not in shape:
        target[draw.one(free)] = -1
    attributes: dict[str, object] = {}
    if opset >= 14 and draw.maybe(0.15) and 0 not in target:
        attributes["allowzero"] = 1
    return Drawn("Reshape", [_x(draw, shape), fixed(target)], attributes, opset)


def transpose(draw: Draw) -> Drawn:
    """Transpose by any permutation."""
    shape = draw.shape(0, 5)
    attributes = {"perm": draw.random.sample(range(len(shape)), len(shape))} if shape and draw.maybe(0.85) else {}
    return Drawn("Transpose", [_x(draw, shape)], attributes, draw.opset("Transpose"))


def squeeze(draw: Draw) -> Drawn:
    """Squeeze of some or all axes of extent 1."""
    opset = draw.opset("Squeeze")
    shape = tuple(1 if draw.maybe(0.4) else e for e in draw.shape(0, 5))
    ones = [i - len(shape) if opset >= 11 and draw.maybe(0.3) else i for i, e in enumerate(shape) if e == 1]
    axes = draw.random.sample(ones, draw.whole(1, len(ones))) if ones and draw.maybe(0.75) else None
    if opset >= 13:
        return Drawn("Squeeze", [_x(draw, shape), ABSENT if axes is None else fixed(axes)], {}, opset)
    return Drawn("Squeeze", [_x(draw, shape)], {} if axes is None else {"axes": axes}, opset)


def unsqueeze(draw: Draw) -> Drawn:
    """Unsqueeze at axes of the result."""
    opset, shape = draw.opset("Unsqueeze"), draw.shape(0, 3)
    more = draw.whole(1, 2)
    rank = len(shape) + more
    axes = [a - rank if opset >= 11 and draw.maybe(0.4) else a for a in draw.random.sample(range(rank), more)]
    if opset >= 13:
        return Drawn("Unsqueeze", [_x(draw, shape), fixed(axes)], {}, opset)
    return Drawn("Unsqueeze", [_x(draw, shape)], {"axes": axes}, opset)


def flatten(draw: Draw) -> Drawn:
    """Flatten at any axis."""
    opset, shape = draw.opset("Flatten"), draw.shape(0, 5)
    axis = draw.whole(-len(shape) if opset >= 11 else 0, len(shape))
    return Drawn("Flatten", [_x(draw, shape)], {"axis": axis} if len(shape) == 0 or draw.maybe(0.8) else {}, opset)


def concat(draw: Draw) -> Drawn:
    """Concat of one to four."""
    shape, dtype = draw.shape(1, 5), draw.dtype(ANY)
    axis, opset = draw.axis(len(shape)), draw.opset("Concat")
    place = axis % len(shape)
    parts = [(*shape[:place], draw.extent(large=False), *shape[place + 1 :]) for _ in range(draw.whole(1, 4))]
    operands = [draw.data(part, dtype, special=True) for part in parts]
    return Drawn("Concat", operands, {"axis": axis if opset >= 11 else place}, opset)


def split(draw: Draw) -> Drawn:
    """Split, even or not."""
    opset, shape = draw.opset("Split"), draw.shape(1, 4)
    axis = draw.axis(len(shape)) if opset >= 11 else draw.whole(0, len(shape) - 1)
    extent, count = shape[axis], draw.whole(1, 4)
    cuts = sorted(draw.whole(0, extent) for _ in range(count - 1))
    sizes = [b - a for a, b in zip([0, *cuts], [*cuts, extent], strict=True)]
    attributes: dict[str, object] = {"axis": axis}
    names = [f"y{i}" for i in range(count)]
    uneven = draw.maybe() or (extent % count and opset < 18)
    if opset >= 18 and not uneven:
        attributes["num_outputs"] = count
    if uneven and opset < 13:
        attributes["split"] = sizes
    operands = [_x(draw, shape), *([fixed(sizes)] if uneven and opset >= 13 else [])]
    return Drawn("Split", operands, attributes, opset, names)


def slices(draw: Draw) -> Drawn:
    """Slice with bounds inside, outside and at the ends of the integers."""
    opset, shape = draw.opset("Slice"), draw.shape(1, 5)
    axes = draw.axes(len(shape), 1) if opset >= 10 else draw.random.sample(range(len(shape)), 1)
    index = draw.dtype(INDEX)
    usable = _ENDS[:2] if index == np.int32 else _ENDS
    starts = [draw.whole(-9, 9) if draw.maybe(0.8) else draw.one(_ENDS[:2]) for _ in axes]
    ends = [draw.whole(-9, 9) if draw.maybe(0.6) else draw.one(usable) for _ in axes]
    if opset < 10:
        return Drawn("Slice", [_x(draw, shape)], {"starts": starts, "ends": ends, "axes": axes}, opset)
    operands = [_x(draw, shape), fixed(starts, index), fixed(ends, index), fixed(axes, index)]
    if draw.maybe(0.6):
        operands.append(fixed([draw.one([1, 1, 2, 3, 7, -1, -2, -5]) for _ in axes], index))
    elif axes == list(range(len(axes))):
        operands.pop()
    return Drawn("Slice", operands, {}, opset)


def _indices(draw: Draw, extent: int, shape: tuple[int, ...], negative: bool = True) -> Operand:
    return Operand(draw.between(-extent if negative else 0, extent, shape, np.int64).astype(draw.dtype(INDEX)), 0.3)


def gather(draw: Draw) -> Drawn:
    """Gather with indices of any rank."""
    opset, shape = draw.opset("Gather"), tuple(max(e, 1) for e in draw.shape(1, 4))
    axis = draw.axis(len(shape))
    indices = _indices(draw, shape[axis], draw.shape(0, 2), opset >= 11)
    return Drawn("Gather", [_x(draw, shape), indices], {"axis": axis} if draw.maybe(0.8) or axis else {}, opset)


def gather_elements(draw: Draw) -> Drawn:
    """GatherElements with at most the data's extents."""
    shape = tuple(max(e, 1) for e in draw.shape(1, 4))
    axis = draw.axis(len(shape))
    places = tuple(draw.extent(1, large=False) if i == axis % len(shape) else e for i, e in enumerate(shape))
    operands = [_x(draw, shape), _indices(draw, shape[axis], places)]
    return Drawn("GatherElements", operands, {"axis": axis}, draw.opset("GatherElements", 11))


def gather_nd(draw: Draw) -> Drawn:
    """GatherND with batch axes."""
    opset, shape = draw.opset("GatherND", 11), tuple(max(e, 1) for e in draw.shape(1, 4))
    batch = draw.whole(0, len(shape) - 1) if opset >= 12 else 0
    depth = draw.whole(1, len(shape) - batch)
    lead = (*shape[:batch], *draw.shape(0, 1))
    if not lead:
        lead = (2,)
    columns = [draw.between(-e, e, lead, np.int64) for e in shape[batch : batch + depth]]
    indices = Operand(np.stack(columns, -1), 0.3)
    return Drawn("GatherND", [_x(draw, shape), indices], {"batch_dims": batch} if batch else {}, opset)


def scatter_elements(draw: Draw) -> Drawn:
    """ScatterElements with reductions; without one each place is written once."""
    opset = draw.opset("ScatterElements", 11)
    shape = tuple(max(e, 1) for e in draw.shape(1, 3))
    axis, dtype = draw.axis(len(shape)), draw.dtype(NUMBERS)
    ways = ["none", *(["add", "mul"] if opset >= 16 else []), *(["max", "min"] if opset >= 18 else [])]
    way, extent = draw.one(ways), shape[axis]
    count = draw.whole(1, extent) if way == "none" else draw.extent(1, large=False)
    places = tuple(count if i == axis % len(shape) else e for i, e in enumerate(shape))
    if way == "none":
        order = np.argsort(draw.numbers.random(shape), axis)
        indices = np.take(order, range(count), axis)
        indices = np.where(draw.numbers.random(places) < 0.3, indices - extent, indices)
    else:
        indices = draw.between(-extent, extent, places, np.int64)
    attributes: dict[str, object] = {
        "axis": axis,
        **({"reduction": way} if opset >= 16 and (way != "none" or draw.maybe()) else {}),
    }
    operands = [draw.data(shape, dtype), Operand(indices.astype(draw.dtype(INDEX)), 0.3), draw.data(places, dtype)]
    return Drawn("ScatterElements", operands, attributes, opset)


def scatter_nd(draw: Draw) -> Drawn:
    """ScatterND with reductions; without one each place is written once."""
    opset = draw.opset("ScatterND", 11)
    shape = tuple(max(e, 1) for e in draw.shape(1, 4))
    dtype, depth = draw.dtype(NUMBERS), draw.whole(1, len(shape))
    ways = ["none", *(["add", "mul"] if opset >= 16 else []), *(["max", "min"] if opset >= 18 else [])]
    way, places = draw.one(ways), int(np.prod(shape[:depth]))
    count = draw.whole(1, min(places, 9)) if way == "none" else draw.extent(1, large=False)
    flat = draw.numbers.choice(places, count, replace=way != "none")
    indices = np.stack(np.unravel_index(flat, shape[:depth]), -1).astype(np.int64)
    if draw.maybe(0.3):
        indices = indices - np.array(shape[:depth]) * (draw.numbers.random(indices.shape) < 0.5)
    updates = draw.data((count, *shape[depth:]), dtype)
    return Drawn(
        "ScatterND",
        [draw.data(shape, dtype), Operand(indices, 0.3), updates],
        {} if way == "none" else {"reduction": way},
        opset,
    )


def tile(draw: Draw) -> Drawn:
    """Tile, zero times too."""
    shape = draw.shape(1, 4)
    return Drawn("Tile", [_x(draw, shape), fixed([draw.one([1, 1, 2, 3, 0]) for _ in shape])], {}, draw.opset("Tile"))


def expand(draw: Draw) -> Drawn:
    """Expand in both directions."""
    shape = draw.shape(0, 5)
    target = [1 if draw.maybe(0.2) else e for e in shape[draw.whole(0, len(shape)) if draw.maybe(0.2) else 0 :]]
    return Drawn("Expand", [_x(draw, draw.broadcast(shape)), fixed(target)], {}, draw.opset("Expand", 8))


def pad(draw: Draw) -> Drawn:
    """Pad of all modes, also negative."""
    opset, shape = draw.opset("Pad"), draw.shape(1, 4)
    modes = ["constant", "constant", "edge", "reflect", *(["wrap"] if opset >= 19 else [])]
    mode = draw.one(modes)
    axes = draw.axes(len(shape), 1) if opset >= 18 and draw.maybe(0.4) else None
    extents = [shape[a] for a in axes] if axes else list(shape)
    most = [max(e - 1, 0) if mode != "constant" else 4 for e in extents]
    low = -1 if mode == "constant" and draw.maybe(0.3) and min(extents) > 2 else 0
    pads = [draw.whole(low, min(m, 4)) for m in (*most, *most)]
    if opset < 11:
        attributes: dict[str, object] = {"mode": mode, "pads": pads}
        if draw.maybe():
            attributes["value"] = draw.real(-1, 1)
        return Drawn("Pad", [draw.data(shape)], attributes, opset)
    dtype = draw.dtype(NUMBERS)
    operands = [draw.data(shape, dtype), fixed(pads)]
    operands.append(draw.optional(draw.weight((), dtype)) if mode == "constant" else ABSENT)
    if axes:
        operands.append(fixed(axes, draw.dtype(INDEX)))
    return Drawn("Pad", operands, {"mode": mode} if mode != "constant" or draw.maybe() else {}, opset)


def depth_to_space(draw: Draw) -> Drawn:
    """DepthToSpace in both orders."""
    opset, block = draw.opset("DepthToSpace"), draw.whole(1, 3)
    shape = (
        draw.extent(large=False),
        draw.whole(1, 3) * block * block,
        draw.extent(large=False),
        draw.extent(large=False),
    )
    attributes: dict[str, object] = {"blocksize": block}
    if opset >= 11 and draw.maybe(0.7):
        attributes["mode"] = draw.one(["DCR", "CRD"])
    return Drawn(
        "DepthToSpace",
        [draw.data(shape, draw.dtype((np.float32, np.float32, np.float64, np.uint8)))],
        attributes,
        opset,
    )


def space_to_depth(draw: Draw) -> Drawn:
    """SpaceToDepth."""
    block = draw.whole(1, 3)
    shape = (
        draw.extent(large=False),
        draw.extent(large=False),
        block * draw.extent(1, False),
        block * draw.extent(1, False),
    )
    return Drawn("SpaceToDepth", [draw.data(shape)], {"blocksize": block}, draw.opset("SpaceToDepth"))


def reverse_sequence(draw: Draw) -> Drawn:
    """ReverseSequence of batch or time first."""
    shape, batch = tuple(max(e, 1) for e in draw.shape(2, 4)), draw.whole(0, 1)
    lengths = Operand(draw.between(1, shape[1 - batch] + 1, (shape[batch],), np.int64), 0.3)
    return Drawn(
        "ReverseSequence",
        [_x(draw, shape), lengths],
        {"batch_axis": batch, "time_axis": 1 - batch},
        draw.opset("ReverseSequence", 10),
    )


def center(draw: Draw) -> Drawn:
    """CenterCropPad to larger and smaller extents."""
    shape = draw.shape(1, 4)
    axes = draw.axes(len(shape), 1) if draw.maybe(0.6) else None
    target = [draw.whole(1, 9) for _ in (axes or shape)]
    return Drawn(
        "CenterCropPad", [_x(draw, shape), fixed(target)], {"axes": axes} if axes else {}, draw.opset("CenterCropPad")
    )


def eye_like(draw: Draw) -> Drawn:
    """EyeLike with a diagonal anywhere."""
    attributes = {"k": draw.whole(-4, 4)} if draw.maybe() else {}
    return Drawn(
        "EyeLike",
        [draw.data(draw.shape(2, 2), draw.dtype((np.float32, np.int64, np.float64)))],
        attributes,
        draw.opset("EyeLike", 9),
    )


def shape_of(draw: Draw) -> Drawn:
    """Shape of some axes."""
    opset, shape = draw.opset("Shape"), draw.shape(0, 5)
    attributes = {k: draw.whole(-6, 6) for k in ("start", "end") if opset >= 15 and draw.maybe()}
    return Drawn("Shape", [_x(draw, shape)], attributes, opset)


def size_of(draw: Draw) -> Drawn:
    """Size."""
    return Drawn("Size", [_x(draw, draw.shape(0, 5))], {}, draw.opset("Size"))


def ranges(draw: Draw) -> Drawn:
    """Range of either direction."""
    dtype = draw.dtype((np.int64, np.int32, np.float32, np.float64))
    step = draw.one([1, 2, 3, -1, -2]) if np.dtype(dtype).kind == "i" else draw.one([0.5, 1.0, 0.25, -0.75])
    values = (draw.whole(-9, 9), draw.whole(-9, 30), step)
    return Drawn("Range", [fixed(v, dtype, 0.75) for v in values], {}, draw.opset("Range", 11))


def trilu(draw: Draw) -> Drawn:
    """Trilu of either half, the diagonal anywhere."""
    attributes = {"upper": draw.whole(0, 1)} if draw.maybe(0.7) else {}
    k = draw.optional(fixed(draw.whole(-5, 5), chance=0.7), 0.6)
    dtype = draw.dtype((np.float32, np.float32, np.float64, np.int64, np.bool_))
    return Drawn("Trilu", [draw.data(draw.shape(2, 4), dtype), k], attributes, draw.opset("Trilu", 14))


def tensor_scatter(draw: Draw) -> Drawn:
    """TensorScatter into a cache, linear or circular."""
    batch, length, width = draw.extent(1, False), draw.whole(4, 9), draw.extent(1, False)
    count = draw.whole(1, 4)
    heads = (draw.whole(1, 3),) if draw.maybe() else ()
    mode = draw.one(["linear", "circular"])
    most = length - count if mode == "linear" else length - 1
    starts = draw.optional(Operand(draw.between(0, most + 1, (batch,), np.int64), 0.2), 0.7)
    operands = [draw.data((batch, *heads, length, width)), draw.data((batch, *heads, count, width)), starts]
    return Drawn("TensorScatter", operands, {"mode": mode}, draw.opset("TensorScatter"))


MAKERS: dict[str, Maker] = {
    "Reshape": reshape,
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Flatten": flatten,
    "Concat": concat,
    "Split": split,
    "Slice": slices,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "Tile": tile,
    "Expand": expand,
    "Pad": pad,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "ReverseSequence": reverse_sequence,
    "CenterCropPad": center,
    "EyeLike": eye_like,
    "Shape": shape_of,
    "Size": size_of,
    "Range": ranges,
    "Trilu": trilu,
    "TensorScatter": tensor_scatter,
}
