"""Operators that read images at computed places: GridSample, AffineGrid, DeformConv, ReverseSequence.

Takes tensors with their channels on axis 1; gives core ops. Invariant: places are computed in the graph, from
coordinates as they come at run time and from arithmetic over the extents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tessera_build.frontends.onnx.call import Call, Translator, normalise_axis
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.contraction import matrix_product
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.sampling import (
    Beyond,
    Tap,
    cubic_taps,
    linear_taps,
    nearest_tap,
    rows_of,
    sample,
    steps_of,
)
from tessera_build.frontends.onnx.windows import MOST_TAPS, static_extent
from tessera_build.ir.core.dims import Extent, floordiv
from tessera_build.ir.core.types import F32, I64
from tessera_build.ir.graph.ops.shapes import count

_TAPS = {"nearest": nearest_tap, "linear": linear_taps, "cubic": cubic_taps}


def _channels_first(c: Context, x: Tensor) -> Tensor:
    return c.transpose(x, (0, x.rank - 1, *range(1, x.rank - 1)))


def _grid_sample(c: Context, n: Call) -> Tensor:
    x, grid = n.input(0), n.input(1)
    mode = n.text("mode", "linear").removeprefix("bi")
    corners, padding = bool(n.integer("align_corners", 0)), n.text("padding_mode", "zeros")
    if mode not in _TAPS or padding not in ("zeros", "border", "reflection"):
        raise ill_formed("GridSample's mode is unknown", found=f"{mode} with {padding}")
    if x.rank != grid.rank or x.rank < 3:
        raise ill_formed("GridSample's grid does not fit its image", found=f"{x.type} and {grid.type}")
    c.unify(grid.shape[-1], x.rank - 2, "GridSample's grid has other coordinates than its image has axes")
    if x.rank > 4 and mode == "cubic":
        raise unsupported("GridSample with mode=cubic over volumes")
    c.unify(x.shape[0], grid.shape[0], "GridSample's grid and image differ in number")
    if not x.dtype.is_float:
        raise unsupported("GridSample of integers", found=str(x.type), hint="cast the image to float first")
    axes: list[tuple[Extent, Sequence[Tap]]] = []
    for position, extent in enumerate(x.shape[2:]):
        # The last coordinate of the grid belongs to the first spatial axis.
        place = _placed(c, _coordinate(c, grid, x.rank - 3 - position), extent, corners)
        axes.append((extent, _TAPS[mode](c, place, extent, Beyond(padding, corners))))
    found = sample(c, rows_of(c, x), steps_of(c, grid.shape[:-1], 0), axes)
    return _channels_first(c, found)


def _coordinate(c: Context, grid: Tensor, index: int) -> Tensor:
    """One coordinate of every place, as float32."""
    last = grid.rank - 1
    starts, stops = [0] * last, list(grid.shape[:-1])
    chosen = c.slice(grid, (*starts, index), (*stops, index + 1))
    return c.cast(c.reshape(chosen, grid.shape[:-1]), F32)


def _placed(c: Context, coordinate: Tensor, extent: Extent, corners: bool) -> Tensor:
    """-1 to 1 as places between the centres of the first and last elements, or between their outer edges."""
    one, two, size = c.scalar(1.0, F32), c.scalar(2.0, F32), c.number(extent, F32)
    moved = c.op("add", coordinate, one)
    if corners:
        return c.op("mul", c.op("div", moved, two), c.op("sub", size, one))
    return c.op("div", c.op("sub", c.op("mul", moved, size), one), two)


def _affine_grid(c: Context, n: Call) -> Tensor:
    theta, size = n.input(0), c.extents_of(n.input(1))
    corners, spatial = bool(n.integer("align_corners", 0)), size[2:]
    if theta.rank != 3:
        raise ill_formed("AffineGrid's theta holds one matrix an image", found=f"{theta.type} for {len(size)} axes")
    for given, wanted in zip(theta.shape[1:], (len(spatial), len(spatial) + 1), strict=True):
        c.unify(given, wanted, "AffineGrid's theta does not fit its size")
    c.unify(theta.shape[0], size[0], "AffineGrid's theta and size differ in number")
    lines: list[Tensor] = []
    for axis in reversed(range(len(spatial))):
        line = c.broadcast_to(_centres(c, spatial, axis, corners), spatial)
        lines.append(c.reshape(line, (count(spatial), 1)))
    lines.append(c.broadcast_to(c.scalar(1.0, F32), (count(spatial), 1)))
    base = c.cast(c.op("concat", *lines, axis=1), theta.dtype)
    moved = matrix_product(c, base, theta, transpose_b=True)
    return c.reshape(moved, (theta.shape[0], *spatial, len(spatial)))


def _centres(c: Context, spatial: Sequence[Extent], axis: int, corners: bool) -> Tensor:
    """From -1 to 1: the centres of elements, or as many places that begin and end there."""
    steps, size = c.cast(steps_of(c, spatial, axis), F32), c.number(spatial[axis], F32)
    one, two = c.scalar(1.0, F32), c.scalar(2.0, F32)
    if corners:
        # Counted from the end, as a single place stands at 1.
        left = c.op("sub", c.op("sub", size, one), steps)
        gaps = c.op("max", c.op("sub", size, one), one)
        return c.op("sub", one, c.op("div", c.op("mul", left, two), gaps))
    return c.op("sub", c.op("div", c.op("add", c.op("mul", steps, two), one), size), one)


def _deform_conv(c: Context, n: Call) -> Tensor:
    """Samples of every tap become the columns of one product a group."""
    groups, parts = n.integer("group", 1), n.integer("offset_group", 1)
    kernel = _kernel(n)
    x, w, offset, mask = _fitted(c, n, kernel)
    batch, channels, height, width = x.shape
    outputs, spatial, taps = w.shape[0], offset.shape[2:], kernel[0] * kernel[1]
    apart = c.reshape(offset, (batch, parts, taps, 2, *spatial))
    places = [
        c.op("add", c.reshape(_half(c, apart, i), (batch, parts, taps, *spatial)), _regular(c, n, kernel, (i, spatial)))
        for i in (0, 1)
    ]
    axes = [(e, linear_taps(c, p, e, Beyond("zeros"))) for e, p in zip((height, width), places, strict=True)]
    assert isinstance(channels, int)
    rows = rows_of(c, c.reshape(x, (batch * parts, channels // parts, height, width)))
    image = c.reshape(c.op("iota", shape=(batch * parts,), axis=0, dtype=I64), (batch, parts, 1, 1, 1))
    found = sample(c, rows, image, axes)
    if mask is not None:
        found = c.op("mul", found, c.reshape(mask, (batch, parts, taps, *spatial, 1)))
    inner = channels // groups * taps
    columns = c.reshape(c.transpose(found, (0, 1, 5, 2, 3, 4)), (batch, groups, inner, count(spatial)))
    weights = c.reshape(w, (1, groups, outputs if groups == 1 else floordiv(outputs, groups), inner))
    result = c.reshape(matrix_product(c, weights, columns), (batch, outputs, *spatial))
    bias = n.optional(3)
    if bias is None:
        return result
    if bias.rank != 1:
        raise ill_formed("DeformConv's bias is a vector", found=str(bias.type))
    c.unify(outputs, bias.shape[0], "DeformConv's bias has other channels than its weights")
    return c.op("add", result, c.reshape(c.retyped(bias, (outputs,)), (outputs, 1, 1)))


def _kernel(n: Call) -> tuple[int, int]:
    """How far the kernel reaches along both axes."""
    x, w = n.input(0), n.input(1)
    if x.rank != 4 or w.rank != 4 or n.input(2).rank != 4:
        raise unsupported("DeformConv over other than two axes", found=f"{x.type} and {w.type}")
    kernel = n.integers("kernel_shape") if n.has("kernel_shape") else w.shape[2:]
    if len(kernel) != 2 or not all(isinstance(e, int) for e in kernel):
        raise unsupported("DeformConv with a kernel of unknown extent", found=str(w.type))
    height, width = (static_extent(e) for e in kernel)
    if height * width > MOST_TAPS:
        raise unsupported(f"DeformConv with more than {MOST_TAPS} taps", found=f"{height} x {width}")
    return height, width


def _fitted(c: Context, n: Call, kernel: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Image, weights, offsets and mask, whose extents agree."""
    x, w, offset, mask = n.input(0), n.input(1), n.input(2), n.optional(4)
    groups, parts, taps = n.integer("group", 1), n.integer("offset_group", 1), kernel[0] * kernel[1]
    for own, wanted in zip(w.shape[2:], kernel, strict=True):
        c.unify(own, wanted, "kernel_shape differs from the weights")
    channels = c.unify(x.shape[1], w.shape[1] * groups, "DeformConv's weights and image differ in channels")
    outputs = w.shape[0]
    if not isinstance(channels, int) or (groups > 1 and not isinstance(outputs, int)):
        raise unsupported("DeformConv of an unknown number of channels", found=f"{x.type} and {w.type}")
    if channels % parts or channels % groups or (isinstance(outputs, int) and outputs % groups):
        raise ill_formed("DeformConv's groups do not divide its channels", found=f"{x.type} and {w.type}")
    places = (_positions(n, kernel, i, x.shape[2 + i]) for i in (0, 1))
    wanted = (x.shape[0], parts * taps * 2, *places)
    shape = tuple(
        c.unify(e, own, "DeformConv's offsets do not fit its image")
        for e, own in zip(wanted, offset.shape, strict=True)
    )
    offset = c.retyped(offset, shape)
    x, w = c.retyped(x, (shape[0], channels, *x.shape[2:])), c.retyped(w, (outputs, channels // groups, *kernel))
    if mask is not None:
        wanted = (shape[0], parts * taps, *shape[2:])
        if mask.rank != 4:
            raise ill_formed("DeformConv's mask does not fit its offsets", found=str(mask.type))
        for e, own in zip(wanted, mask.shape, strict=True):
            c.unify(e, own, "DeformConv's mask does not fit its offsets")
        mask = c.retyped(mask, wanted)
    return x, w, offset, mask


def _positions(n: Call, kernel: tuple[int, int], axis: int, extent: Extent) -> Extent:
    """How often the kernel fits along an axis."""
    stride, dilation = n.integers("strides", (1, 1))[axis], n.integers("dilations", (1, 1))[axis]
    pads = n.integers("pads", (0, 0, 0, 0))
    return floordiv(extent + (pads[axis] + pads[axis + 2] - dilation * (kernel[axis] - 1) - 1), stride) + 1


def _half(c: Context, offset: Tensor, index: int) -> Tensor:
    starts = [index if i == 3 else 0 for i in range(offset.rank)]
    return c.slice(offset, starts, [index + 1 if i == 3 else e for i, e in enumerate(offset.shape)])


def _regular(c: Context, n: Call, kernel: Sequence[int], axis: tuple[int, Sequence[Extent]]) -> Tensor:
    """Where an ordinary convolution reads along one axis, [1, 1, taps, height or 1, width or 1]."""
    position, spatial = axis
    stride, dilation = n.integers("strides", (1, 1))[position], n.integers("dilations", (1, 1))[position]
    low = n.integers("pads", (0, 0, 0, 0))[position]
    taps = kernel[0] * kernel[1]
    numbers = [t // kernel[1] if position == 0 else t % kernel[1] for t in range(taps)]
    inside = c.reshape(c.extents([k * dilation - low for k in numbers]), (1, 1, taps, 1, 1))
    steps = steps_of(c, (1, 1, 1, *spatial), 3 + position)
    return c.cast(c.op("add", c.op("mul", steps, c.scalar(stride, I64)), inside), n.input(2).dtype)


def _reverse_sequence(c: Context, n: Call) -> Tensor:
    """The first elements of each sequence in the opposite order; a length outside the tensor is an error."""
    x, lengths = n.input(0), n.input(1)
    time, batch = (normalise_axis(n.integer(name, d), x.rank) for name, d in (("time_axis", 0), ("batch_axis", 1)))
    if x.rank < 2 or {time, batch} != {0, 1} or lengths.rank != 1:
        raise ill_formed("ReverseSequence runs over the first two axes", found=f"{time} and {batch} of {x.type}")
    number = c.unify(x.shape[batch], lengths.shape[0], "ReverseSequence's lengths and batch differ in number")
    shape, extent = x.shape[:2], x.shape[time]
    length = c.reshape(c.cast(lengths, I64), (number, 1) if batch == 0 else (1, number))
    steps, one = steps_of(c, shape, time), c.scalar(1, I64)
    turned = c.op("sub", c.op("sub", length, one), steps)
    place = c.op("select", c.op("lt", steps, length), turned, steps)
    outer, inner = (place, steps_of(c, shape, 1)) if time == 0 else (steps_of(c, shape, 0), place)
    index = c.op("add", c.op("mul", outer, c.number(shape[1], I64)), inner)
    fits = c.op("and", c.op("ge", length, c.scalar(0, I64)), c.op("le", length, c.number(extent, I64)))
    # An index that is surely outside makes the run end with a status, as gather does.
    checked = c.op("select", fits, index, c.number(shape[0] * shape[1], I64))
    rows = c.reshape(x, (shape[0] * shape[1], *x.shape[2:]))
    return c.op("gather", rows, c.broadcast_to(checked, shape), axis=0)


GRID_OPERATORS: Mapping[str, Translator] = {
    "GridSample": _grid_sample,
    "AffineGrid": _affine_grid,
    "DeformConv": _deform_conv,
    "ReverseSequence": _reverse_sequence,
}
