"""Control flow that data decide: choices, loops, scans, fixed points.

Takes Python functions, which are traced into regions, and tensors; gives tensors. Invariant: what is carried keeps its
type from one iteration to the next, and a loop that is to be differentiated has a largest number of iterations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, cast

from tessera.errors import LanguageError
from tessera.model.arguments import Inside, door
from tessera.model.expect import expect_functions, matched
from tessera.model.numeric import NO_POLICY
from tessera.model.site import here
from tessera.model.tensor import Tensor, Value, described, emit, emit_all, lift, trace_of
from tessera.model.trace import Trace
from tessera.model.tree import leaves, rebuild
from tessera.op.axes import expect_size
from tessera_build.ir.core.dims import Dim, Extent, symbol
from tessera_build.ir.core.node import Region
from tessera_build.ir.core.types import BOOL, F32
from tessera_build.ir.graph.nodes import Attribute

_UNLIMITED = 2**31 - 1


@door
def cond(
    predicate: Annotated[Value, Inside()],
    then: Callable[..., object],
    otherwise: Callable[..., object],
    *operands: object,
) -> object:
    """What `then` gives of the operands where the scalar predicate holds, else what `otherwise` gives."""
    trace = trace_of((predicate,))
    _scalar_condition(predicate, "cond")
    expect_functions("cond", "lambda: x", then, otherwise)
    regions: list[Region] = []
    trees: list[object] = []
    for branch in (then, otherwise):
        with trace.builder.region() as block:
            trees.append(branch(*operands))
            found = matched(
                trees[0], trees[-1], "BRANCHES_DIFFER", "the branches of cond nest their results differently"
            )
            block.yields(*(_lifted(trace, leaf) for leaf in found))
        regions.append(block.region)
    types = [[trace.builder.type(v) for v in region.results] for region in regions]
    if types[0] != types[1]:
        raise LanguageError(
            "BRANCHES_DIFFER",
            "the branches of cond give other types",
            site=here(),
            expected=", ".join(map(str, types[0])),
            found=", ".join(map(str, types[1])),
        )
    results = emit_all("if", (predicate,), {}, regions)
    return rebuild(trees[0], results)


@door
def while_(
    condition: Callable[[object], Value],
    body: Callable[[object], object],
    initial: object,
    *,
    max_iter: Annotated[int | None, Inside()] = None,
) -> object:
    """Apply `body` to what is carried while `condition` of it holds, at most `max_iter` times."""
    expect_functions("while_", "lambda x: ...", condition, body)
    _count(max_iter, "max_iter of while_")
    trace, carried = _carried(initial)
    first = condition(rebuild(initial, carried))
    _scalar_condition(first, "while_")
    loop = _Loop(trace, _UNLIMITED if max_iter is None else max_iter)

    def turn(arguments: Sequence[Tensor]) -> _Turn:
        following = body(rebuild(initial, arguments))
        results = _same(trace, following, rebuild(initial, carried), "while_")
        again = condition(rebuild(initial, [Tensor(trace, v) for v in results]))
        _scalar_condition(again, "while_")
        return _Turn([_lifted(trace, again)], results)

    found, _ = loop.emit((first,), carried, turn, conditional=True)
    return rebuild(initial, found)


@door
def scan(
    body: Callable[[object, object], tuple[object, object]],
    initial: object,
    xs: object = None,
    *,
    length: Annotated[Extent | None, Inside()] = None,
    reverse: bool = False,
) -> tuple[object, object]:
    """Apply `body(carried, x) -> (carried, y)` to every slice of `xs` along axis 0.

    Gives what is carried last, and all ys.
    """
    expect_functions("scan", "lambda carried, x: (carried, y)", body)
    _count(length, "length of scan")
    trace, carried = _carried(initial)
    inputs = [_tensor(trace, leaf) for _, leaf in leaves(xs)]
    loop = _Loop(trace, expect_size(trace, _trips(inputs, length)))

    def turn(arguments: Sequence[Tensor]) -> _Turn:
        slices = [_slice(x, loop.position) for x in inputs]
        following, made = _pair(body(rebuild(initial, arguments), rebuild(xs, slices)))
        results = _same(trace, following, rebuild(initial, carried), "scan")
        return _Turn([], results, [_lifted(trace, leaf) for _, leaf in leaves(made)], made)

    found, last = loop.emit((), carried, turn, downward=reverse)
    return rebuild(initial, found[: len(carried)]), rebuild(last.made, found[len(carried) :])


@dataclass(frozen=True, slots=True)
class _Turn:
    """What one iteration gives: conditions, what is carried on, what is stacked, and how that is nested."""

    conditions: Sequence[int]
    carried: Sequence[int]
    stacked: Sequence[int] = ()
    made: object = None


class _Loop:
    """The node of one loop under construction."""

    def __init__(self, trace: Trace, trips: Extent) -> None:
        self.trace = trace
        self.trips = trips
        self.index = trace.builder.fresh_index()
        self.position = symbol(self.index)
        self.last = trips - 1 if isinstance(trips, int) else None

    def emit(
        self,
        conditions: Sequence[Value],
        carried: Sequence[Tensor],
        turn: Callable[[Sequence[Tensor]], _Turn],
        **how: Attribute,
    ) -> tuple[tuple[Tensor, ...], _Turn]:
        """The loop's results, and what a turn gives. What is carried is under every policy that comes with its
        beginning or with a turn: the turn is traced again until these are known.
        """
        trace, policies = self.trace, [x.policy for x in carried]
        while True:
            with trace.builder.region([x.type for x in carried], {self.index: (0, self.last)}) as block:
                rows = zip(block.args, policies, strict=True)
                given = turn([Tensor(trace, trace.note(value, here(), policy)) for value, policy in rows])
                block.yields(*given.conditions, *given.carried, *given.stacked)
            after = [trace.policies.get(value, NO_POLICY) for value in given.carried]
            grown = [one.joined(policy) for one, policy in zip(after, policies, strict=True)]
            if grown == policies:
                break
            policies = grown
        how = {"index": self.index, "trips": self.trips, "scans": len(given.stacked), **how}
        found = emit_all("loop", (*conditions, *carried), how, [block.region])
        for result, policy in zip(found, policies, strict=False):
            trace.policies[result.value] = policy
        return found, given


def _carried(initial: object) -> tuple[Trace, list[Tensor]]:
    found = [leaf for _, leaf in leaves(initial)]
    trace = trace_of(found)
    return trace, [_tensor(trace, leaf) for leaf in found]


def _tensor(trace: Trace, leaf: object) -> Tensor:
    return Tensor(trace, _lifted(trace, leaf))


def _lifted(trace: Trace, leaf: object) -> int:
    """A leaf as a value; a Python number is f32, so that loops need no conversions around them."""
    return lift(trace, leaf, BOOL if isinstance(leaf, bool) else F32, here())


def _same(trace: Trace, following: object, carried: object, name: str) -> list[int]:
    """What the next iteration gets, which must be nested as what this one has, and of its types."""
    message = f"what {name} carries is nested differently from one iteration to the next"
    found = matched(carried, following, "CARRY_CHANGES_TYPE", message)
    values = [_lifted(trace, leaf) for leaf in found]
    now = [x for _, x in leaves(carried) if isinstance(x, Tensor)]
    types = [trace.builder.type(value) for value in values]
    if types != [x.type for x in now]:
        raise LanguageError(
            "CARRY_CHANGES_TYPE",
            f"what {name} carries changes its type from one iteration to the next",
            site=here(),
            expected=", ".join(described(x) for x in now),
            found=", ".join(str(t) for t in types),
        )
    return values


def _count(number: object, name: str) -> None:
    """Refuse a number of iterations that is none."""
    if number is None or isinstance(number, Dim) or (type(number) is int and number >= 0):
        return
    raise LanguageError(
        "BAD_ARGUMENT",
        f"{name} is no number of iterations",
        site=here(),
        expected="0 or more",
        found=repr(number)[:200],
    )


def _pair(result: object) -> tuple[object, object]:
    """What the body of a scan gives."""
    parts = cast("tuple[object, ...]", result) if isinstance(result, tuple) else ()
    if len(parts) != 2:
        raise LanguageError(
            "BAD_ARGUMENT",
            "the body of scan gives no pair",
            site=here(),
            expected="(what is carried on, what is stacked), None for nothing",
            found=described(result) if isinstance(result, Value) else repr(parts or None)[:200],
        )
    return parts[0], parts[1]


def _scalar_condition(condition: Value, name: str) -> None:
    if not isinstance(condition, Value):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise LanguageError(
            "BAD_CONDITION",
            f"the condition of {name} is no tensor",
            site=here(),
            expected="bool[]",
            found=repr(condition)[:200],
            hint="what Python knows while the model is traced, Python's if decides",
        )
    if condition.shape != () or condition.dtype != BOOL:
        raise LanguageError(
            "BAD_CONDITION",
            f"the condition of {name} is no truth value",
            site=here(),
            expected="bool[]",
            found=described(condition),
            hint="op.where chooses element by element",
        )


def _trips(inputs: Sequence[Tensor], length: Extent | None) -> Extent:
    extents = [x.shape[0] if x.shape else None for x in inputs]
    if length is not None:
        extents.append(length)
    if not extents or None in extents or any(extent != extents[0] for extent in extents):
        raise LanguageError(
            "BAD_ARGUMENT",
            "scan does not know how often to run",
            site=here(),
            expected="tensors with one first extent, or length=...",
            found=", ".join(described(x) for x in inputs) or "nothing to scan",
        )
    return cast(Extent, extents[0])


def _slice(x: Tensor, position: Extent) -> Tensor:
    """x[position]: the index of a loop is inside of its axis by construction."""
    starts = (position, *(0,) * (x.ndim - 1))
    part = emit("slice", x, starts=starts, stops=(position + 1, *x.shape[1:]), steps=(1,) * x.ndim)
    return emit("reshape", part, shape=x.shape[1:])
