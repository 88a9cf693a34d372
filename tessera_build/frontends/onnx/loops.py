"""The means by which operators build loops of the graph: Loop, Scan, recurrent layers.

Takes trip counts, initial values and bodies; gives final values and stacked slices. Invariant: what an iteration gives
back has the type that the next one finds, and what iterations stack is alike.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import unsupported
from tessera_build.ir.core.dims import Extent, symbol, symbols_of
from tessera_build.ir.core.types import BOOL, I64, Type, tensor


@dataclass(slots=True)
class LoopBody:
    """A loop under construction: the iteration number, and the carried values as an iteration finds them."""

    index: Extent
    carried: tuple[Tensor, ...]
    condition: Tensor | None = None
    results: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class Course:
    """How a loop runs: while `condition` holds before the first iteration, from the last index `downward`.

    `growing` gives, for a carried value, the axis and the extent by which each iteration makes it longer.
    """

    condition: Tensor | None = None
    downward: bool = False
    growing: Mapping[int, tuple[int, Extent]] = field(default_factory=dict[int, tuple[int, Extent]])

    def type_at(self, number: int, initial: Type, index: Extent) -> Type:
        """The type of a carried value as the iteration of this index finds it."""
        axis, added = self.growing.get(number, (-1, 0))
        return tensor(initial.dtype, *(e + added * index if i == axis else e for i, e in enumerate(initial.shape)))


ONCE_EACH = Course()


@contextmanager
def loop(c: Context, trips: Extent, initial: Sequence[Tensor], course: Course = ONCE_EACH) -> Generator[LoopBody]:
    """A loop of the graph. Inside the `with`, set `results` (carried values, then slices) and, where the body is to be
    asked before the next iteration, `condition`; behind it, `outputs` are the final values and the stacked slices.
    """
    name, condition, known = c.builder.fresh_index(), course.condition, set(c.sizes)
    types = [course.type_at(i, t.type, symbol(name)) for i, t in enumerate(initial)]
    starts = [c.value(t) for t in initial]  # before the region opens: they belong outside
    begin = c.value(condition if condition is not None else c.scalar(True, BOOL))
    high = max(0, trips - 1) if isinstance(trips, int) else None
    with c.region(types, {name: (0, high)}) as block:
        body = LoopBody(symbol(name), tuple(Tensor(t, v) for t, v in zip(types, block.args, strict=True)))
        yield body
        following = [course.type_at(i, t.type, symbol(name) + 1) for i, t in enumerate(initial)]
        _check_carried(following, body.results)
        _check_slices(body.results[len(initial) :], name, c.sizes.keys() - known)
        values = [c.value(t) for t in body.results]
        conditional = body.condition is not None or condition is not None
        again = body.condition if body.condition is not None else c.scalar(True, BOOL)
        block.yields(*([c.value(again)] if conditional else []), *values)
    scans = len(body.results) - len(initial)
    attributes = {"index": name, "trips": trips, "scans": scans, "conditional": conditional}
    operands = (*((begin,) if conditional else ()), *starts)
    results = c.builder.node("loop", operands, {**attributes, "downward": course.downward}, (block.region,))
    body.outputs = tuple(Tensor(c.builder.type(v), v) for v in results)


Step = Callable[[Extent, tuple[Tensor, ...]], tuple[Tensor, ...]]


def recurrence(
    c: Context, trips: Extent, initial: Sequence[Tensor], step: Step, *, downward: bool
) -> tuple[Tensor, ...]:
    """Final values and stacked slices of `step`, from the number of an iteration and carried values to new ones and
    slices; a single step needs no loop.
    """
    if trips == 1:
        results = step(0, tuple(initial))
        slices = (c.reshape(part, (1, *part.shape)) for part in results[len(initial) :])
        return (*results[: len(initial)], *slices)
    with loop(c, trips, initial, Course(downward=downward)) as body:
        body.results = step(body.index, body.carried)
    return body.outputs


def _check_carried(types: Sequence[Type], results: Sequence[Tensor]) -> None:
    for before, after in zip(types, results, strict=False):
        if before != after.type:
            raise unsupported(
                "the type of a carried value changes at run time, from one iteration to the next",
                found=f"{before}, {after.type}",
            )


def _check_slices(slices: Sequence[Tensor], index: str, inside: Collection[str]) -> None:
    """What iterations stack must be alike; an extent that each reads of its own data may differ."""
    for part in slices:
        if any(index in symbols_of(extent) for extent in part.shape):
            raise unsupported(
                "the shape of what a Loop stacks differs from one iteration to the next",
                found=str(part.type),
                hint="fix the dim that counts the iterations with `--dims`, or pad the slices in the model",
            )
        if any(name in inside for extent in part.shape for name in symbols_of(extent)):
            raise unsupported(
                "the shape of what a Loop stacks is read from data in each iteration", found=str(part.type)
            )


def element(c: Context, x: Tensor, axis: int, position: Extent) -> Tensor:
    """The part of a tensor at one position of an axis, without that axis."""
    starts = [position if i == axis else 0 for i in range(x.rank)]
    stops = [position + 1 if i == axis else e for i, e in enumerate(x.shape)]
    return c.reshape(c.slice(x, starts, stops), x.shape[:axis] + x.shape[axis + 1 :])


def reversed_along(c: Context, x: Tensor, axis: int) -> Tensor:
    """The tensor with one axis in the opposite order."""
    numbers = c.op("iota", shape=(x.shape[axis],), axis=0, dtype=I64)
    return c.op("gather", x, c.op("sub", c.number(x.shape[axis] - 1, I64), numbers), axis=axis)
