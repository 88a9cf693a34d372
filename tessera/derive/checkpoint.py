"""`checkpoint`: what a function computes on its way is computed again for its gradients instead of being kept.

Takes a function and what is kept of it all the same; gives one that computes the same. Invariant: only the function's
arguments, what it reads from around it, and what the policy keeps, live until the gradients are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches

from tessera.derive.inner import expect_trace, value_of
from tessera.errors import LanguageError
from tessera.model.expect import expect_functions
from tessera.model.site import here
from tessera.model.tensor import Tensor, Value, emit_all, trace_of
from tessera.model.tree import leaves, rebuild
from tessera_build.ir.core.node import Node
from tessera_build.ir.graph.nodes import GraphNode

# What a policy keeps: results of these ops; None: everything, which is no checkpoint at all.
_KEPT: Mapping[str, frozenset[str] | None] = {
    "nothing": frozenset(),
    "dots": frozenset({"matmul", "conv", "attention"}),
    "everything": None,
}


def checkpoint(function: Callable[..., object], *, policy: str = "nothing") -> Callable[..., object]:
    """The function, whose intermediate values are computed again when its gradients need them.

    `policy` says which are kept: "nothing"; "dots", the results of matrix products, convolutions and attention, so that
    what is cheap is computed again; or "everything". They are JAX's nothing_saveable, dots_saveable and
    everything_saveable. A checkpoint inside the function has a policy of its own; what loops, branches and it compute
    is not kept by the outer one. Keyword arguments are passed on; tensors among them are differentiated by like any
    tensor that the function reads.
    """
    expect_functions("graph.checkpoint", "graph.checkpoint(f)(x)", function)
    if policy not in _KEPT:
        near = get_close_matches(str(policy), _KEPT)
        raise LanguageError(
            "BAD_ARGUMENT",
            "an unknown policy of checkpoint",
            site=here(),
            expected=" | ".join(_KEPT),
            found=repr(policy),
            hint=f'did you mean "{near[0]}"?' if near else None,
        )
    ops = _KEPT[policy]
    return function if ops is None else _checkpointed(function, ops)


def _checkpointed(function: Callable[..., object], ops: frozenset[str]) -> Callable[..., object]:
    def kept(*arguments: object, **named: object) -> object:
        expect_trace("graph.checkpoint", arguments)
        found = [leaf for _, leaf in leaves(arguments)]
        trace = trace_of(found)
        operands = [Tensor(trace, leaf.value_in(trace)) for leaf in found if isinstance(leaf, Value)]
        with trace.builder.region([operand.type for operand in operands]) as block:
            for inside, operand in zip(block.args, operands, strict=True):
                trace.note(inside, here(), operand.policy, trace.labels.get(operand.value, ""))
            inputs = iter([Tensor(trace, value) for value in block.args])
            given = [next(inputs) if isinstance(leaf, Value) else leaf for leaf in found]
            result = function(*_tuple(rebuild(arguments, given)), **named)
            results = [value_of(trace, leaf) for _, leaf in leaves(result)]
            saved = _results_of(ops, block.nodes)
            block.yields(*results, *saved)
        made = emit_all("checkpoint", operands, {"kept": len(saved)}, [block.region])
        return rebuild(result, made[: len(results)])

    return kept


def _results_of(ops: frozenset[str], nodes: Sequence[Node]) -> list[int]:
    """What the nodes of these ops give."""
    return [v for node in nodes if isinstance(node, GraphNode) and node.op in ops for v in node.outputs]


def _tuple(value: object) -> tuple[object, ...]:
    assert isinstance(value, tuple)
    return value  # pyright: ignore[reportUnknownVariableType]
