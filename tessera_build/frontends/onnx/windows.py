"""Convolution, and the windows that it shares with pools: padding in all its spellings, ceil mode.

Takes a tensor with its channels on axis 1; gives core ops. Invariant: the ops' own padding is static; padding that
depends on a dynamic dim becomes a `pad` in front, so windows keep integer attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.order import larger, smaller
from tessera_build.ir.core.dims import Extent, floordiv

# Where taps are looked at one by one. A shape may state 2**31 of them, without a number behind it.
MOST_TAPS = 1 << 14


@dataclass(frozen=True, slots=True)
class Axis:
    """A window along one spatial axis. `low` and `high` are all padding; `counted` is what the model stated of high."""

    extent: Extent
    size: int
    stride: int
    dilation: int
    low: Extent = 0
    high: Extent = 0
    counted: Extent = 0

    @property
    def span(self) -> int:
        """Elements from the window's first to its last tap."""
        return (self.size - 1) * self.dilation + 1

    @property
    def positions(self) -> Extent:
        """How often the window fits into the padded axis."""
        return floordiv(self.extent + self.low + self.high - self.span, self.stride) + 1


def _axes(n: Call, x: Tensor, kernel: Sequence[int]) -> list[Axis]:
    """The windows as the node states them, before `auto_pad` and `ceil_mode`."""
    ones = (1,) * len(kernel)
    if len(kernel) != x.rank - 2:
        raise ill_formed("the kernel does not fit the operand", expected=f"{x.rank - 2} axes", found=str(kernel))
    strides, dilations = n.integers("strides", ones), n.integers("dilations", ones)
    pads = n.integers("pads", (0,) * (2 * len(kernel)))
    if not len(strides) == len(dilations) == len(kernel) or len(pads) != 2 * len(kernel):
        raise ill_formed("strides, dilations and pads do not fit the kernel", expected=f"{len(kernel)} axes")
    lows, highs = pads[: len(kernel)], pads[len(kernel) :]
    rows = zip(x.shape[2:], kernel, strides, dilations, lows, highs, highs, strict=True)
    return [Axis(*row) for row in rows]


def _padded(c: Context, n: Call, axes: list[Axis]) -> list[Axis]:
    """The windows with `auto_pad` resolved."""
    mode = n.text("auto_pad", "NOTSET") or "NOTSET"
    if mode == "VALID":
        return [replace(a, low=0, high=0, counted=0) for a in axes]
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        return [_same(c, a, upper=mode == "SAME_UPPER") for a in axes]
    if mode != "NOTSET":
        raise ill_formed("auto_pad is unknown", expected="NOTSET, VALID, SAME_UPPER or SAME_LOWER", found=mode)
    return axes


def _same(c: Context, axis: Axis, upper: bool) -> Axis:
    """Padding that gives ceil(extent / stride) positions; the odd element goes to the end, or to the beginning."""
    positions = floordiv(axis.extent + (axis.stride - 1), axis.stride)
    total = larger((positions - 1) * axis.stride + axis.span - axis.extent, 0, c.ranges)
    less = floordiv(total, 2)
    low, high = (less, total - less) if upper else (total - less, less)
    return replace(axis, low=low, high=high, counted=high)


def _ceiled(c: Context, axis: Axis) -> Axis:
    """Extra padding at the end so that a last, partial window counts if it starts inside the input or low padding."""
    room = axis.extent + axis.low + axis.high - axis.span
    if not isinstance(room, int) and isinstance(axis.high, int) and axis.stride - 1 + axis.high < axis.span:
        # Here no window can start beyond the input, and stride - 1 more elements round the division up.
        return replace(axis, high=axis.high + axis.stride - 1)
    rounded = floordiv(room + (axis.stride - 1), axis.stride) + 1
    inside = floordiv(axis.extent + axis.low - 1, axis.stride) + 1
    last = (smaller(rounded, inside, c.ranges) - 1) * axis.stride
    return replace(axis, high=larger(last + axis.span - axis.extent - axis.low, 0, c.ranges))


def static_padding(c: Context, x: Tensor, axes: list[Axis], value: float) -> tuple[Tensor, list[Axis]]:
    """Move symbolic padding out of the windows into a `pad` of the operand."""
    for axis in axes:
        c.require(axis.positions, ">=", 1, "a window does not fit its padded operand")
    if all(isinstance(a.low, int) and isinstance(a.high, int) for a in axes):
        return x, axes
    low, high = (0, 0, *(a.low for a in axes)), (0, 0, *(a.high for a in axes))
    moved = [replace(a, extent=a.extent + a.low + a.high, low=0, high=0, counted=0) for a in axes]
    return c.op("pad", x, low=low, high=high, value=value), moved


def static_extent(extent: Extent) -> int:
    """An extent that is known to be a number."""
    assert isinstance(extent, int)
    return extent


def conv_windows(c: Context, n: Call, x: Tensor, w: Tensor) -> list[Axis]:
    """The windows of a convolution's node, padding resolved."""
    if n.has("kernel_shape"):
        for stated, extent in zip(n.integers("kernel_shape"), w.shape[2:], strict=False):
            c.unify(stated, extent, "kernel_shape differs from the weights")
    kernel = tuple(e for e in w.shape if isinstance(e, int))[2:]
    if len(kernel) != w.rank - 2:
        raise unsupported("Conv's weights have dynamic dims", found=str(w.type), hint="make the weights constants")
    return _padded(c, n, _axes(n, x, kernel))


def convolution(c: Context, n: Call, x: Tensor, w: Tensor, axes: list[Axis]) -> Tensor:
    """The sums of products under windows that are padded with zeros."""
    x, axes = static_padding(c, x, axes, 0.0)
    groups = n.integer("group", 1)
    per_group = w.shape[1]
    c.unify(x.shape[1], per_group * groups, "Conv's channels do not fit its weights")
    return c.op(
        "conv",
        x,
        w,
        strides=tuple(a.stride for a in axes),
        low=tuple(static_extent(a.low) for a in axes),
        high=tuple(static_extent(a.high) for a in axes),
        dilations=tuple(a.dilation for a in axes),
        groups=groups,
    )


def channel_shape(bias: Tensor, axes: Sequence[Axis]) -> tuple[Extent, ...]:
    """The shape in which one number a channel meets a convolution's result."""
    return (*bias.shape, *(1,) * len(axes))


def _conv(c: Context, n: Call) -> Tensor:
    x, w, bias = n.input(0), n.input(1), n.optional(2)
    axes = conv_windows(c, n, x, w)
    result = convolution(c, n, x, w, axes)
    return result if bias is None else c.op("add", result, c.reshape(bias, channel_shape(bias, axes)))


def pool_windows(c: Context, n: Call, x: Tensor) -> list[Axis]:
    """The windows of a pool's node, padding and ceil mode resolved."""
    stated = _axes(n, x, n.integers("kernel_shape"))
    axes = _padded(c, n, stated)
    if "SAME" in n.text("auto_pad", "NOTSET") and any(a.dilation > 1 and a.size > 1 for a in stated):
        raise unsupported(
            f"{n.op} with auto_pad=SAME and dilations", hint="ONNX and onnxruntime pad this differently; state the pads"
        )
    return [_ceiled(c, a) for a in axes] if n.integer("ceil_mode", 0) else axes


WINDOW_OPERATORS: Mapping[str, Translator] = {"Conv": _conv}
