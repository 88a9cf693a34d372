"""Functions whose derivatives the author states.

Takes a function of tensors and a rule; gives a function that computes the first and is differentiated by the second.
Invariant: a stated derivative replaces the derived one everywhere, and it can be differentiated again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from tessera.derive.derivatives import author_place
from tessera.derive.inner import traced, value_of
from tessera.errors import LanguageError
from tessera.model.filled import full_like
from tessera.model.site import here
from tessera.model.tensor import Tensor, Value, described, emit_all, trace_of
from tessera.model.trace import Trace
from tessera.model.tree import pictured
from tessera_build.ir.core.node import Region
from tessera_build.ir.graph.autodiff import transform
from tessera_build.ir.graph.nodes import GraphNode


class custom_jvp:  # noqa: N801  used as a decorator
    """A function of tensors to one tensor whose change along tangents the author states: `@f.defjvp`.

    The rule takes the arguments, then as many tangents, and must be linear in these.
    """

    def __init__(self, function: Callable[..., Value]) -> None:
        self.function = function
        self.rule: Callable[..., Value] | None = None

    def defjvp(self, rule: Callable[..., Value]) -> Callable[..., Value]:
        """State the rule."""
        self.rule = rule
        return rule

    def __call__(self, *primals: Value) -> Value:
        """The function as one node, with the rule beside it."""
        rule = self.rule
        if rule is None:
            raise LanguageError(
                "NO_DERIVATIVE_RULE",
                "a function with a derivative of its own has none",
                site=here(),
                expected="@f.defjvp or @f.defvjp above its rule",
            )

        def change(*values: Tensor) -> Value:
            return rule(*values[: len(primals)], *values[len(primals) + 1 :])

        (found,) = stated(lambda *values: (self.function(*values),), lambda *values: (change(*values),), primals)
        return found


def stated(
    function: Callable[..., Sequence[Value]], change: Callable[..., Sequence[Value]], primals: Sequence[Value]
) -> tuple[Tensor, ...]:
    """Results of a function as one node; `change` of (operands, results, their tangents) derives them."""
    trace = trace_of(primals)
    operands = [Tensor(trace, primal.value_in(trace)) for primal in primals]
    body, results = _region(trace, operands, function)
    second, changes = _region(trace, [*operands, *results, *operands], change)
    for result, changed in zip(results, changes, strict=True):
        if changed.shape != result.shape or changed.dtype != result.dtype:
            raise LanguageError(
                "DERIVATIVE_MISMATCH",
                "the stated derivative has another type than the function's result",
                site=here(),
                expected=described(result),
                found=described(changed),
            )
    return emit_all("stated", operands, {}, [body, second])


def _region(
    trace: Trace, like: Sequence[Tensor], function: Callable[..., Sequence[Value]]
) -> tuple[Region, list[Tensor]]:
    """A function of tensors like these as a region, and its results."""
    with trace.builder.region([operand.type for operand in like]) as block:
        for inside, operand in zip(block.args, like, strict=True):
            trace.note(inside, here(), operand.policy, trace.labels.get(operand.value, ""))
        results = function(*(Tensor(trace, value) for value in block.args))
        block.yields(*(value_of(trace, result) for result in results))
    return block.region, [Tensor(trace, value) for value in block.results]


class custom_vjp:  # noqa: N801  used as a decorator
    """A function of tensors to one tensor whose gradients the author states: `@f.defvjp`.

    The rule takes the arguments and the cotangent of the result, gives a gradient for each argument, None for zeros,
    and must be linear in the cotangent.
    """

    def __init__(self, function: Callable[..., Value]) -> None:
        self._forward = custom_jvp(function)
        self.rule: Callable[..., object] | None = None

    def defvjp(self, rule: Callable[..., object]) -> Callable[..., object]:
        """State the rule; its transpose is the change along tangents."""
        self.rule = rule
        self._forward.defjvp(lambda *both: _transposed((self._forward.function, rule), both))
        return rule

    def __call__(self, *primals: Value) -> Value:
        """The function, with the stated gradients."""
        return self._forward(*primals)


def _transposed(rules: tuple[Callable[..., Value], Callable[..., object]], both: tuple[Value, ...]) -> Value:
    """The change of the result along tangents: the transpose of the rule, which is linear in the cotangent."""
    function, rule = rules
    count = len(both) // 2
    primals, tangents = both[:count], both[count:]
    like = full_like(function(*primals), 0)

    def gradients(cotangent: Value) -> object:
        return _one_each(rule(*primals, cotangent), primals)

    inner = traced(gradients, (like,))
    if any(isinstance(n, GraphNode) and n.attributes.get("conditional") for n in inner.function.walk()):
        raise LanguageError(
            "LOOP_IN_DERIVATIVE_RULE",
            "a stated derivative has a loop that data end: it need not be linear",
            site=here(),
            expected="op.scan, whose number of iterations is known",
        )
    with author_place(inner.outer):
        _, transposer = transform.pullback(inner.outer.builder, inner.function, inner.primals, inner.inputs)
        given = zip(tangents, cast("tuple[Value | None, ...]", inner.result), strict=True)
        (found,) = transposer([t.value_in(inner.outer) for t, gradient in given if gradient is not None])
    return like if found is None else Tensor(inner.outer, inner.outer.note(found, here()))


def _one_each(gradients: object, primals: Sequence[Value]) -> tuple[Value | None, ...]:
    """What a rule gives as one gradient for each argument, by their places; None is a gradient of zeros."""
    found: tuple[object, ...] = (gradients,)
    if isinstance(gradients, tuple | list):
        found = tuple(cast("Sequence[object]", gradients))
    if isinstance(gradients, Mapping) or len(found) != len(primals):
        raise LanguageError(
            "DERIVATIVE_MISMATCH",
            "the stated derivative gives not one gradient for each argument",
            site=here(),
            expected=pictured(tuple(primals)),
            found=pictured(cast(object, gradients)),
            hint="None is the gradient of an argument that the result does not depend on",
        )
    for gradient, primal in zip(found, primals, strict=True):
        if not isinstance(gradient, Value) or not primal.dtype.is_float:
            continue
        if gradient.shape != primal.shape or gradient.dtype != primal.dtype:
            raise LanguageError(
                "DERIVATIVE_MISMATCH",
                "a stated gradient has another type than its argument",
                site=here(),
                expected=described(primal),
                found=described(gradient),
            )
    return cast("tuple[Value | None, ...]", found)
