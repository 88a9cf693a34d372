"""Rows of the table of torch's operators that go over windows: pooling of any rank, transposed convolutions.

Takes a writer and the operands of a traced call; gives values. Invariant: what cannot be written raises `Unmapped`.
"""

# ruff: noqa: ANN401  values of traced programs are anything

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.autodiff.aten_writer import Row, Unmapped, Value, Writer


def _wide(given: Any, count: int) -> list[int]:
    found = list(given) if isinstance(given, (list, tuple)) else [given]
    return found * count if len(found) == 1 else found


def _high(extent: int, low: int, window: tuple[int, int], stride: int, ceil: bool) -> int:
    """How far windows reach behind the elements. Rounded up, the last one may leave, but not begin beyond the pads."""
    size, dilation = window
    reach = dilation * (size - 1) + 1
    whole = extent + 2 * low - reach
    number = (-(-whole // stride) if ceil else whole // stride) + 1
    if ceil and (number - 1) * stride >= extent + low:
        number -= 1
    return (number - 1) * stride + reach - extent - low


class _Windows:
    """The attributes of `reduce_window` over the last axes of a tensor."""

    def __init__(self, shape: Sequence[int], count: int, given: Sequence[Any], ceil: bool) -> None:
        kernel, stride, padding, dilation = (_wide(v, count) for v in given)
        self.lead, spatial = len(shape) - count, shape[len(shape) - count :]
        self.size = math.prod(kernel)
        rows = zip(spatial, padding, zip(kernel, dilation, strict=True), stride, strict=True)
        self.low = [0] * self.lead + padding
        self.high = [0] * self.lead + [_high(*row, ceil) for row in rows]
        ones = [1] * self.lead
        self.kept = {
            "window": (*ones, *kernel),
            "strides": (*ones, *stride),
            "dilations": (*ones, *dilation),
        }

    def over(self, w: Writer, x: int, kind: str) -> int:
        """The windows' extrema or sums; behind the elements some may end early."""
        shape = w.shape(x)
        cut = tuple(s + min(h, 0) for s, h in zip(shape, self.high, strict=True))
        if cut != shape:
            x = w.b.op("slice", x, starts=(0,) * len(shape), stops=cut, steps=(1,) * len(shape))
        high = tuple(max(h, 0) for h in self.high)
        return w.b.op("reduce_window", x, kind=kind, low=tuple(self.low), high=high, **self.kept)


def _max_pool(count: int) -> Row:
    def row(
        w: Writer, x: Value, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil: bool = False
    ) -> tuple[int, None]:
        given = (kernel, stride or kernel, padding, dilation)
        return _Windows(w.shape(x.id), count, given, ceil).over(w, x.id, "max"), None

    return row


def _avg_pool(count: int) -> Row:
    def row(
        w: Writer,
        x: Value,
        kernel: Any,
        stride: Any = (),
        padding: Any = 0,
        ceil: bool = False,
        include: bool = True,
        divisor: Any = None,
    ) -> int:
        windows = _Windows(w.shape(x.id), count, (kernel, stride or kernel, padding, 1), ceil)
        total = windows.over(w, x.id, "sum")
        if divisor:
            return w.b.op("div", total, w.value(divisor))
        # How many elements each window sees; pads count where they are asked to, what lies beyond them never does.
        shape = w.shape(x.id)[windows.lead :]
        pads = windows.low[windows.lead :]
        seen = np.ones(shape)
        if include:
            seen = np.pad(seen, [(p, p) for p in pads], constant_values=1.0)
        one = Value(w.b.constant(seen))
        own = _Windows(shape, count, (kernel, stride or kernel, padding, 1), ceil)
        if include:
            own.low, own.high = [0] * count, [h - p for h, p in zip(own.high, pads, strict=True)]
        return w.b.op("div", total, own.over(w, one.id, "sum"))

    return row


def _adaptive(count: int, kind: str) -> Row:
    """Windows that differ from place to place, each a slice of its own."""

    def row(w: Writer, x: Value, sizes: Any) -> Any:
        shape = w.shape(x.id)
        lead, spatial = len(shape) - count, shape[len(shape) - count :]
        wanted = [s or e for s, e in zip(_wide(sizes, count), spatial, strict=True)]
        if math.prod(wanted) * math.prod(shape) == 0 or math.prod(wanted) > 64:
            raise Unmapped("windows of nothing, or many")
        parts = [_part(w, x.id, place, (wanted, lead, kind)) for place in itertools.product(*map(range, wanted))]
        whole = w.reshape(w.b.op("concat", *parts, axis=lead), (*shape[:lead], *wanted))
        return (whole, None) if kind == "max" else whole

    return row


def _part(w: Writer, x: int, place: Sequence[int], given: tuple[Sequence[int], int, str]) -> int:
    (wanted, lead, kind), shape = given, w.shape(x)
    starts, stops = [0] * lead, list(shape[:lead])
    for at, number, extent in zip(place, wanted, shape[lead:], strict=True):
        starts.append(at * extent // number)
        stops.append(-(-(at + 1) * extent // number))
    cut = w.b.op("slice", x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * len(shape))
    axes = tuple(range(lead, len(shape)))
    found = w.b.op("reduce", cut, kind=kind, axes=axes, keepdims=False)
    if kind == "sum":
        size = math.prod(b - a for a, b in zip(starts[lead:], stops[lead:], strict=True))
        found = w.b.op("div", found, w.value(size))
    return w.reshape(found, (*shape[:lead], 1))


def convolution(w: Writer, x: Value, k: Value, bias: Any, stride: Any, padding: Any, dilation: Any, *rest: Any) -> int:
    """A convolution, or its transposition."""
    transposed, more, groups = rest
    count = len(w.shape(k.id)) - 2
    if len(w.shape(x.id)) != count + 2 or 0 in w.shape(x.id):
        raise Unmapped("a convolution of one image")
    wide = [_wide(v, count) for v in (stride, padding, dilation)]
    if transposed:
        made = _transposed(w, x.id, k.id, (*wide, _wide(more, count)), groups)
    else:
        windows = {n: tuple(wide[i]) for n, i in (("strides", 0), ("low", 1), ("high", 1), ("dilations", 2))}
        made = w.b.op("conv", x.id, k.id, **windows, groups=groups)
    if bias is None:
        return made
    return w.b.op("add", made, w.reshape(bias.id, (w.shape(bias.id)[0], *(1,) * count)))


def _transposed(w: Writer, x: int, k: int, given: Sequence[Sequence[int]], groups: int) -> int:
    """The convolution of the elements with zeros between them by the kernel turned round."""
    (stride, padding, dilation, more), shape = given, w.shape(x)
    split = [n for e in shape[2:] for n in (e, 1)]
    high = [n for s in stride for n in (0, s - 1)]
    apart = w.b.op(
        "pad", w.reshape(x, (*shape[:2], *split)), low=(0,) * (2 + len(split)), high=(0, 0, *high), value=0.0
    )
    joined = w.reshape(apart, (*shape[:2], *(e * s for e, s in zip(shape[2:], stride, strict=True))))
    stops = tuple((e - 1) * s + 1 for e, s in zip(shape[2:], stride, strict=True))
    rank = len(shape)
    apart = w.b.op("slice", joined, starts=(0,) * rank, stops=(*shape[:2], *stops), steps=(1,) * rank)
    kernel = w.shape(k)
    count = len(stride)
    for axis in range(2, 2 + count):
        k = w.b.op("gather", k, w.b.constant(np.arange(kernel[axis])[::-1].copy()), axis=axis)
    grouped = w.reshape(k, (groups, kernel[0] // groups, *kernel[1:]))
    turned = w.b.op("transpose", grouped, perm=(0, 2, 1, *range(3, 3 + count)))
    weights = w.reshape(turned, (groups * kernel[1], kernel[0] // groups, *kernel[2:]))
    reach = [d * (n - 1) for d, n in zip(dilation, kernel[2:], strict=True)]
    low = [r - p for r, p in zip(reach, padding, strict=True)]
    ends = [n + m for n, m in zip(low, more, strict=True)]
    if min((*low, *ends)) < 0:
        raise Unmapped("pads that cut")
    return w.b.op(
        "conv",
        apart,
        weights,
        strides=(1,) * count,
        low=tuple(low),
        high=tuple(ends),
        dilations=tuple(dilation),
        groups=groups,
    )


WINDOWS: dict[str, Row] = {
    **{f"max_pool{n}d_with_indices": _max_pool(n) for n in (2, 3)},
    **{f"avg_pool{n}d": _avg_pool(n) for n in (2, 3)},
    **{f"_adaptive_avg_pool{n}d": _adaptive(n, "sum") for n in (2, 3)},
    **{f"adaptive_max_pool{n}d": _adaptive(n, "max") for n in (2, 3)},
    "convolution": convolution,
}
