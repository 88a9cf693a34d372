"""Operators that read regions of images: RoiAlign, MaxRoiPool and onnxruntime's CropAndResize.

Takes images with their channels on axis 1 and boxes that are data; gives core ops. Invariant: what a box becomes is
computed in the order and the precision of onnxruntime, so that both choose the same pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed
from tessera_build.frontends.onnx.sampling import Beyond, Tap, linear_taps, rows_of, sample
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import F32, F64, I64


def _roi_align(c: Context, n: Call) -> Tensor:
    """Every bin is the average or the maximum of a grid of samples, which may be finer in larger regions."""
    x, regions, batch = n.input(0), n.input(1), n.input(2)
    bins = (n.integer("output_height", 1), n.integer("output_width", 1))
    ratio, mode = n.integer("sampling_ratio", 0), n.text("mode", "avg")
    aligned = n.opset >= 16 and n.text("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    if mode not in ("avg", "max") or x.rank != 4 or regions.rank != 2 or min(bins) < 1:
        raise ill_formed("RoiAlign's operands do not fit", found=f"{mode} of {x.type} in {regions.type}")
    kind = F64 if x.dtype == F64 else F32
    number = c.unify(regions.shape[0], batch.shape[0], "RoiAlign's regions and batch indices differ in number")
    boxes = c.op("mul", c.cast(regions, kind), c.scalar(n.number("spatial_scale", 1.0), kind))
    if aligned:
        boxes = c.op("sub", boxes, c.scalar(0.5, kind))
    start, stop = _corner(c, boxes, (1, 0)), _corner(c, boxes, (3, 2))
    length = c.op("sub", stop, start)
    if not aligned:
        length = c.op("max", length, c.scalar(1.0, kind))
    size = c.op("div", length, c.op("concat", *(c.reshape(c.scalar(float(b), kind), (1,)) for b in bins), axis=0))
    if ratio > 0:
        samples = c.broadcast_to(c.scalar(ratio, I64), (number, 2))
    else:
        samples = c.cast(c.op("max", c.op("ceil", size), c.scalar(0.0, kind)), I64)
    images = c.reshape(c.cast(batch, I64), (number,))
    last = c.cast(c.transpose(x, (0, 2, 3, 1)), kind)
    # onnxruntime's maximum is over the weighted pixels of all samples, and so is that of ONNX's reference.
    found = c.op("sample_regions", last, images, start, size, samples, kind=mode, bins=bins)
    return c.cast(c.transpose(found, (0, 3, 1, 2)), x.dtype)


def _corner(c: Context, boxes: Tensor, columns: tuple[int, int]) -> Tensor:
    """The vertical and the horizontal coordinate of a corner [R, 2]."""
    return c.op("concat", *(_column(c, boxes, at) for at in columns), axis=1)


def _column(c: Context, boxes: Tensor, index: int) -> Tensor:
    return c.slice(boxes, (0, index), (boxes.shape[0], index + 1))


def _max_roi_pool(c: Context, n: Call) -> Tensor:
    """Regions of whole pixels, divided into bins that may share their border pixels."""
    x, regions = n.input(0), n.input(1)
    bins, scale = n.integers("pooled_shape"), n.number("spatial_scale", 1.0)
    if x.rank != 4 or regions.rank != 2 or len(bins) != 2 or min(bins) < 1 or x.dtype != F32:
        raise ill_formed("MaxRoiPool's operands do not fit", found=f"{x.type} in {regions.type}")
    c.unify(regions.shape[1], 5, "MaxRoiPool's regions are an image and four coordinates")
    images = c.reshape(c.cast(_column(c, regions, 0), I64), (regions.shape[0],))
    spans = [_bins_of(c, (regions, 2 - axis), scale, bins[axis], x.shape[2 + axis]) for axis in (0, 1)]
    found = c.op("max_regions", c.transpose(x, (0, 2, 3, 1)), images, *spans)
    return c.transpose(found, (0, 3, 1, 2))


def _bins_of(c: Context, boxes: tuple[Tensor, int], scale: float, parts: int, extent: Extent) -> Tensor:
    """Each bin's first pixel and the one behind its last [R, parts, 2]; `boxes`: regions, and their first column."""
    regions, column = boxes
    ends = (c.op("mul", _column(c, regions, at), c.scalar(scale, F32)) for at in (column, column + 2))
    start, stop = (c.cast(_away_from_zero(c, end), I64) for end in ends)
    length = c.op("max", c.op("add", c.op("sub", stop, start), c.scalar(1, I64)), c.scalar(1, I64))
    # In f64, for then the result is the one of f32 even where a product with 1 / parts takes the quotient's place.
    size = c.cast(c.op("div", c.cast(length, F64), c.scalar(float(parts), F64)), F32)
    part = c.cast(c.op("iota", shape=(1, parts), axis=1, dtype=I64), F32)
    first = c.op("floor", c.op("mul", part, size))
    behind = c.op("ceil", c.op("mul", c.op("add", part, c.scalar(1.0, F32)), size))
    low, high = c.scalar(0, I64), c.number(extent, I64)
    inside = [c.op("min", c.op("max", c.op("add", c.cast(e, I64), start), low), high) for e in (first, behind)]
    return c.op("concat", *(c.reshape(e, (*e.shape, 1)) for e in inside), axis=2)


def _away_from_zero(c: Context, x: Tensor) -> Tensor:
    """The nearest whole number, halves away from zero."""
    size = c.op("abs", x)
    low = c.op("floor", size)
    half = c.op("ge", c.op("sub", size, low), c.scalar(0.5, x.dtype))
    whole = c.op("select", half, c.op("add", low, c.scalar(1.0, x.dtype)), low)
    return c.op("select", c.op("lt", x, c.scalar(0.0, x.dtype)), c.op("neg", whole), whole)


def _crop_and_resize(c: Context, n: Call) -> Tensor:
    """Boxes in parts of the image, between the centres of its corner pixels; what lies outside gets a fixed value."""
    x, boxes, batch = n.input(0), n.input(1), n.input(2)
    mode, outside = n.text("mode", "bilinear"), n.number("extrapolation_value", 0.0)
    if mode not in ("bilinear", "nearest") or x.rank != 4 or boxes.rank != 2 or not x.dtype.is_float:
        raise ill_formed("CropAndResize's operands do not fit", found=f"{mode} of {x.type} in {boxes.type}")
    sizes = c.extents_of(n.input(3))
    if len(sizes) != 2:
        raise ill_formed("CropAndResize has a height and a width", found=str(len(sizes)))
    number = c.unify(boxes.shape[0], batch.shape[0], "CropAndResize's boxes and batch indices differ in number")
    axes: list[tuple[Extent, Sequence[Tap]]] = []
    beyond: list[Tensor] = []
    for axis, (size, extent) in enumerate(zip(sizes, x.shape[2:], strict=True)):
        place = _cropped(c, (c.cast(boxes, F32), axis), size, extent)
        place = c.reshape(place, (number, size, 1) if axis == 0 else (number, 1, size))
        last = c.number(extent - 1, F32)
        beyond.append(c.op("or", c.op("lt", place, c.scalar(0.0, F32)), c.op("gt", place, last)))
        near = place if mode == "bilinear" else _away_from_zero(c, place)
        axes.append((extent, linear_taps(c, near, extent, Beyond("border"))[: 2 if mode == "bilinear" else 1]))
    first = c.reshape(c.cast(batch, I64), (number, 1, 1))
    found = sample(c, rows_of(c, x), first, axes)
    away = c.op("or", *beyond)
    found = c.op("select", c.reshape(away, (*away.shape, 1)), c.scalar(outside, x.dtype), found)
    return c.transpose(found, (0, 3, 1, 2))


def _cropped(c: Context, boxes: tuple[Tensor, int], size: Extent, extent: Extent) -> Tensor:
    """Places [R, size]; one place alone lies in the middle. `boxes`: boxes, and which column begins them."""
    first, last = (_column(c, boxes[0], at) for at in (boxes[1], boxes[1] + 2))
    width = c.number(extent - 1, F32)
    middle = c.op("mul", c.op("mul", c.scalar(0.5, F32), c.op("add", first, last)), width)
    if size == 1:
        return middle
    gaps = c.op("max", c.number(size - 1, F32), c.scalar(1.0, F32))
    step = c.op("div", c.op("mul", c.op("sub", last, first), width), gaps)
    steps = c.cast(c.op("iota", shape=(1, size), axis=1, dtype=I64), F32)
    places = c.op("add", c.op("mul", first, width), c.op("mul", steps, step))
    if isinstance(size, int):
        return places
    return c.op("select", c.op("eq", c.number(size, I64), c.scalar(1, I64)), middle, places)


REGION_OPERATORS: Mapping[str, Translator] = {"RoiAlign": _roi_align, "MaxRoiPool": _max_roi_pool}
CONTRIB_REGION_OPERATORS: Mapping[str, Translator] = {"CropAndResize": _crop_and_resize}
