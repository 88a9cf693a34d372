"""Answers that an equation defines: fixed points, differentiated without unrolling the iteration.

Takes a function and a beginning; gives the answer. Invariant: derivatives come from the equation at the answer (the
implicit function theorem), so they need no value of any iteration: their memory does not grow with the number of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

from tessera.derive.custom import custom_vjp
from tessera.derive.derivatives import vjp
from tessera.errors import LanguageError
from tessera.model.filled import stop_gradient
from tessera.model.numeric import i64
from tessera.model.site import here
from tessera.model.tensor import Tensor, Value, described, emit
from tessera.op.control import while_
from tessera.op.creation import full


def fixed_point(
    function: Callable[[Value], Value], initial: Value, *, tol: float = 1e-6, max_iter: int = 100
) -> Tensor:
    """x with function(x) = x, from `initial` on, until no element moves by more than `tol`, or `max_iter` times.

    The function may read any tensor around it; gradients by these solve w = c + J^T w, where J is its derivative by x
    at the answer, by twice as many turns, which converge where those for x do.
    """
    found, turns = _iterated(function, initial, tol, max_iter)
    answer = stop_gradient(found)
    following = function(answer)
    if following.shape != answer.shape or following.dtype != answer.dtype:
        raise LanguageError(
            "CARRY_CHANGES_TYPE",
            "the function of fixed_point gives another type than it takes",
            site=here(),
            expected=described(answer),
            found=described(following),
        )
    solved = custom_vjp(_same, loops=True)

    def adjoint(_: Value, cotangent: Value) -> Value:
        _results, back = vjp(function, answer)
        return _repeated(lambda w: emit("add", cotangent, cast(Value, back(w))), cotangent, turns * 2, max_iter * 2)

    solved.defvjp(adjoint)
    # A difference of zero that changes as function(answer) does with everything that it reads.
    return emit("add", answer, solved(emit("sub", following, stop_gradient(following))))


def _same(change: Value) -> Value:
    return change


def _iterated(function: Callable[[Value], Value], initial: Value, tol: float, max_iter: int) -> tuple[Tensor, Tensor]:
    """The answer, and after how many turns nothing moved any more."""

    def moving(state: object) -> Value:
        _, distance, _ = cast("tuple[Value, Value, Value]", state)
        return emit("gt", distance, tol)

    def step(state: object) -> object:
        x, _, turns = cast("tuple[Value, Value, Value]", state)
        following = function(x)
        distance = emit("reduce", abs(following - x), kind="max", axes=tuple(range(x.ndim)), keepdims=False)
        return following, distance, turns + 1

    begin = emit("reshape", initial, shape=initial.shape)
    state = (begin, full((), math.inf, begin.dtype), full((), 0, i64))
    found = cast("tuple[Tensor, Tensor, Tensor]", while_(moving, step, state, max_iter=max_iter))
    return found[0], found[2]


def _repeated(function: Callable[[Value], Value], initial: Value, turns: Value, most: int) -> Tensor:
    """As many turns as the data told before. What they compute is linear, so they must not be counted by it: at a
    cotangent of zero, where derivatives of the derivative are taken, nothing would ever move."""

    def going(state: object) -> Value:
        _, count = cast("tuple[Value, Value]", state)
        return emit("lt", count, turns)

    def step(state: object) -> object:
        x, count = cast("tuple[Value, Value]", state)
        return function(x), count + 1

    begin = emit("reshape", initial, shape=initial.shape)
    return cast("tuple[Tensor, Tensor]", while_(going, step, (begin, full((), 0, i64)), max_iter=most))[0]
