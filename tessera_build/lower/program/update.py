"""A state that is written where it lies: a copy, which only runs where the next value has memory of its own, and rows.

Takes an entry's function with its state pairs, and the task that makes a next value. Gives which values are such, and
their two kernels. Invariant: nothing but the copy reads the state's old memory, so that both may be one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from tessera_build.ir.core.node import Function
from tessera_build.ir.core.structure import uses_of
from tessera_build.ir.graph.nodes import GraphNode, StatePair
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.nodes import KernelCall
from tessera_build.kernels.scatter import put_rows
from tessera_build.kernels.subject import KernelSubject
from tessera_build.lower.program.kernels import LoweredTask, Setting, bound_kernel, lower_task
from tessera_build.lower.program.rewrite_tasks import copy_task


def updated_in_place(function: Function, pairs: Iterable[StatePair]) -> frozenset[int]:
    """Results that may have the memory of the state they follow.

    A ring is none: a call that fails midway would have lost rows that still count, where a cache that only grows is
    written behind what counts.
    """
    growing = [n for n in function.nodes if isinstance(n, GraphNode) and n.op == "scatter_rows"]
    made = {node.output: node for node in growing if not node.attributes["circular"]}
    uses = Counter(value for node in function.walk() for value in uses_of(node))
    results = Counter(function.results)
    found: set[int] = set()
    for pair in pairs:
        alone = uses[pair.incoming] == 1 and not results[pair.incoming] and results[pair.outgoing] == 1
        if alone and pair.outgoing in made and made[pair.outgoing].inputs[0] == pair.incoming:
            found.add(pair.outgoing)
    return frozenset(found)


def lower_update(setting: Setting, machine: CpuMachine) -> tuple[LoweredTask, ...]:
    """The kernels that copy the old value, and the last one, which writes rows over it."""
    task = setting.task
    (call,) = [node for node in task.function.nodes if isinstance(node, KernelCall)]
    (old, updates, first), (new,) = call.operands, call.results
    types = task.function.types
    whole = lower_task(replace(setting, task=copy_task(task.name, old, new, types[old])), machine)
    subject = KernelSubject(tuple(types[v] for v in call.operands), (types[new],), dict(call.parameters), machine.lanes)
    rows = bound_kernel(put_rows(subject), (updates, first, new), machine, setting.ranges)
    return (*(replace(part, prepares=True) for part in whole), rows)
