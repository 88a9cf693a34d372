"""Neighbouring axes that a pointwise task moves together, as one: rows of a small image become one long row.

Takes a task that exchanges axes and the layouts of its buffers; gives the task over fewer axes. Invariant: every
element is read and written where it was, because buffers are dense and the pair lies side by side in each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tessera_build.ir.core.dims import Extent, substitute, symbol, symbols_of
from tessera_build.ir.core.types import Type
from tessera_build.ir.schedule.nodes import Access, Compute
from tessera_build.lower.graph_to_schedule.defining import axes_of
from tessera_build.lower.graph_to_schedule.tasks import Task
from tessera_build.lower.schedule_to_tile.layouts import BufferLayout
from tessera_build.space.crossing import crossed_axis


def with_merged_axes(task: Task, layouts: Mapping[int, BufferLayout]) -> Task:
    """The task over the fewest axes, if it exchanges two; else the task itself."""
    nodes = [n for n in task.function.nodes if isinstance(n, Compute)]
    dense = all(layouts[v].dense for v in (*task.inputs, *task.outputs))
    if not dense or crossed_axis(nodes, axes_of(task.domain)) is None:
        return task
    if any(task.function.types[n.result].shape != task.domain for n in nodes):
        return task
    first = 0
    while first + 1 < len(task.domain):
        joined = _joined(task, nodes, first)
        if joined is None:
            first += 1
        else:
            task = joined
            nodes = [n for n in task.function.nodes if isinstance(n, Compute)]
    return task


def _joined(task: Task, nodes: list[Compute], first: int) -> Task | None:
    """The task with the axis `first` and the one after it as one, or None where a buffer does not hold them so."""
    if 1 in task.domain[first : first + 2]:
        return None
    places = _places(task, nodes, first)
    if places is None:
        return None
    names: dict[str, Extent] = {f"_d{i}": symbol(f"_d{i - 1}") for i in range(first + 2, len(task.domain))}
    types = {v: _with_shape(kind, _merged(kind.shape, places.get(v, -1))) for v, kind in task.function.types.items()}
    domain = _merged(task.domain, first)
    made: list[Compute] = []
    for node in nodes:
        accesses = tuple(_moved(a, places[v], names) for v, a in zip(node.reads, node.accesses, strict=True))
        values = tuple(substitute(index, names) for index in node.index_values)
        made.append(replace(node, accesses=accesses, axes=axes_of(domain), index_values=values))
    return replace(task, function=replace(task.function, nodes=tuple(made), types=types), domain=domain)


def _places(task: Task, nodes: list[Compute], first: int) -> dict[int, int] | None:
    """Where the pair begins in the shape of every value, -1 where it does not occur; None where that is not clear."""
    pair, places = {f"_d{first}", f"_d{first + 1}"}, dict[int, int]()
    for node in nodes:
        if any(pair & symbols_of(index) for index in node.index_values):
            return None
        found = [(node.result, first)]
        for value, access in zip(node.reads, node.accesses, strict=True):
            place = _place(access, task.function.types[value].shape, task.domain[first + 1], first)
            if place is None:
                return None
            found.append((value, place))
        if any(places.setdefault(value, place) != place for value, place in found):
            return None
    return places


def _place(access: Access, shape: tuple[Extent, ...], inner: Extent, first: int) -> int | None:
    """Where an access walks the pair as it lies in memory: -1 nowhere, None in another way."""
    outer, pair = symbol(f"_d{first}"), {f"_d{first}", f"_d{first + 1}"}
    moving = [place for place, index in enumerate(access.indices) if pair & symbols_of(index)]
    if not moving:
        return -1
    plain = len(moving) == 2 and moving[1] == moving[0] + 1 and access.pad is None
    walked = plain and (access.indices[moving[0]], access.indices[moving[1]]) == (outer, symbol(f"_d{first + 1}"))
    return moving[0] if walked and shape[moving[1]] == inner else None


def _moved(access: Access, place: int, names: Mapping[str, Extent]) -> Access:
    kept = access.indices if place < 0 else (*access.indices[: place + 1], *access.indices[place + 2 :])
    return Access(tuple(substitute(index, names) for index in kept), access.pad)


def _merged(shape: tuple[Extent, ...], place: int) -> tuple[Extent, ...]:
    if place < 0:
        return shape
    return (*shape[:place], shape[place] * shape[place + 1], *shape[place + 2 :])


def _with_shape(kind: Type, shape: tuple[Extent, ...]) -> Type:
    return Type(kind.container, kind.dtype, shape)
