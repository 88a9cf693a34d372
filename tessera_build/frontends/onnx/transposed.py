"""ConvTranspose without multiplying by inserted zeros: one small convolution for each phase of the stride.

Takes a tensor with its channels on axis 1 and weights [I, O/groups, *kernel]; gives core ops. Result element
stride * t + p takes only the taps k with p + low - k * dilation divisible by the stride, and those step through the
input like a convolution's. Phases are stacked as channels and moved into the image by `depth_to_space`. Invariant:
every result element sums exactly the taps that reach it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.order import sign_of
from tessera_build.frontends.onnx.windows import MOST_TAPS
from tessera_build.ir.core.dims import Extent, floordiv

# Stacking phases of few channels fills vectors of this many lanes that each phase alone would leave empty.
LANES = 16
# Each phase may become a convolution of its own; networks have up to 256, where patches of 16 x 16 become pixels.
MOST_PHASES = 1024


@dataclass(frozen=True, slots=True)
class Axis:
    """One spatial axis: `low` elements of the whole result are cut in front, and `result` are kept."""

    extent: Extent
    size: int
    stride: int
    dilation: int
    low: int
    result: Extent

    @property
    def turns(self) -> Extent:
        """How many elements each phase makes; the last may be beyond the result."""
        return floordiv(self.result + (self.stride - 1), self.stride)


@dataclass(frozen=True, slots=True)
class Taps:
    """What one phase reads along one axis: kernel positions in the order of the input, from `first` on."""

    positions: tuple[int, ...]
    first: int = 0
    step: int = 1

    @property
    def last(self) -> int:
        """Distance of the last tap's element from the phase's own."""
        return self.first + self.step * (len(self.positions) - 1)


def _conv_transpose(c: Context, n: Call) -> Tensor:
    x, w, bias = n.input(0), n.input(1), n.optional(2)
    axes = _axes(n, x, w)
    c.unify(x.shape[1], w.shape[0], "ConvTranspose's channels do not fit its weights")
    result = transposed_convolution(c, x, w, axes, n.integer("group", 1))
    return result if bias is None else c.op("add", result, c.reshape(bias, (*bias.shape, *(1,) * len(axes))))


def transposed_convolution(c: Context, x: Tensor, w: Tensor, axes: Sequence[Axis], groups: int) -> Tensor:
    """The sums of x times w [I, O/groups, *kernel], each put where a convolution would have read it."""
    kernel = _grouped(c, w, groups)
    if math.prod(a.stride for a in axes) > MOST_PHASES:
        raise unsupported(f"{math.prod(a.stride for a in axes)} phases of a transposed convolution", hint="use Resize")
    if any(a.size > MOST_TAPS for a in axes):
        raise unsupported(f"taps of a transposed convolution beyond {MOST_TAPS}", found=f"{max(a.size for a in axes)}")
    phases = list(itertools.product(*([_taps(a, p) for p in range(a.stride)] for a in axes)))
    channels = kernel.shape[0]
    assert isinstance(channels, int)
    if len(phases) > 1 and groups == 1 and _stacks(phases, channels):
        result = _stacked(c, x, kernel, (axes, phases))
    else:
        parts = [_phase(c, x, kernel, (axes, phase), groups) for phase in phases]
        result = parts[0] if len(parts) == 1 else c.op("concat", *parts, axis=1)
    if len(phases) > 1:
        blocks, extents = tuple(a.stride for a in axes), tuple(a.result for a in axes)
        result = c.op("depth_to_space", result, blocks=blocks, extents=extents)
    return result


def _axes(n: Call, x: Tensor, w: Tensor) -> list[Axis]:
    kernel = tuple(e for e in w.shape if isinstance(e, int))[2:]
    if len(kernel) != w.rank - 2:
        raise unsupported("ConvTranspose's weights have dynamic dims", found=str(w.type))
    if w.rank != x.rank or (n.has("kernel_shape") and n.integers("kernel_shape") != kernel):
        raise ill_formed("ConvTranspose's kernel does not fit", found=f"{x.type} and {w.type}")
    count = len(kernel)
    strides, dilations = n.integers("strides", (1,) * count), n.integers("dilations", (1,) * count)
    pads, more = n.integers("pads", (0,) * (2 * count)), n.integers("output_padding", (0,) * count)
    stated = n.integers("output_shape")[-count:] if n.has("output_shape") else (None,) * count
    if not len(strides) == len(dilations) == len(more) == len(stated) == count or len(pads) != 2 * count:
        raise ill_formed("ConvTranspose's attributes do not fit its kernel", expected=f"{count} axes")
    if min((*strides, *dilations), default=1) < 1:
        raise ill_formed("strides and dilations are at least 1", found=f"{strides}, {dilations}")
    mode = n.text("auto_pad", "NOTSET") or "NOTSET"
    rows = zip(x.shape[2:], kernel, strides, dilations, strict=True)
    return [
        _axis(row, (pads[i], pads[i + count]), (more[i], stated[i]), mode) for i, row in enumerate(rows)
    ]  # fmt: skip


def _axis(row: tuple[Extent, int, int, int], pads: tuple[int, int], stated: tuple[int, int | None], mode: str) -> Axis:
    """`stated`: output_padding, and the extent of output_shape if there is one."""
    extent, size, stride, dilation = row
    more, wanted = stated
    whole = (extent - 1) * stride + (size - 1) * dilation + 1 + more
    same = mode in ("SAME_UPPER", "SAME_LOWER")
    if not same and wanted is None:
        low, high = (0, 0) if mode == "VALID" else pads
        return Axis(extent, size, stride, dilation, low, whole - low - high)
    total = whole - (extent * stride if wanted is None else wanted)
    if not isinstance(total, int):
        raise unsupported("ConvTranspose's output_shape beside a dynamic extent", found=f"{wanted} of {whole}")
    total = max(total, 0)
    low = total // 2 if mode == "SAME_UPPER" else total - total // 2
    return Axis(extent, size, stride, dilation, low, whole - total if wanted is None else wanted)


def _taps(axis: Axis, phase: int) -> Taps:
    """The kernel positions that reach results of one phase, nearest to the input's beginning first."""
    found = [k for k in range(axis.size) if (phase + axis.low - k * axis.dilation) % axis.stride == 0][::-1]
    if not found:
        return Taps(())
    first = (phase + axis.low - found[0] * axis.dilation) // axis.stride
    return Taps(tuple(found), first, axis.dilation // math.gcd(axis.dilation, axis.stride))


def _stacks(phases: Sequence[tuple[Taps, ...]], channels: int) -> bool:
    """Whether one convolution for all phases, with zeros where a phase has no tap, needs fewer vector steps."""
    apart = sum(math.prod(len(t.positions) for t in phase) for phase in phases) * -(-channels // LANES)
    return math.prod(len(g) for g in _reach(phases)) * -(-channels * len(phases) // LANES) <= apart


def _reach(phases: Sequence[tuple[Taps, ...]]) -> list[range]:
    """Along each axis, the distances that any phase reads."""
    found: list[range] = []
    for axis in zip(*phases, strict=True):
        used = [t for t in axis if t.positions]
        found.append(range(min(t.first for t in used), max(t.last for t in used) + 1))
    return found


def _grouped(c: Context, w: Tensor, groups: int) -> Tensor:
    """[I, O/g, *kernel] as [O, I/g, *kernel]."""
    if not isinstance(w.shape[0], int) or not isinstance(w.shape[1], int) or groups < 1 or w.shape[0] % groups:
        raise ill_formed("ConvTranspose's groups do not divide its channels", found=f"{groups} of {w.type}")
    kernel, rest = w.shape[2:], tuple(range(3, w.rank + 1))
    split = c.reshape(w, (groups, w.shape[0] // groups, *w.shape[1:]))
    moved = c.transpose(split, (0, 2, 1, *rest))
    return c.reshape(moved, (w.shape[1] * groups, w.shape[0] // groups, *kernel))


def _phase(c: Context, x: Tensor, kernel: Tensor, place: tuple[Sequence[Axis], Sequence[Taps]], groups: int) -> Tensor:
    """The results of one phase: a convolution with the taps that reach it."""
    axes, taps = place
    if not all(t.positions for t in taps):
        return c.broadcast_to(c.scalar(0, x.dtype), (x.shape[0], kernel.shape[0], *(a.turns for a in axes)))
    for position, tap in enumerate(taps):
        if tap.positions != tuple(range(axes[position].size)):
            kernel = c.op("gather", kernel, _vector(c, tap.positions), axis=position + 2)
    return _convolution(c, x, kernel, place, groups)


def _vector(c: Context, positions: Sequence[int]) -> Tensor:
    return c.extents(list(positions))


def _stacked(c: Context, x: Tensor, kernel: Tensor, place: tuple[Sequence[Axis], Sequence[tuple[Taps, ...]]]) -> Tensor:
    """One convolution that makes the channels of all phases."""
    axes, phases = place
    reach, count = _reach(phases), len(axes)
    # Behind each kernel axis stands a zero: the tap of distances that a phase does not read.
    padded = c.op("pad", kernel, low=(0,) * (count + 2), high=(0, 0, *(1,) * count))
    parts: list[Tensor] = []
    for phase in phases:
        part = padded
        for position, (tap, grid) in enumerate(zip(phase, reach, strict=True)):
            at = {tap.first + tap.step * i: k for i, k in enumerate(tap.positions)}
            part = c.op("gather", part, _vector(c, [at.get(j, axes[position].size) for j in grid]), axis=position + 2)
        parts.append(part)
    joined = [Taps(tuple(range(len(grid))), grid.start) for grid in reach]
    return _convolution(c, x, c.op("concat", *parts, axis=0), (axes, joined), 1)


def _convolution(
    c: Context, x: Tensor, kernel: Tensor, place: tuple[Sequence[Axis], Sequence[Taps]], groups: int
) -> Tensor:
    """The kernel over x, cut or padded so that each axis makes its turns."""
    axes, taps = place
    x, padding = _fitted(c, x, axes, taps)
    return c.op(
        "conv",
        x,
        kernel,
        strides=(1,) * len(axes),
        low=tuple(low for low, _ in padding),
        high=tuple(high for _, high in padding),
        dilations=tuple(t.step for t in taps),
        groups=groups,
    )


def _fitted(c: Context, x: Tensor, axes: Sequence[Axis], taps: Sequence[Taps]) -> tuple[Tensor, list[tuple[int, int]]]:
    """Cut what no tap reads at either end; the rest of the distance is padding, static or by a `pad` of its own."""
    starts, stops, more = [0] * x.rank, list(x.shape), list[Extent]([0] * x.rank)
    padding: list[tuple[int, int]] = []
    for position, (axis, tap) in enumerate(zip(axes, taps, strict=True), 2):
        high = axis.turns + tap.last - axis.extent
        sign = sign_of(high, c.ranges)
        if sign is None:
            raise unsupported(
                "ConvTranspose's padding may be positive or negative, depending on a dim", found=str(high)
            )
        starts[position] = max(tap.first, 0)
        stops[position] = x.shape[position] + (high if sign == -1 else 0)
        if not isinstance(high, int):
            more[position] = high if sign == 1 else 0
        padding.append((max(-tap.first, 0), max(high, 0) if isinstance(high, int) else 0))
    x = c.slice(x, starts, stops)
    return (c.op("pad", x, low=(0,) * x.rank, high=tuple(more)) if any(e != 0 for e in more) else x), padding


TRANSPOSED_OPERATORS: Mapping[str, Translator] = {"ConvTranspose": _conv_transpose}
