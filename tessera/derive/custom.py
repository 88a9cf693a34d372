"""Functions whose derivatives the author states.

Takes a function of tensors and a rule; gives a function that computes the first and is differentiated by the second.
Invariant: a stated derivative replaces the derived one everywhere, it is applied as it stands, and it can be
differentiated again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar, cast

import numpy as np

from tessera.derive.inner import value_of
from tessera.errors import LanguageError
from tessera.model.expect import expect_functions
from tessera.model.filled import full_like
from tessera.model.site import here
from tessera.model.tensor import Operand, Tensor, Value, described, emit_all, lift, trace_of
from tessera.model.trace import Trace
from tessera.model.tree import pictured
from tessera_build.ir.core.dims import Dim
from tessera_build.ir.core.node import Region

Results = Sequence[Value]
Rule = TypeVar("Rule", bound=Callable[..., object])


class custom_jvp:  # noqa: N801  used as a decorator
    """A function of tensors to one tensor whose change along tangents the author states: `@f.defjvp`.

    The rule takes the arguments, then the tangent of each tensor among them, and gives the change of the result. It is
    applied as it is; gradients are its transpose, and are refused where it is not linear in the tangents. Arguments
    that are Python numbers are constants, and so is what is passed by keyword, to the function and to the rule.
    """

    def __init__(self, function: Callable[..., Value]) -> None:
        expect_functions("graph.custom_jvp", "@graph.custom_jvp above a function", function)
        self.function = function
        self.rule: Callable[..., Value] | None = None

    def defjvp(self, rule: Callable[..., Value]) -> Callable[..., Value]:
        """State the rule."""
        self.rule = rule
        return rule

    def __call__(self, *primals: object, **named: object) -> Value:
        """The function as one node, with the rule beside it."""
        rule = _needed(self.rule)
        given = _Arguments(primals)

        def change(*values: Value) -> Results:
            return (rule(*given.around(values), *values[len(given.tensors) + 1 :], **named),)

        (found,) = stated(lambda *values: (self.function(*given.around(values), **named),), change, given.tensors)
        return found


class custom_vjp:  # noqa: N801  used as a decorator
    """A function of tensors to one tensor whose gradients the author states: `@f.defvjp`.

    The rule takes the arguments and the cotangent of the result, and gives a gradient for each tensor among the
    arguments, in order, None where it has none. It is applied to the cotangent as it is, so that it may clip it;
    tangents are its transpose, and are refused where it is not linear in the cotangent. Arguments that are Python
    numbers are constants, and so is what is passed by keyword, to the function and to the rule.
    """

    def __init__(self, function: Callable[..., Value]) -> None:
        expect_functions("graph.custom_vjp", "@graph.custom_vjp above a function", function)
        self.function = function
        self.rule: Callable[..., object] | None = None

    def defvjp(self, rule: Callable[..., object]) -> Callable[..., object]:
        """State the rule."""
        self.rule = rule
        return rule

    def __call__(self, *primals: object, **named: object) -> Value:
        """The function as one node, with the rule beside it."""
        rule = _needed(self.rule)
        given = _Arguments(primals)

        def value(*values: Value) -> Results:
            return (self.function(*given.around(values), **named),)

        def gradients(*values: Value) -> Results:
            return _gradients(rule(*given.around(values), values[-1], **named), values[: len(given.tensors)])

        (found,) = stated(value, gradients, given.tensors, rule="cotangents")
        return found


def _needed(rule: Rule | None) -> Rule:
    if rule is None:
        raise LanguageError(
            "NO_DERIVATIVE_RULE",
            "a function with a derivative of its own has none",
            site=here(),
            expected="@f.defjvp or @f.defvjp above its rule",
        )
    return rule


class _Arguments:
    """The arguments of one call: tensors, which are differentiated by, and numbers, which stay what they are."""

    def __init__(self, primals: Sequence[object]) -> None:
        trace, site = trace_of(primals), here()
        self.primals = primals
        self.numbers = [isinstance(primal, int | float | Dim) for primal in primals]
        self.tensors: list[Tensor] = []
        for primal, number in zip(primals, self.numbers, strict=True):
            if number:
                continue
            if not isinstance(primal, Value | np.ndarray | np.generic):
                raise LanguageError(
                    "BAD_ARGUMENT",
                    "a function with a derivative of its own takes tensors and numbers",
                    site=site,
                    expected="tensors, each an argument of its own, and Python numbers",
                    found=repr(primal)[:200],
                    hint="what the function only reads may also stand around it",
                )
            self.tensors.append(Tensor(trace, lift(trace, cast(Operand, primal), None, site)))

    def around(self, values: Sequence[Value]) -> list[object]:
        """The arguments with these tensors."""
        rest = iter(values)
        return [primal if number else next(rest) for primal, number in zip(self.primals, self.numbers, strict=True)]


def _gradients(given: object, operands: Sequence[Value]) -> Results:
    """What a rule of cotangents gives, as a tensor for each operand that is floating-point."""
    parts = cast("Sequence[object]", given) if isinstance(given, tuple | list) else (given,)
    if isinstance(given, Mapping) or len(parts) != len(operands):
        raise LanguageError(
            "DERIVATIVE_MISMATCH",
            "the stated derivative gives not one gradient for each tensor among the arguments",
            site=here(),
            expected=pictured(tuple(operands)),
            found=pictured(cast("object", given)),
            hint="None is the gradient of an argument that the result does not depend on; Python numbers have none",
        )
    message = "a stated gradient has another type than its argument"
    found: list[Value] = []
    for part, operand in zip(parts, operands, strict=True):
        if operand.dtype.is_float:
            found.append(full_like(operand, 0) if part is None else _checked(part, operand, message))
    return found


def _checked(found: object, like: Value, message: str) -> Value:
    """A derivative, which has the type of what it belongs to."""
    if isinstance(found, Value) and (found.shape, found.dtype) == (like.shape, like.dtype):
        return found
    raise LanguageError(
        "DERIVATIVE_MISMATCH",
        message,
        site=here(),
        expected=described(like),
        found=described(found) if isinstance(found, Value) else repr(found)[:200],
    )


def stated(
    function: Callable[..., Results],
    derivative: Callable[..., Results],
    primals: Sequence[Value],
    *,
    rule: str = "tangents",
) -> tuple[Tensor, ...]:
    """Results of a function as one node. `derivative` gives the change of the results, of (operands, results, tangents
    of the operands); by the rule of "cotangents", gradients of (operands, results, cotangents of the results)."""
    trace = trace_of(primals)
    operands = [Tensor(trace, primal.value_in(trace)) for primal in primals]
    body, results = _region(trace, operands, function)
    taken = results if rule == "cotangents" else operands
    second, changes = _region(trace, [*operands, *results, *taken], derivative)
    if rule == "tangents":
        for result, changed in zip(results, changes, strict=True):
            _checked(changed, result, "the stated derivative has another type than the function's result")
    return emit_all("stated", operands, {"rule": rule}, [body, second])


def _region(trace: Trace, like: Sequence[Tensor], function: Callable[..., Results]) -> tuple[Region, list[Tensor]]:
    """A function of tensors like these as a region, and its results."""
    with trace.builder.region([operand.type for operand in like]) as block:
        for inside, operand in zip(block.args, like, strict=True):
            trace.note(inside, here(), operand.policy, trace.labels.get(operand.value, ""))
        results = function(*(Tensor(trace, value) for value in block.args))
        block.yields(*(value_of(trace, result) for result in results))
    return block.region, [Tensor(trace, value) for value in block.results]
