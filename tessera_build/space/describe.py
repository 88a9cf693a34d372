"""From a task to its workload: which definition reduces, how operands move, what else is read and written.

Takes a `Subject` and a machine; gives a `Workload`. Invariant: the answer depends on the definitions alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tessera_build.ir.core.dims import Extent, substitute, symbol
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.nodes import Access, Axis, Compute
from tessera_build.space.chain import BATCH, ROWS, reduction_of, shape_of, walks_of
from tessera_build.space.contraction import has_quads, is_product, moves
from tessera_build.space.crossing import crossed_axis, crossing_tile
from tessera_build.space.padding import reaches_of
from tessera_build.space.passes import passes_in_turns
from tessera_build.space.rewrites import rewrites_of
from tessera_build.space.workload import (
    Operand,
    Subject,
    Workload,
    group_steps,
    grouped_axes,
    is_stuck,
    operand_of,
    regrouped,
    span_of,
)


def workload_of(subject: Subject, machine: CpuMachine, crossing: bool = True) -> Workload:
    """The workload; without `crossing`, one for any extents of a task that exchanges axes."""
    definitions = [n for n in subject.nodes if isinstance(n, Compute)]
    if subject.stages:
        return _chain(subject, machine)
    if subject.kind == "contraction":
        return _contraction(subject, definitions)
    domain, made = subject.domain, {n.result for n in definitions}
    stuck = any(is_stuck(i, domain[-1].name) for n in definitions for a in n.accesses for i in a.indices)
    crossed = None
    if subject.kind == "pointwise" and not stuck and crossing:
        crossed = crossed_axis(definitions, domain)
    return Workload(
        kind="row" if subject.kind == "row" else "pointwise",
        domain=tuple(span_of(axis) for axis in domain),
        reduction=(),
        main=tuple(_reads(definitions, made, subject)),
        others=tuple(_written(definitions, domain)),
        operations=sum(len(n.program.ops) + (n.combine != "none") for n in definitions),
        reduced=subject.reduced,
        stuck=stuck,
        passes=passes_in_turns(definitions) if subject.kind == "row" else 0,
        crossed="" if crossed is None else crossed.name,
        tile=(1, 1) if crossed is None else crossing_tile(definitions, crossed, domain[-1], machine),
    )


def _contraction(subject: Subject, definitions: Sequence[Compute]) -> Workload:
    (node,) = [n for n in definitions if n.combine != "none"]
    groups = group_steps(node)
    axes = grouped_axes(subject.domain, groups)
    accesses = tuple(regrouped(a, groups) for a in node.accesses)
    moved = Compute(node.result, node.reads, accesses, node.axes, node.reduction, node.combine, node.program)
    rest = [n for n in definitions if n is not node]
    vector = axes[-1].name
    made = {n.result for n in definitions}
    others = [
        operand_of(regrouped(a, groups), n.program.inputs[i].bytes, v in subject.constants)
        for n in rest
        for i, (v, a) in enumerate(zip(n.reads, n.accesses, strict=True))
        if v not in made
    ]
    return Workload(
        kind="contraction",
        domain=tuple(span_of(axis) for axis in axes),
        reduction=tuple(span_of(axis) for axis in node.reduction),
        main=tuple(
            operand_of(a, dtype.bytes, v in subject.constants, subject.strides.get(v))
            for v, a, dtype in zip(node.reads, accesses, node.program.inputs, strict=False)
        ),
        others=(*others, *_written(definitions[-1:], axes)),
        operations=sum(len(n.program.ops) for n in rest),
        groups=groups,
        product=is_product(node) and not moves(moved, 0, vector) and moves(moved, 1, vector),
        byte_product=len(node.reads) > 1 and node.reads[1] in subject.constants and has_quads(node),
        rewrites=() if groups else rewrites_of(node, subject),
        short_sums=subject.short_sums,
        reaches=reaches_of(moved, axes, subject),
    )


def _chain(subject: Subject, machine: CpuMachine) -> Workload:
    """One row of one image of every stage, and the extents of the whole."""
    nodes = [node for stage in subject.stages if (node := reduction_of(stage.nodes)) is not None]
    shape = shape_of(nodes, next(i for i, node in enumerate(nodes) if walks_of(node) is not None))
    if shape is None:
        raise ValueError("a chain's image has known extents")
    stages: list[Workload] = []
    for stage in subject.stages:
        row = [replace(axis, extent=1) if axis.name in (BATCH, ROWS) else axis for axis in stage.domain]
        stages.append(workload_of(replace(stage, domain=row), machine))
    domain = tuple(span_of(axis) for axis in subject.stages[-1].domain)
    return Workload("chain", domain, (), (), (), 0, stages=tuple(stages), chain=shape)


def _reads(definitions: Sequence[Compute], made: set[int], subject: Subject) -> list[Operand]:
    """Every distinct access to a value from outside; the axis _k<i> of a row's reduction is the domain's _d<i>."""
    names: dict[str, Extent] = {f"_k{i}": symbol(f"_d{i}") for i in range(len(subject.domain))}
    found: dict[tuple[int, Access], Operand] = {}
    for node in definitions:
        for value, access, dtype in zip(node.reads, node.accesses, node.program.inputs, strict=False):
            if value not in made:
                moved = Access(tuple(substitute(index, names) for index in access.indices), access.pad)
                found[value, access] = operand_of(moved, dtype.bytes, value in subject.constants)
    return list(found.values())


def _written(definitions: Sequence[Compute], axes: Sequence[Axis]) -> list[Operand]:
    """The last definition's result, over the whole domain."""
    node = definitions[-1]
    width = node.program.dtype(node.program.results[0]).bytes
    return [Operand(tuple(((axis.name, 1),) for axis in axes), width, written=True)]
