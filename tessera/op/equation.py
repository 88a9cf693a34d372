"""A traced function of an unknown as an equation: its values, its slope as a linear map, and linear steps.

Takes a traced function and a point; gives tensors of the trace that grows. Invariant: a slope is a function that is
applied, and becomes a matrix only where there are few unknowns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from tessera.derive.batch import vmap
from tessera.derive.inner import Inner
from tessera.derive.place import author_place
from tessera.errors import LanguageError
from tessera.model.arguments import Place, truth
from tessera.model.filled import full_like
from tessera.model.site import here
from tessera.model.tensor import Tensor, Value, emit, emit_all, trace_of
from tessera.model.trace import Trace
from tessera.op.creation import eye
from tessera.op.linear import solve_linear
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.structure import captured
from tessera_build.ir.core.types import F32
from tessera_build.ir.graph.autodiff import transform
from tessera_build.ir.graph.autodiff.replay import Replay
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.ir.graph.ops.shapes import count

Map = Callable[[Value], Value]
_FEW = 32  # unknowns: a root and its gradient take 0.10 ms by elimination and 0.20 by GMRES; of 64, 0.54 and 0.29


def is_count(number: object) -> bool:
    """Whether something is an integer of 1 or more."""
    return type(number) is int and number >= 1


def is_tolerance(number: object) -> bool:
    """Whether something is a number above 0."""
    return isinstance(number, int | float) and number > 0


@dataclass(frozen=True, slots=True)
class Krylov:
    """A linear equation by an iteration that applies the map: GMRES, or conjugate gradients where the author says
    that the map is symmetric and positive definite.

    Solved is what leaves at most `tol` of the right side's norm (by default 1e-5 in f32, 1e-10 in f64), within
    `max_iter` applications; GMRES keeps `restart` directions.
    """

    symmetric: bool = False
    tol: float | None = None
    max_iter: int = 1000
    restart: int = 30

    def __post_init__(self) -> None:
        truth(self.symmetric, Place("op.Krylov", "symmetric"))
        known = self.tol is None or is_tolerance(self.tol)
        if not (known and is_count(self.max_iter) and is_count(self.restart)):
            raise LanguageError(
                "BAD_ARGUMENT",
                "an iteration has no end",
                site=here(),
                expected="tol above 0, max_iter and restart of 1 or more",
                found=f"tol={self.tol!r}, max_iter={self.max_iter!r}, restart={self.restart!r}"[:200],
            )


def linear_step(apply: Map, right: Value, how: Krylov | None) -> tuple[Tensor, Tensor]:
    """x with apply(x) = right and whether it is one; without `how`, by elimination where the unknowns are few."""
    few = _few(right) if how is None else None
    if few is None:
        return _iterated(apply, right, how or Krylov())
    found = _eliminated(_matrix(apply, right, few), right)
    return found, _finite(found)


def linear_change(apply: Map, right: Value, how: Krylov | None, message: str) -> Tensor:
    """As `linear_step`, for a derivative: the run ends with the message where there is no answer, in both modes.

    What is eliminated is transposed with its matrix, whose check stays; an iteration has one for each mode of its own.
    """
    few = _few(right) if how is None else None
    if few is None:
        found, good = _iterated(apply, right, how or Krylov())
        return emit("checked", found, good, message=message)
    matrix = _matrix(apply, right, few)
    regular = _finite(_eliminated(matrix, full_like(right, 1)))
    found = _eliminated(emit("checked", matrix, regular, message=message), right)
    return emit("checked", found, _finite(found), message=message)


def _few(right: Value) -> int | None:
    """The number of unknowns, where it is known and small."""
    unknowns = count(right.shape)
    return unknowns if isinstance(unknowns, int) and 0 < unknowns <= _FEW else None


def _iterated(apply: Map, right: Value, how: Krylov) -> tuple[Tensor, Tensor]:
    """By an op that applies the map as often as it must."""
    trace = trace_of((right,))
    operand = Tensor(trace, right.value_in(trace))
    with trace.builder.region([operand.type]) as block:
        inside = Tensor(trace, trace.note(block.args[0], here()))
        block.yields(apply(inside).value_in(trace))
    tolerance = how.tol or (1e-5 if right.dtype == F32 else 1e-10)
    attributes = {"kind": "cg" if how.symmetric else "gmres", "tolerance": tolerance}
    limits = {"limit": how.max_iter, "restart": how.restart}
    x, good = emit_all("linear_solve", (operand,), {**attributes, **limits}, [block.region])
    return x, good


def _matrix(apply: Map, right: Value, unknowns: int) -> Tensor:
    """The matrix of a map as a batch of one: its columns are what the map makes of unit vectors."""

    def column(unit: Value) -> object:
        return emit("reshape", apply(emit("reshape", unit, shape=right.shape)), shape=(unknowns,))

    columns = cast(Value, vmap(column)(eye(unknowns, right.dtype)))
    return emit("reshape", emit("transpose", columns, perm=(1, 0)), shape=(1, unknowns, unknowns))


def _eliminated(matrix: Value, right: Value) -> Tensor:
    """By elimination; a pivot of zero leaves an element that is not finite."""
    found = solve_linear(matrix, emit("reshape", right, shape=(1, matrix.shape[1], 1)))
    return emit("reshape", found, shape=right.shape)


def _finite(found: Value) -> Tensor:
    """Whether all elements are."""
    sizes = abs(found)
    size = emit("reduce", sizes, kind="max", axes=tuple(range(found.ndim)), keepdims=False) if found.ndim else sizes
    return emit("lt", size, float("inf"))


class Equation:
    """A traced function of the unknown, its argument at `place`, and of everything else that it reads.

    `less_identity`: the map is t - F't, of the equation x = F(x), and not F't.
    """

    def __init__(self, inner: Inner, *, less_identity: bool = False) -> None:
        self.inner = inner
        self.place = inner.function.args.index(inner.inputs[0])
        self.less_identity = less_identity

    def value(self, at: Sequence[Value]) -> Tensor:
        """The function at a point, written once more."""
        trace, function = trace_of(at), self.inner.function
        given = {arg: v.value_in(trace) for arg, v in zip(function.args, at, strict=True)}
        again = Replay(trace.builder, given, function.types.__getitem__, function.locations.get)
        again.nodes(function.nodes)
        (result,) = function.results
        return Tensor(trace, trace.note(again.values.get(result, result), here()))

    def linear(self) -> bool:
        """Whether the slope is the same everywhere, as far as the ops tell."""
        made, result, _ = self._pushed(self.inner.outer)
        if result is None:
            return True
        unknown, read = made.args[self.place], {result}
        moving = {v for node in _apart(made, unknown)[1] for v in node.outputs} | {unknown}
        for node in reversed(made.nodes):
            assert isinstance(node, GraphNode)
            if read.intersection(node.outputs):
                read.update((*node.inputs, *captured(node.regions)))
        return moving.isdisjoint(read)

    def _pushed(self, trace: Trace) -> tuple[Function, int | None, int]:
        """The change along the unknown as a function of all arguments and of the tangent, its last argument."""
        function = self.inner.function
        apart = GraphBuilder("slope", trace.builder.dims, trace.builder.pool)
        args = [apart.input(f"argument{i}", function.types[arg]) for i, arg in enumerate(function.args)]
        tangent = apart.input("tangent", function.types[function.args[self.place]])
        changes = [tangent if i == self.place else None for i in range(len(args))]
        with author_place(trace, "the equation"):
            _, (result,) = transform.pushforward(apart, function, args, changes)
        return apart.function(), result, tangent

    def change(self, at: Sequence[Value], tangents: Mapping[int, Value]) -> Tensor:
        """The function's change at a point along tangents of some of its arguments."""
        trace, function = trace_of(at), self.inner.function
        primals = [value.value_in(trace) for value in at]
        changes = [tangents[i].value_in(trace) if i in tangents else None for i in range(len(primals))]
        with author_place(trace, "the equation"):
            _, (found,) = transform.pushforward(trace.builder, function, primals, changes)
        return full_like(at[self.place], 0) if found is None else Tensor(trace, trace.note(found, here()))

    def slope(self, at: Sequence[Value]) -> Map:
        """The map of the linear equation at a point; what does not depend on its argument is computed now.

        Inside of a loop it would be computed in every turn.
        """
        trace = trace_of(at)
        made, result, tangent = self._pushed(trace)
        early, late = _apart(made, tangent)
        known = dict(zip(made.args, (value.value_in(trace) for value in at), strict=False))
        Replay(trace.builder, known, made.types.__getitem__, made.locations.get).nodes(early)
        read = {v for node in late for v in (*node.inputs, *captured(node.regions))}

        def along(t: Value) -> Tensor:
            if result is None:
                return full_like(t, 0)
            inside = trace_of((t,))
            values = {v: Tensor(trace, k).value_in(inside) for v, k in known.items() if v in read}
            values[tangent] = t.value_in(inside)
            Replay(inside.builder, values, made.types.__getitem__, made.locations.get).nodes(late)
            return Tensor(inside, inside.note(values[result], here()))

        return (lambda t: emit("sub", t, along(t))) if self.less_identity else along


def _apart(function: Function, tangent: int) -> tuple[list[GraphNode], list[GraphNode]]:
    """The nodes that do not depend on a value, and those that do."""
    reached, early, late = {tangent}, list[GraphNode](), list[GraphNode]()
    for node in function.nodes:
        assert isinstance(node, GraphNode)
        depends = not reached.isdisjoint((*node.inputs, *captured(node.regions)))
        reached.update(node.outputs if depends else ())
        (late if depends else early).append(node)
    return early, late
