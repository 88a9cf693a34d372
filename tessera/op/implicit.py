"""Answers that an equation defines: fixed points and roots, differentiated without unrolling the iteration.

Takes a function and a beginning; gives the answer. Invariant: derivatives come from the equation at the answer (the
implicit function theorem), at every order, and need no value of any iteration: their memory does not grow with the
number of these. An answer, or a solution that a derivative needs, that is not found ends the run with its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar, cast

from tessera.derive.custom import stated
from tessera.derive.inner import Inner, traced
from tessera.errors import LanguageError
from tessera.model.arguments import Inside, door
from tessera.model.filled import full_like
from tessera.model.numeric import boolean
from tessera.model.site import here
from tessera.model.tensor import Tensor, Value, emit
from tessera.op.control import while_
from tessera.op.creation import full
from tessera.op.equation import Equation, Krylov, is_count, is_tolerance, linear_change, linear_step
from tessera.op.unknowns import Unknowns
from tessera_build.ir.core.types import F32

T = TypeVar("T")
_ROUNDING = 4  # units in the last place by which an element may move on for ever


@door
def fixed_point(
    function: Callable[[T], T],
    initial: Annotated[T, Inside()],
    *,
    tol: float = 1e-6,
    max_iter: int = 100,
    linear: Krylov | None = None,
) -> T:
    """x with function(x) = x, from `initial` on, until no element moves by more than `tol` and rounding.

    It is an error of the run if that takes more than `max_iter` turns. The function may read any tensor around it.
    Derivatives solve t - F't = c, by elimination for few unknowns and by GMRES for many; `linear` chooses. The answer
    does not depend on `initial`, which is a tensor, or several unknowns in tuples, lists and dicts.
    """
    return _answered(function, initial, _Way("fixed_point", tol, max_iter, linear))


@door
def solve(
    residual: Callable[[T], T],
    initial: Annotated[T, Inside()],
    *,
    tol: float = 1e-6,
    max_iter: int = 30,
    linear: Krylov | None = None,
) -> T:
    """x with residual(x) = 0, by Newton's method, until no element moves by more than `tol` and rounding.

    There are as many equations as unknowns, nested alike. Each step, and each derivative, is a linear equation with the
    residual's slope: by elimination for few unknowns, without ever writing the slope down for many; `linear` chooses.
    An optimisation layer, argmin f, is `solve(graph.grad(f), x0, linear=op.Krylov(symmetric=True))`.
    """
    return _answered(residual, initial, _Way("solve", tol, max_iter, linear))


@door
def linear_solve(apply: Callable[[T], T], right: Annotated[T, Inside()], linear: Krylov | None = None) -> T:
    """x with apply(x) = right for a linear function, without its matrix: by GMRES, or as `linear` says."""
    unknowns = Unknowns(right, "linear_solve", "right")
    joined = unknowns.begin()
    inner = traced(unknowns.function(apply), (joined,))
    operands = [Tensor(inner.outer, primal) for primal in inner.primals]
    equation = Equation(inner)
    if not equation.linear():
        raise LanguageError(
            "NOT_LINEAR",
            "the function of linear_solve is not linear: its slope depends on where it is taken",
            site=here(),
            hint="op.solve(lambda x: apply(x) - right, x0) solves any equation",
        )
    beside = equation.value([full_like(joined, 0) if i == equation.place else x for i, x in enumerate(operands)])
    found, good = linear_step(equation.slope(operands), emit("sub", joined, beside), linear or Krylov())
    message = f"the linear equation of {_place('linear_solve')} is not solved"
    return unknowns.taken(emit("checked", found, good, message=message))


def _answered(function: Callable[[T], T], initial: T, way: _Way) -> T:
    """The answer of an equation, nested as the beginning of the search."""
    unknowns = Unknowns(initial, way.name, "initial")
    inner = traced(unknowns.function(function), (unknowns.begin(),))
    return unknowns.taken(_Answer(inner, way).found())


def _place(name: str) -> str:
    site = here()
    return f"op.{name} at {site}" if site is not None else f"op.{name}"


@dataclass(frozen=True, slots=True)
class _Way:
    """Which equation it is, and how it is solved."""

    name: str
    tol: float
    max_iter: int
    linear: Krylov | None

    def __post_init__(self) -> None:
        if not (is_tolerance(self.tol) and is_count(self.max_iter)):
            raise LanguageError(
                "BAD_ARGUMENT",
                f"{self.name} has no way to its end",
                site=here(),
                expected="tol above 0, max_iter of 1 or more",
                found=f"tol={self.tol!r}, max_iter={self.max_iter!r}"[:200],
            )

    @property
    def fixed(self) -> bool:
        """Whether the answer is a fixed point, and no root."""
        return self.name == "fixed_point"


class _Answer:
    """The answer of one equation: a node whose derivative the equation states."""

    def __init__(self, inner: Inner, way: _Way) -> None:
        self.inner = inner
        self.way = way
        self.equation = Equation(inner, less_identity=way.fixed)

    def found(self) -> Tensor:
        """The answer."""
        operands = [Tensor(self.inner.outer, primal) for primal in self.inner.primals]
        (answer,) = stated(self._answer, self._change, operands)
        return answer

    def _answer(self, *values: Value) -> Sequence[Value]:
        """The iteration, and a check that it came to its end."""

        def moving(state: object) -> Value:
            _, distance, _ = cast("tuple[Value, Value, Value]", state)
            return emit("gt", distance, self.way.tol)

        def step(state: object) -> object:
            x, _, _ = cast("tuple[Value, Value, Value]", state)
            following, good = self._following(values, x)
            return following, self._distance(following, x), good

        begin = values[self.equation.place]
        state = (begin, full((), math.inf, begin.dtype), full((), True, boolean))
        found = cast("tuple[Tensor, Tensor, Tensor]", while_(moving, step, state, max_iter=self.way.max_iter))
        answer, distance, good = found
        message = f"{_place(self.way.name)} has found no answer to {self.way.tol:g} within {self.way.max_iter} turns"
        return (emit("checked", answer, emit("and", emit("le", distance, self.way.tol), good), message=message),)

    def _following(self, values: Sequence[Value], x: Value) -> tuple[Value, Value]:
        """The next x, and whether it is what the method says."""
        at = [*values[: self.equation.place], x, *values[self.equation.place + 1 :]]
        found = self.equation.value(at)
        if self.way.fixed:
            return found, full((), True, boolean)
        step, good = linear_step(self.equation.slope(at), found, self.way.linear)
        return emit("sub", x, step), good

    def _distance(self, following: Value, x: Value) -> Value:
        """How far an element moves beyond rounding; NaN where one is NaN."""
        rounding = _ROUNDING * (2.0**-23 if x.dtype == F32 else 2.0**-52)
        moved = abs(following - x) - abs(following) * rounding
        return emit("reduce", moved, kind="max", axes=tuple(range(x.ndim)), keepdims=False) if x.ndim else moved

    def _change(self, *values: Value) -> Sequence[Value]:
        """The tangent of the answer: the linear equation that its change satisfies."""
        count, place = len(self.inner.primals), self.equation.place
        answer, tangents = values[count], values[count + 1 :]
        at = [*values[:place], answer, *values[place + 1 : count]]
        others = {i: t for i, t in enumerate(tangents) if i != place and t.dtype.is_float}
        outside = self.equation.change(at, others)
        right = outside if self.way.fixed else emit("neg", outside)
        message = f"the derivative of {_place(self.way.name)} is not solved"
        return (linear_change(self.equation.slope(at), right, self.way.linear, message),)
