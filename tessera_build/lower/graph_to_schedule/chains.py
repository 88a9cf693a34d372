"""Contractions whose results only the next one reads, joined into one task where the memory between them is what costs.

Takes tasks in running order; gives tasks, some of kind "chain": a product at a pixel, a window that walks rows, a
product at a pixel, or two of these. Invariant: a chain holds its stages' definitions as they are, stands where its last
stage stood, and gives what that gave; no other task reads a value between two stages.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace

from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import F32
from tessera_build.ir.schedule.nodes import Compute
from tessera_build.lower.graph_to_schedule.tasks import Task
from tessera_build.space.chain import Shape, is_pixel_product, reduction_of, shape_of, walks_of

# What a chain of this shape saves; a chain is made where it is above zero.
Saves = Callable[[Shape], float]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Positions of tasks in running order, which of them is the window, and what joining them saves."""

    stages: tuple[int, ...]
    saved: float


def chained(tasks: Sequence[Task], function: Function, constants: Container[int], saves: Saves) -> tuple[Task, ...]:
    """The tasks with what pays joined; of two chains that want one task, the one that saves more gets it."""
    found = sorted(_candidates(tasks, function, constants, saves), key=lambda c: (-c.saved, c.stages))
    taken: set[int] = set()
    joined: dict[int, Task] = {}
    for candidate in found:
        if not taken & set(candidate.stages):
            taken.update(candidate.stages)
            joined[candidate.stages[-1]] = _joined([tasks[i] for i in candidate.stages])
    return tuple(joined.get(i, task) for i, task in enumerate(tasks) if i in joined or i not in taken)


def _candidates(tasks: Sequence[Task], function: Function, constants: Container[int], saves: Saves) -> list[_Candidate]:
    made = {value: i for i, task in enumerate(tasks) for value in task.outputs}
    readers: dict[int, list[int]] = {v: [-1] for v in function.results}
    for i, task in enumerate(tasks):
        for value in task.inputs:
            readers.setdefault(value, []).append(i)
    found: list[_Candidate] = []
    for position, task in enumerate(tasks):
        node = _stage(task, constants)
        if node is None or walks_of(node) is None:
            continue
        before = made.get(node.reads[0], -1)
        after = readers.get(task.outputs[0], [-1])[0]
        links = [
            before if _feeds(tasks, before, position, readers) and _is_product(tasks[before], constants) else -1,
            after
            if after >= 0 and _feeds(tasks, position, after, readers) and _is_product(tasks[after], constants)
            else -1,
        ]
        found += _around(tasks, position, links, saves)
    return found


def _around(tasks: Sequence[Task], window: int, links: Sequence[int], saves: Saves) -> list[_Candidate]:
    """The chains around one window that save anything."""
    before, after = links
    choices = ((before, window, after), (before, window), (window, after))
    found: list[_Candidate] = []
    for stages in choices:
        nodes = [reduction_of(tasks[i].function.nodes) for i in stages if i >= 0]
        kept = [node for node in nodes if node is not None]
        shape = shape_of(kept, stages.index(window)) if len(kept) == len(stages) else None
        if shape is not None and saves(shape) > 0:
            found.append(_Candidate(stages, saves(shape)))
    return found


def _stage(task: Task, constants: Container[int]) -> Compute | None:
    """The reduction of a task that could be a stage: one result in f32 over an image, weights known at build time."""
    node = reduction_of(task.function.nodes) if task.kind == "contraction" else None
    if node is None or len(node.reads) != 2 or len(task.outputs) != 1 or node.reads[1] not in constants:
        return None
    types = task.function.types
    same = types[node.result].shape == types[task.outputs[0]].shape == task.domain
    narrow = all(types[v].dtype == F32 for v in (node.reads[0], node.result, task.outputs[0]))
    return node if same and narrow else None


def _is_product(task: Task, constants: Container[int]) -> bool:
    node = _stage(task, constants)
    return node is not None and is_pixel_product(node)


def _feeds(tasks: Sequence[Task], first: int, second: int, readers: Mapping[int, Sequence[int]]) -> bool:
    """Whether one task's only result is what the other's reduction reads first, and nothing else reads it at all."""
    if first < 0 or len(tasks[first].outputs) != 1 or readers.get(tasks[first].outputs[0]) != [second]:
        return False
    reads = [v for n in tasks[second].function.nodes if isinstance(n, Compute) for v in n.reads]
    node = reduction_of(tasks[second].function.nodes)
    value = tasks[first].outputs[0]
    return node is not None and bool(node.reads) and node.reads[0] == value and reads.count(value) == 1


def _joined(stages: Sequence[Task]) -> Task:
    """One task with all the definitions of its stages."""
    last = stages[-1]
    nodes = tuple(n for stage in stages for n in stage.function.nodes)
    made = {n.result for n in nodes if isinstance(n, Compute)}
    args = tuple(dict.fromkeys(v for stage in stages for v in stage.inputs if v not in made))
    types = {v: kind for stage in stages for v, kind in stage.function.types.items()}
    function = replace(last.function, name=stages[0].name, args=args, nodes=nodes, types=types)
    graph = tuple(n for stage in stages for n in stage.nodes)
    operators = tuple(dict.fromkeys(name for stage in stages for name in stage.operators))
    return Task("chain", stages[0].name, function, last.domain, last.reduced, graph, tuple(stages), operators)
