"""`checkpoint`: what a function computes on its way is computed again for its gradients instead of being kept.

Takes a function; gives one that computes the same. Invariant: only the function's arguments, and what it reads from
around it, live until the gradients are computed.
"""

from __future__ import annotations

from collections.abc import Callable

from tessera.derive.inner import value_of
from tessera.model.site import here
from tessera.model.tensor import Tensor, Value, emit_all, trace_of
from tessera.model.tree import leaves, rebuild


def checkpoint(function: Callable[..., object]) -> Callable[..., object]:
    """The function, whose intermediate values are computed again when its gradients need them."""

    def kept(*arguments: object) -> object:
        found = [leaf for _, leaf in leaves(arguments)]
        trace = trace_of(found)
        operands = [Tensor(trace, leaf.value_in(trace)) for leaf in found if isinstance(leaf, Value)]
        with trace.builder.region([operand.type for operand in operands]) as block:
            for inside, operand in zip(block.args, operands, strict=True):
                trace.note(inside, here(), operand.policy, trace.labels.get(operand.value, ""))
            inputs = iter([Tensor(trace, value) for value in block.args])
            given = [next(inputs) if isinstance(leaf, Value) else leaf for leaf in found]
            result = function(*_tuple(rebuild(arguments, given)))
            block.yields(*(value_of(trace, leaf) for _, leaf in leaves(result)))
        return rebuild(result, emit_all("checkpoint", operands, {}, [block.region]))

    return kept


def _tuple(value: object) -> tuple[object, ...]:
    assert isinstance(value, tuple)
    return value  # pyright: ignore[reportUnknownVariableType]
