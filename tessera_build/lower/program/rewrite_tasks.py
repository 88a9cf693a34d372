"""Small changes to tasks before values get their places: copies that borders, outputs and concatenations need.

Takes tasks; gives tasks over the same graph values plus new ones. Invariant: what the entry computes stays the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.scalar import ScalarBuilder
from tessera_build.ir.core.structure import rename
from tessera_build.ir.core.types import Type
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.ir.schedule.nodes import Access, Compute
from tessera_build.lower.graph_to_schedule.defining import axes_of
from tessera_build.lower.graph_to_schedule.tasks import Task
from tessera_build.lower.schedule_to_tile.layouts import BufferLayout


def copy_task(name: str, source: int, target: int, kind: Type, from_kind: Type | None = None) -> Task:
    """target = source, element by element in row-major order; the shapes may differ if both are dense."""
    shape, types = kind.shape, {source: kind, target: kind}
    if from_kind is not None and from_kind.shape != kind.shape:
        total: Extent = 1
        for extent in kind.shape:
            total = total * extent
        shape = (total,)
        types = {source: Type("tensor", kind.dtype, shape), target: Type("tensor", kind.dtype, shape)}
    axes = axes_of(shape)
    access = Access(tuple(0 if a.extent == 1 else symbol(a.name) for a in axes))
    program = ScalarBuilder((kind.dtype,)).finish(0)
    node = Compute(target, (source,), (access,), axes, (), "none", program)
    function = Function(name, (source,), (node,), (target,), types)
    return Task("pointwise", name, function, shape or (1,), frozenset(), ())


def with_reads(task: Task, values: Mapping[int, int], types: Mapping[int, Type]) -> Task:
    """The task reading other values in place of its own."""
    if not any(v in values for v in task.inputs):
        return task
    nodes = tuple(rename(n, values, defs=False) for n in task.function.nodes)
    args = tuple(values.get(v, v) for v in task.inputs)
    known = dict(task.function.types) | {v: types[v] for v in args}
    graph = tuple(_with_inputs(n, values) for n in task.nodes)
    stages = tuple(with_reads(stage, values, types) for stage in task.stages)
    function = replace(task.function, args=args, nodes=nodes, types=known)
    return replace(task, function=function, nodes=graph, stages=stages)


def _with_inputs(node: GraphNode, values: Mapping[int, int]) -> GraphNode:
    return replace(node, inputs=tuple(values.get(v, v) for v in node.inputs))


def flattened(task: Task, layouts: Mapping[int, BufferLayout]) -> Task:
    """A pointwise task as one axis, where every buffer is dense and read in place; else the task itself."""
    nodes = [n for n in task.function.nodes if isinstance(n, Compute)]
    if len(task.domain) < 2 or not all(_in_place(n, task) for n in nodes):
        return task
    if any(not layouts[v].dense for v in (*task.inputs, *task.outputs)):
        return task
    total: Extent = 1
    for extent in task.domain:
        total = total * extent
    axes = axes_of((total,))
    access = Access((symbol("_d0") if total != 1 else 0,))
    new = tuple(Compute(n.result, n.reads, (access,) * len(n.reads), axes, (), "none", n.program, ()) for n in nodes)
    types = {v: Type("tensor", kind.dtype, (total,)) for v, kind in task.function.types.items()}
    return replace(task, function=replace(task.function, nodes=new, types=types), domain=(total,))


def _in_place(node: Compute, task: Task) -> bool:
    if task.function.types[node.result].shape != task.domain or node.index_values:
        return False
    own = tuple(0 if a.extent == 1 else symbol(a.name) for a in node.axes)
    same = all(task.function.types[v].shape == task.domain for v in node.reads)
    return same and all(a.indices == own and a.pad is None for a in node.accesses)
