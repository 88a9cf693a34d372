"""Values that exist with their axes in another order.

Takes the function under construction; gives, for a value, the one that holds the same elements in another order.
Invariant: a moved value is registered under the value that has the original order and that is a transpose of it, so a
rule may always fall back on the original; unread transposes are dropped at the end of the sweep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.ops.shapes import count

Order = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MovedValue:
    """`value` holds a tensor's elements with axis order[i] of that tensor as its axis i."""

    value: int
    order: Order


class Moved:
    """The moved values of one function under construction."""

    def __init__(self) -> None:
        self._known: dict[int, MovedValue] = {}

    def of(self, value: int) -> MovedValue | None:
        """The moved form of a value, if it has one."""
        return self._known.get(value)

    def original(self, to: GraphBuilder, value: int, order: Sequence[int]) -> int:
        """The value in its original order, given that `value` holds it in `order`."""
        order = tuple(order)
        if order == tuple(range(len(order))):
            return value
        plain = to.op("transpose", value, perm=inverse(order))
        self._known[plain] = MovedValue(value, order)
        return plain

    def ordered(self, to: GraphBuilder, value: int, order: Order) -> int:
        """A value in `order`; one of lower rank first gets leading axes, as broadcasting would give it."""
        known = self._known.get(value)
        if known is not None and known.order == order:
            return known.value
        type_ = to.type(value)
        if count(type_.shape) == 1:
            return value
        if type_.rank < len(order):
            value = to.op("reshape", value, shape=(1,) * (len(order) - type_.rank) + type_.shape)
        return to.op("transpose", value, perm=order)


def inverse(order: Order) -> Order:
    """The permutation that undoes `order`."""
    return tuple(order.index(axis) for axis in range(len(order)))
