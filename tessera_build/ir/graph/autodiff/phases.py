"""The transposition of a convolution: one small convolution for each phase of its stride.

Takes what came back [N, O, ...], weights [O, I/groups, *kernel] and the convolution's attributes; gives [N, I, ...].
Element stride * t + p of the result takes only the taps k with p + low - k * dilation divisible by the stride. Phases
are stacked as channels and moved into the image by `depth_to_space`. Invariant: each element sums exactly its taps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from tessera_build.ir.core.dims import Extent
from tessera_build.ir.graph.autodiff.emit import Emit
from tessera_build.ir.graph.ops.op import Attributes, int_of, ints_of
from tessera_build.ir.graph.ops.shapes import ceildiv


@dataclass(frozen=True, slots=True)
class Axis:
    """One spatial axis of the convolution; the transposition has `extent` elements along it."""

    size: int
    stride: int
    low: int
    dilation: int
    extent: Extent

    def taps(self, phase: int) -> tuple[int, ...]:
        """The kernel positions that reach elements of a phase, the one that comes from the front first."""
        reach = range(self.size - 1, -1, -1)
        return tuple(k for k in reach if (phase + self.low - k * self.dilation) % self.stride == 0)

    def start(self, phase: int) -> int:
        """From where the first tap of a phase reads, relative to the element's own turn."""
        return (phase + self.low - self.taps(phase)[0] * self.dilation) // self.stride

    @property
    def step(self) -> int:
        """The distance between the taps of one phase in what they read."""
        return self.dilation // math.gcd(self.dilation, self.stride)


def transposed_convolution(e: Emit, c: int, w: int, attributes: Attributes, spatial: Sequence[Extent]) -> int:
    """The sums of c times w, each put where the convolution has read it."""
    groups = int_of(attributes, "groups")
    kernel = e.type(w).static_shape[2:]
    rows = zip(kernel, *(ints_of(attributes, n) for n in ("strides", "low", "dilations")), spatial, strict=True)
    axes = [Axis(*row) for row in rows]
    turned = _turned(e, w, groups)
    phases = itertools.product(*(range(a.stride) for a in axes))
    parts = [_phase(e, (c, turned), axes, phase, groups) for phase in phases]
    if len(parts) == 1:
        return parts[0]
    blocks, extents = tuple(a.stride for a in axes), tuple(a.extent for a in axes)
    return e.op(
        "depth_to_space", e.op("concat", *parts, axis=1), blocks=blocks, extents=extents, layout="NCHW", order="DCR"
    )


def _turned(e: Emit, w: int, groups: int) -> int:
    """[O, I/g, *kernel] as [I, O/g, *kernel]."""
    outputs, inner, *kernel = e.type(w).static_shape
    split = e.reshape(w, (groups, outputs // groups, inner, *kernel))
    moved = e.transpose(split, (0, 2, 1, *range(3, len(kernel) + 3)))
    return e.reshape(moved, (groups * inner, outputs // groups, *kernel))


def _phase(e: Emit, values: tuple[int, int], axes: Sequence[Axis], phase: tuple[int, ...], groups: int) -> int:
    c, kernel = values
    batch, channels = e.shape(c)[0], e.type(kernel).static_shape[0]
    turns = [ceildiv(a.extent, a.stride) for a in axes]
    taps = [a.taps(p) for a, p in zip(axes, phase, strict=True)]
    if not all(taps):
        return e.broadcast(e.scalar(0.0, c), (batch, channels, *turns))
    for position, (axis, used) in enumerate(zip(axes, taps, strict=True)):
        if used != tuple(range(axis.size)):
            kernel = e.op("gather", kernel, e.integers(used), axis=position + 2)
    lows = [-a.start(p) for a, p in zip(axes, phase, strict=True)]
    reach = [a.step * (len(used) - 1) for a, used in zip(axes, taps, strict=True)]
    wide = [t + r for t, r in zip(turns, reach, strict=True)]
    highs = [w - low - extent for w, low, extent in zip(wide, lows, e.shape(c)[2:], strict=True)]
    low, high = (0,) * len(axes), (0,) * len(axes)
    padding = [p for p in (*lows, *highs) if isinstance(p, int) and p >= 0]
    if len(padding) == 2 * len(axes):
        low, high = tuple(padding[: len(axes)]), tuple(padding[len(axes) :])
    else:
        c = e.placed(c, (0, 0, *lows), (*e.shape(c)[:2], *wide))
    steps, ones = tuple(a.step for a in axes), (1,) * len(axes)
    return e.op("conv", c, kernel, strides=ones, low=low, high=high, dilations=steps, groups=groups, layout="NCHW")
