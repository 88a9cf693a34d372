"""Tasks made ready for memory: copies where a border, a result or a concatenation needs one.

Takes an entry's tasks; gives tasks, the types of all values and what each copied result was made for. Invariant:
after this, every result of the entry is written by exactly one task, and every padded read finds a border or checks.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import Type
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.lower.graph_to_schedule.tasks import Task
from tessera_build.lower.program.places import ALIASING_BYTES, wanted_border, window_border
from tessera_build.lower.program.rewrite_tasks import copy_task, with_reads

# Of a product whose second matrix is copied, because it comes from outside with rows a multiple of 4 KiB apart: a copy
# of it costs what 10 to 25 rows of results do. 1024 x 1024 x 1024: 23.9 ms as it lies, 21.4 ms with a pitch.
LEAST_ROWS = 512

_Pool = tuple[dict[int, Type], Iterator[int]]  # types of all values, and numbers for new ones


@dataclass(slots=True)
class Prepared:
    """Tasks in running order, the entry's function with its final results and types."""

    function: Function
    tasks: list[Task] = field(default_factory=list[Task])


def prepare(function: Function, tasks: Sequence[Task], external: set[int], constants: Container[int] = ()) -> Prepared:
    """Insert the copies that places cannot avoid; `constants` are packed and need none."""
    types = dict(function.types)
    # Values within tasks have numbers beyond the function's.
    taken = itertools.chain(types, *(task.function.types for task in tasks))
    ids = itertools.count(1 + max(taken, default=-1))
    bordered = _with_borders(list(tasks), function, external, (types, ids))
    given = {value for value in external if value not in constants}
    bordered = _with_pitches(bordered, given, (types, ids))
    results, copied = _with_results(bordered, function, external, (types, ids))
    done = replace(function, results=tuple(results), types=types)
    return Prepared(done, copied)


def _copy(value: int, pool: _Pool) -> int:
    """A new value of the type of another."""
    types, ids = pool
    copy = next(ids)
    types[copy] = types[value]
    return copy


def _with_borders(tasks: list[Task], function: Function, external: set[int], pool: _Pool) -> list[Task]:
    """Copy what padded windows read but what cannot have a border of its own into memory that can."""
    types = pool[0]
    fixed = external | set(function.results)
    for task in tasks:
        if task.kind in {"view", "kernel", "control", "read"}:
            fixed.update(task.inputs)
            fixed.update(task.outputs)
    moved: dict[int, int] = {}
    result: list[Task] = []
    for task in tasks:
        needs = [v for v in task.inputs if v in fixed and _pads(task, v) and wanted_border(tasks, v) is not None]
        for value in needs:
            if value not in moved:
                moved[value] = _copy(value, pool)
                result.append(copy_task(f"{task.name} (border)", value, moved[value], types[value]))
        result.append(with_reads(task, {v: moved[v] for v in needs}, types))
    return result


def _with_pitches(tasks: list[Task], given: set[int], pool: _Pool) -> list[Task]:
    """Copy matrices from outside that products read row by row, where all rows would fall into one set of the cache."""
    types, moved, result = pool[0], dict[int, int](), list[Task]()
    for task in tasks:
        needs = [v for node in task.nodes for v in node.inputs[1:2] if v in given and _aliases(node, types)]
        for value in dict.fromkeys(needs):
            if value not in moved:
                moved[value] = _copy(value, pool)
                result.append(copy_task(f"{task.name} (pitch)", value, moved[value], types[value]))
        result.append(with_reads(task, {v: moved[v] for v in needs}, types))
    return result


def _aliases(node: GraphNode, types: Mapping[int, Type]) -> bool:
    """Whether a product's second matrix has such rows, and enough products with each that a copy costs little."""
    if node.op != "matmul" or node.attributes["transpose_b"] or types[node.inputs[1]].rank < 2:
        return False
    rows, kind = types[node.output].shape[-2:-1], types[node.inputs[1]]
    often = bool(rows) and isinstance(rows[0], int) and rows[0] >= LEAST_ROWS
    last, depth = kind.shape[-1], kind.shape[-2]
    alike = isinstance(last, int) and last * kind.dtype.bytes % ALIASING_BYTES == 0
    return often and alike and isinstance(depth, int) and depth >= LEAST_ROWS


def _pads(task: Task, value: int) -> bool:
    return any(window_border(node, value) is not None for node in task.nodes)


def _with_results(
    tasks: list[Task], function: Function, external: set[int], pool: _Pool
) -> tuple[list[int], list[Task]]:
    """Give every result memory of its own: values from outside, pieces of others and repeated results are copied.

    A reshape is what it reshapes: the same elements in the same order, which are computed where the result is wanted.
    """
    results: list[int] = []
    extra: list[Task] = []
    views = {t.nodes[0].output for t in tasks if t.kind == "view"}
    whole = {t.nodes[0].output: t.nodes[0].inputs[0] for t in tasks if t.kind == "view" and t.nodes[0].op == "reshape"}
    for result in function.results:
        value = whole.get(result, result)
        if value in (*external, *views, *function.results):
            value = result
        if value in external or value in results or value in views:
            copy = _copy(value, pool)
            extra.append(copy_task("result", value, copy, pool[0][value]))
            results.append(copy)
        else:
            results.append(value)
    return results, tasks + extra
