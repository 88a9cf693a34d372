"""The one task of a small module, and what the rules rewrite in it.

Takes modules whose entry becomes one task; gives the task, its constants, the step that the derived schedule rewrites.
"""

from __future__ import annotations

from tessera_build.ir.graph.nodes import Array, GraphNode, Module
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.nodes import Compute
from tessera_build.ir.schedule.trace import Rewrite
from tessera_build.lower.graph_to_schedule.tasks import Task, graph_to_schedule
from tessera_build.space.derive import derive_schedule
from tessera_build.space.workload import Bounds, Subject


def constants_of(module: Module) -> dict[int, Array]:
    """The arrays of the entry's constants, by value."""
    nodes = [n for n in module.entries["main"].nodes if isinstance(n, GraphNode) and n.op == "constant"]
    return {n.output: module.constants[str(n.attributes["digest"])] for n in nodes}


def task_of(module: Module) -> Task:
    """The only task."""
    (task,) = graph_to_schedule(module.entries["main"], constants_of(module))
    return task


def summed(module: Module) -> tuple[Task, Compute]:
    """The only task, and its only node that adds up."""
    task = task_of(module)
    (node,) = [n for n in task.function.nodes if isinstance(n, Compute) and n.combine != "none"]
    return task, node


def rewritten(module: Module, machine: CpuMachine, bounds: Bounds) -> Rewrite | None:
    """The step that the rules take to rewrite the sum within these bounds, if they take one."""
    task, node = summed(module)
    subject = Subject(task.kind, task.function.nodes, node.axes, task.reduced, constants_of(module), bounds)
    return derive_schedule(subject, machine).rewritten()
