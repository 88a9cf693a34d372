"""What derivative rules write with: ordinary graph ops, in the few phrases that many rules share.

Takes values of an `Emitter`, which is a `GraphBuilder` or the recorder of a linear program; gives values of it.
Invariant: nothing is emitted where nothing changes (no reshape to the same shape, no sum over no axes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import I64, Type
from tessera_build.ir.graph.nodes import Array, Attribute
from tessera_build.ir.graph.ops.shapes import Shape, count

Values = Sequence[int | None]
SHORT = 512  # terms that are added in one sequence: an error of at most 512 halves of the last digit


class Emitter(Protocol):
    """Where nodes go."""

    def type(self, value: int) -> Type:
        """The type of a value."""
        ...

    def constant(self, array: ArrayLike) -> int:
        """The value of a constant."""
        ...

    def array(self, value: int) -> Array | None:
        """The array of a constant value; None for any other value."""
        ...

    def is_number(self, value: int) -> bool:
        """Whether a value is what the model's text states, and no weight."""
        ...

    def node(self, op: str, inputs: tuple[int, ...], attributes: Mapping[str, Attribute]) -> tuple[int, ...]:
        """Append a node; gives its results."""
        ...


class Emit:
    """Phrases over an emitter."""

    def __init__(self, to: Emitter) -> None:
        self.to = to

    def type(self, value: int) -> Type:
        """The type of a value."""
        return self.to.type(value)

    def shape(self, value: int) -> Shape:
        """The shape of a value."""
        return self.to.type(value).shape

    def nodes(self, op: str, *inputs: int, **attributes: Attribute) -> tuple[int, ...]:
        """All results of an op."""
        return self.to.node(op, inputs, attributes)

    def op(self, op: str, /, *inputs: int, **attributes: Attribute) -> int:
        """The only result of an op."""
        (result,) = self.to.node(op, inputs, attributes)
        return result

    def scalar(self, number: float, like: int) -> int:
        """A constant of rank 0 with the element type of the value `like`."""
        return self.to.constant(np.asarray(number).astype(self.type(like).dtype.numpy))

    def integers(self, numbers: Sequence[int]) -> int:
        """A constant vector of i64."""
        return self.to.constant(np.asarray(numbers, np.int64))

    def number(self, value: int) -> float | None:
        """The number that a constant holds everywhere; None for any other value."""
        array = self.to.array(value)
        if array is None or array.size == 0 or (array != array.reshape(-1)[0]).any():
            return None
        return float(array.reshape(-1)[0])

    def scaled(self, value: int, number: float) -> int:
        """The value times a number."""
        return value if number == 1 else self.op("mul", value, self.scalar(number, value))

    def full(self, number: float, type_: Type) -> int:
        """A tensor that holds one number everywhere."""
        one = self.to.constant(np.asarray(number).astype(type_.dtype.numpy))
        return self.broadcast(one, type_.shape)

    def zeros(self, type_: Type) -> int:
        """A tensor of zeros."""
        return self.full(0.0, type_)

    def broadcast(self, value: int, shape: Shape) -> int:
        """The value repeated to a shape."""
        return value if self.shape(value) == shape else self.op("broadcast_to", value, shape=shape)

    def reshape(self, value: int, shape: Shape) -> int:
        """The same elements in another shape."""
        return value if self.shape(value) == shape else self.op("reshape", value, shape=shape)

    def transpose(self, value: int, perm: Sequence[int]) -> int:
        """Axes in another order."""
        perm = tuple(perm)
        return value if perm == tuple(range(len(perm))) else self.op("transpose", value, perm=perm)

    def sum(self, value: int, axes: Sequence[int], *, keepdims: bool = False) -> int:
        """Sums over axes. Many elements are added axis by axis, so that rounding errors grow with the longest axis and
        not with all of them: columns of a bias's gradient are added in sequence."""
        shape, axes = self.shape(value), tuple(axes)
        terms = count([shape[a] for a in axes])
        if not axes or (isinstance(terms, int) and terms <= SHORT):
            return self._reduced(value, axes, keepdims=keepdims)
        for axis in sorted(axes, reverse=True):
            value = self._in_parts(value, axis, keepdims=keepdims)
        return value

    def _in_parts(self, value: int, axis: int, *, keepdims: bool) -> int:
        """Sums over one axis; first those of equal parts where it is long and its elements are not neighbours."""
        shape = self.shape(value)
        extent = shape[axis]
        if isinstance(extent, int) and extent > SHORT and axis < len(shape) - 1:
            part = next((d for d in range(SHORT, 7, -1) if extent % d == 0), 0)
            if part:
                split = self.reshape(value, (*shape[:axis], extent // part, part, *shape[axis + 1 :]))
                value = self._reduced(split, (axis + 1,), keepdims=False)
        return self._reduced(value, (axis,), keepdims=keepdims)

    def _reduced(self, value: int, axes: tuple[int, ...], *, keepdims: bool) -> int:
        return self.op("reduce", value, kind="sum", axes=axes, keepdims=keepdims) if axes else value

    def unbroadcast(self, value: int, shape: Shape) -> int:
        """What a broadcast from `shape` passes back: sums over the axes that it repeated."""
        own = self.shape(value)
        more = len(own) - len(shape)
        repeated = [i for i, e in enumerate(own) if i < more or (shape[i - more] == 1 and e != 1)]
        return self.reshape(self.sum(value, repeated), shape)

    def where(self, mask: int, value: int) -> int:
        """The value where the mask holds, else zero."""
        return self.op("select", mask, value, self.scalar(0.0, value))

    def slice(self, value: int, starts: Sequence[Extent], stops: Sequence[Extent], steps: Sequence[int] = ()) -> int:
        """value[start:stop:step, ...]."""
        steps, shape = tuple(steps) or (1,) * len(starts), self.shape(value)
        if all(s == 0 for s in starts) and tuple(stops) == shape and all(s == 1 for s in steps):
            return value
        return self.op("slice", value, starts=tuple(starts), stops=tuple(stops), steps=steps)

    def pad(self, value: int, low: Sequence[Extent], high: Sequence[Extent], number: float = 0.0) -> int:
        """The value with a number around it."""
        if all(p == 0 for p in (*low, *high)):
            return value
        return self.op("pad", value, low=tuple(low), high=tuple(high), value=number)

    def placed(self, value: int, lows: Sequence[Extent], shape: Shape) -> int:
        """Element i of the result is element i - low of the value, and zero where there is none.

        A distance that is a symbolic expression is taken to be padding.
        """
        own = self.shape(value)
        starts = [-low if isinstance(low, int) and low < 0 else 0 for low in lows]
        ends = [low + extent - whole for low, extent, whole in zip(lows, own, shape, strict=True)]
        cuts = [end if isinstance(end, int) and end > 0 else 0 for end in ends]
        kept = self.slice(value, starts, [e - c for e, c in zip(own, cuts, strict=True)])
        low = [p + s for p, s in zip(lows, starts, strict=True)]
        high = [c - e for e, c in zip(ends, cuts, strict=True)]
        return self.pad(kept, low, high)

    def dilated(self, value: int, steps: Sequence[int]) -> int:
        """Element i at place i * step, zeros between; the last element is the last."""
        shape = self.shape(value)
        if all(s == 1 for s in steps) or 0 in shape:
            return value
        split: list[Extent] = [e for extent in shape for e in (extent, 1)]
        high = [p for step in steps for p in (0, step - 1)]
        apart = self.pad(self.reshape(value, tuple(split)), (0,) * len(split), high)
        joined = self.reshape(apart, tuple(e * s for e, s in zip(shape, steps, strict=True)))
        stops = [(e - 1) * s + 1 for e, s in zip(shape, steps, strict=True)]
        return self.slice(joined, (0,) * len(shape), stops)

    def extent(self, extent: Extent, like: int) -> int:
        """A dimension expression as a scalar with the element type of the value `like`."""
        if isinstance(extent, int):
            return self.scalar(float(extent), like)
        whole = self.op("dimension", value=extent, dtype=I64)
        return self.op("cast", whole, dtype=self.type(like).dtype)

    def total(self, values: Sequence[int]) -> int:
        """The sum, pair by pair: its order is a function of the order of the values."""
        waiting = list(values)
        while len(waiting) > 1:
            odd = waiting[-1:] if len(waiting) % 2 else []
            pairs = zip(waiting[::2], waiting[1::2], strict=False)
            waiting = [self.op("add", a, b) for a, b in pairs] + odd
        return waiting[0]


def channels_last(rank: int) -> tuple[int, ...]:
    """The permutation of [N, C, ...] that brings the channels to the end."""
    return (0, *range(2, rank), 1)
