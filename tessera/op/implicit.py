"""Answers that an equation defines: fixed points and roots, differentiated without unrolling the iteration.

Takes a function and a beginning; gives the answer. Invariant: derivatives come from the equation at the answer (the
implicit function theorem), at every order, and need no value of any iteration: their memory does not grow with the
number of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from tessera.derive.batch import vmap
from tessera.derive.custom import stated
from tessera.derive.derivatives import author_place, forward
from tessera.derive.inner import Inner, traced
from tessera.errors import LanguageError
from tessera.model.filled import full_like
from tessera.model.numeric import i64
from tessera.model.site import here
from tessera.model.tensor import Tensor, Value, described, emit
from tessera.op.control import while_
from tessera.op.creation import eye, full
from tessera.op.linear import solve_linear
from tessera_build.ir.core.node import Node
from tessera_build.ir.graph.autodiff import transform
from tessera_build.ir.graph.autodiff.replay import Replay
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.ir.graph.regions import captured


def fixed_point(
    function: Callable[[Value], Value], initial: Value, *, tol: float = 1e-6, max_iter: int = 100
) -> Tensor:
    """x with function(x) = x, from `initial` on, until no element moves by more than `tol`, or `max_iter` times.

    The function may read any tensor around it. Derivatives by these solve t = F't + c by twice as many turns, which
    converge where those for x do; the answer does not depend on `initial`.
    """
    inner = traced(function, (initial,))
    (value,) = inner.function.results
    (begin,) = inner.inputs
    if inner.function.types[value] != inner.function.types[begin]:
        raise LanguageError(
            "CARRY_CHANGES_TYPE",
            "the function of fixed_point gives another type than it takes",
            site=here(),
            expected=described(initial),
            found=str(inner.function.types[value]),
        )
    operands = [Tensor(inner.outer, primal) for primal in inner.primals]
    place = inner.function.args.index(begin)
    solver = _Solver(inner, place, tol, max_iter)
    return stated(solver.answer, solver.change, operands)[0]


def solve(residual: Callable[[Value], Value], initial: Value, *, tol: float = 1e-6, max_iter: int = 30) -> Tensor:
    """x with residual(x) = 0 for a vector x, by Newton's method; with as many equations as unknowns.

    An optimisation layer, argmin f, is `solve(graph.grad(f), x0)`.
    """
    if initial.ndim != 1:
        raise LanguageError(
            "TYPE_MISMATCH", "solve takes a vector", site=here(), expected="[n]", found=described(initial)
        )

    def newton(x: Value) -> Value:

        def row(direction: Value) -> object:
            return forward(residual, (x,), tangents=(direction,))[1]

        rows = vmap(row)(eye(x.shape[0], x.dtype))
        slopes = emit("transpose", cast(Value, rows), perm=(1, 0))
        wanted = emit("reshape", residual(x), shape=(1, x.shape[0], 1))
        step = solve_linear(emit("reshape", slopes, shape=(1, *slopes.shape)), wanted)
        return emit("sub", x, emit("reshape", step, shape=x.shape))

    return fixed_point(newton, initial, tol=tol, max_iter=max_iter)


class _Solver:
    """A traced function of the unknown (its argument at `place`) and of everything else that it reads."""

    def __init__(self, inner: Inner, place: int, tol: float, max_iter: int) -> None:
        self.inner = inner
        self.place = place
        self.tol = tol
        self.max_iter = max_iter

    def answer(self, *values: Value) -> Sequence[Value]:
        """The fixed point, and after how many turns nothing moved any more."""

        def moving(state: object) -> Value:
            _, distance, _ = cast("tuple[Value, Value, Value]", state)
            return emit("gt", distance, self.tol)

        def step(state: object) -> object:
            x, _, turns = cast("tuple[Value, Value, Value]", state)
            following = self._applied(values, x)
            distance = emit("reduce", abs(following - x), kind="max", axes=tuple(range(x.ndim)), keepdims=False)
            return following, distance, turns + 1

        begin = values[self.place]
        state = (begin, full((), math.inf, begin.dtype), full((), 0, i64))
        found = cast("tuple[Tensor, Tensor, Tensor]", while_(moving, step, state, max_iter=self.max_iter))
        return found[0], found[2]

    def change(self, *values: Value) -> Sequence[Value]:
        """t with t = F_x t + F_theta dtheta at the answer, by as many turns as data told before.

        It is linear in the tangents, so its turns must not be counted by them: where they are zero, nothing moves.
        """
        count = len(self.inner.primals)
        theta, (answer, turns), tangents = values[:count], values[count : count + 2], values[count + 2 :]
        others = {i: t for i, t in enumerate(tangents) if i != self.place and t.dtype.is_float}
        outside = self._pushed((*theta, answer), others)
        slope = self._slope((*theta, answer))

        def going(state: object) -> Value:
            _, done = cast("tuple[Value, Value]", state)
            return emit("lt", done, turns * 2)

        def step(state: object) -> object:
            t, done = cast("tuple[Value, Value]", state)
            return emit("add", outside, slope(t)), done + 1

        start = (outside, full((), 0, i64))
        found = cast("tuple[Tensor, Tensor]", while_(going, step, start, max_iter=2 * self.max_iter))
        return found[0], turns

    def _applied(self, values: Sequence[Value], x: Value) -> Tensor:
        """The function at x, written once more."""
        trace, function = self.inner.outer, self.inner.function
        given = {arg: v.value_in(trace) for arg, v in zip(function.args, values, strict=True)}
        given[function.args[self.place]] = x.value_in(trace)
        again = Replay(trace.builder, given, function.types.__getitem__, function.locations.get)
        again.nodes(function.nodes)
        (result,) = function.results
        return Tensor(trace, trace.note(again.values.get(result, result), here()))

    def _pushed(self, at: Sequence[Value], tangents: Mapping[int, Value]) -> Tensor:
        """The function's change at the answer, the last of `at`, along tangents of some of its arguments."""
        trace, function = self.inner.outer, self.inner.function
        primals = self._primals(at)
        changes = [tangents[i].value_in(trace) if i in tangents else None for i in range(len(primals))]
        with author_place(trace):
            _, (found,) = transform.pushforward(trace.builder, function, primals, changes)
        return full_like(at[-1], 0) if found is None else Tensor(trace, trace.note(found, here()))

    def _slope(self, at: Sequence[Value]) -> Callable[[Value], Tensor]:
        """The change along the unknown as a linear function; what does not depend on its argument is computed now.

        Inside of a loop it would be computed, and kept for the way back, in every turn.
        """
        trace, function = self.inner.outer, self.inner.function
        apart = GraphBuilder("slope", trace.builder.dims, trace.builder.pool)
        args = [apart.input(f"argument{i}", function.types[arg]) for i, arg in enumerate(function.args)]
        tangent = apart.input("tangent", function.types[function.args[self.place]])
        changes = [tangent if i == self.place else None for i in range(len(args))]
        with author_place(trace):
            _, (result,) = transform.pushforward(apart, function, args, changes)
        made = apart.function()
        reached, early, late = {tangent}, list[Node](), list[Node]()
        for node in made.nodes:
            assert isinstance(node, GraphNode)
            depends = not reached.isdisjoint((*node.inputs, *captured(node.regions)))
            reached.update(node.outputs if depends else ())
            (late if depends else early).append(node)
        known = dict(zip(args, self._primals(at), strict=True))
        Replay(trace.builder, known, made.types.__getitem__, made.locations.get).nodes(early)

        def along(t: Value) -> Tensor:
            if result is None:
                return full_like(t, 0)
            values = {**known, tangent: t.value_in(trace)}
            Replay(trace.builder, values, made.types.__getitem__, made.locations.get).nodes(late)
            return Tensor(trace, trace.note(values[result], here()))

        return along

    def _primals(self, at: Sequence[Value]) -> list[int]:
        """Values of the function's arguments, the unknown at the answer, which is the last of `at`."""
        primals = [value.value_in(self.inner.outer) for value in at[:-1]]
        primals[self.place] = at[-1].value_in(self.inner.outer)
        return primals
