"""How many iterations a loop can have that goes on while a counter is below a limit.

Takes the condition that a body gives, and which of its values are counters or never change; gives a trip count. It is
how exporters of other frameworks write a walk over a sequence: no trip count, and `time + 1 < length` as the condition.
Invariant: a loop never has more iterations than its trip count says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.order import larger
from tessera_build.ir.core.dims import Dim, Extent, floordiv, symbols_of
from tessera_build.ir.core.types import I64, DType

_MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}
_EXACT = 31  # no model counts that far
_DIGITS = {"f64": 53, "f32": 24, "f16": 11, "bf16": 8}


@dataclass(frozen=True, slots=True)
class Counter:
    """A carried integer that is `first` + `step` * the number of the iteration."""

    first: Extent
    step: int

    def at(self, c: Context, like: Tensor, number: Extent) -> Tensor:
        """The counter's content when as many iterations are over, in the type of `like`."""
        return c.reshape(c.number(self.first + number * self.step, like.dtype), like.shape)


@dataclass(frozen=True, slots=True)
class Ending:
    """A loop goes on while `counter` `relation` `limit`; `alone`: whatever else happens.

    `digits`: of the narrowest type in which they are compared; numbers beyond them would be rounded.
    """

    counter: Counter
    relation: str
    limit: Tensor
    digits: int
    alone: bool

    def trips(self, c: Context) -> Extent | None:
        """How many iterations there are when there is a first one; None where that cannot be said."""
        (limit,) = c.numbers(c.cast(self.limit, I64))
        sign = -1 if self.relation[0] == "g" else 1
        step, beyond = self.counter.step * sign, int(self.relation[1] == "e")
        if step <= 0:
            return None
        if isinstance(limit, Tensor):
            if sign == -1:
                return None
            limit = c.size(c.op("max", limit, c.scalar(0, I64)))
        if self.digits < _EXACT:
            c.require(1 << self.digits, ">=", limit * sign, "a loop counts to more than its numbers can tell apart")
        distance = (limit - self.counter.first) * sign + beyond
        return larger(floordiv(distance + step - 1, step), 1, c.ranges)


def ending_of(
    c: Context, again: Tensor, counters: Mapping[int | None, Counter], arguments: Mapping[int, Tensor | None]
) -> Ending | None:
    """What ends a loop, by its condition; `counters` by what a body gives, and what it is given that never changes."""
    node = None if again.value is None else c.builder.producer(_source(c, again.value)[0])
    if node is None:
        return None
    if node.op == "and":
        parts = [Tensor(c.builder.type(value), value) for value in node.inputs]
        found = next((e for part in parts if (e := ending_of(c, part, counters, arguments)) is not None), None)
        return None if found is None else Ending(found.counter, found.relation, found.limit, found.digits, alone=False)
    if node.op not in _MIRRORED:
        return None
    (left, low), (right, high) = (_source(c, value) for value in node.inputs)
    relation = node.op
    if left not in counters:
        left, right, relation = right, left, _MIRRORED[node.op]
    limit = _fixed(c, right, arguments)
    if left not in counters or limit is None:
        return None
    return Ending(counters[left], relation, limit, min(low, high), alone=True)


def _source(c: Context, value: int) -> tuple[int, int]:
    """The value that was converted and reshaped into this one, and how many digits were left on the way."""
    digits = _EXACT
    while (node := c.builder.producer(value)) is not None and node.op in ("cast", "reshape"):
        digits = min(digits, _digits(c.builder.type(value).dtype))
        (value,) = node.inputs
    return value, digits


def _digits(dtype: DType) -> int:
    return _DIGITS.get(dtype.name, dtype.bits - 1)


def _fixed(c: Context, value: int, arguments: Mapping[int, Tensor | None]) -> Tensor | None:
    """One integer that is the same in every iteration, as the graph around the loop has it."""
    node, array = c.builder.producer(value), c.builder.array(value)
    if array is not None:
        found = c.constant(array)
    elif node is not None:
        extent = node.attributes["value"] if node.op == "dimension" else None
        found = c.number(extent, I64) if isinstance(extent, Dim) and c.indices.isdisjoint(symbols_of(extent)) else None
    else:
        found = arguments.get(value, Tensor(c.builder.type(value), value))
    single = found is not None and not found.dtype.is_float and all(extent == 1 for extent in found.shape)
    return found if single else None
