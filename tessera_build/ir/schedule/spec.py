"""What is legal in Schedule IR: one table from node class to rules.

Takes a task; raises `SpecError` with everything that is wrong. Invariant: what passes here says what every element of
every result is, without an order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import cast

from tessera_build.ir.core import spec
from tessera_build.ir.core.dims import Extent, Range, symbols_of
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.spec import Scope
from tessera_build.ir.core.types import I64
from tessera_build.ir.schedule.nodes import Access, Axis, Compute, KernelCall

COMBINES = frozenset({"none", "sum", "max", "min", "prod", "largest"})
_READ = re.compile(r"_r\d+")


def verify(function: Function) -> None:
    """Raise `SpecError` unless the task is legal; its dims are the symbols in types of its arguments and results."""
    found: dict[str, Range] = {}
    for value in (*function.args, *function.results):
        for extent in function.types[value].shape if value in function.types else ():
            found |= dict.fromkeys(symbols_of(extent), (0, None))
    listed = function.attributes.get("dims", ())
    if isinstance(listed, tuple):
        found |= dict.fromkeys(map(str, cast("tuple[object, ...]", listed)), (0, None))
    spec.verify(function, LEVEL, found)


def values_are_tensors(scope: Scope, node: Compute | KernelCall) -> Iterator[str]:
    """Operands and results are tensors."""
    values = (*node.reads, node.result) if isinstance(node, Compute) else (*node.operands, *node.results)
    for value in values:
        if scope.type(value).container != "tensor":
            yield f"%{value} is {scope.type(value)}, not a tensor"


def axis_names(scope: Scope, node: Compute) -> Iterator[str]:
    """Axes have different names, none of which is a dim or could be a read's."""
    names = [axis.name for axis in (*node.axes, *node.reduction)]
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield f"two axes are called {name!r}"
    for name in names:
        if not name.isidentifier() or _READ.fullmatch(name) or name in scope.symbols:
            yield f"{name!r} cannot be the name of an axis here"


def axis_extents(scope: Scope, node: Compute) -> Iterator[str]:
    """Extents of axes are over dims only, and those of the output axes are the result's shape."""
    for axis in (*node.axes, *node.reduction):
        yield from _unknown(axis.extent, scope.symbols, f"the extent of axis {axis.name}")
    shape = scope.type(node.result).shape
    if tuple(axis.extent for axis in node.axes) != shape:
        yield f"axes of extents [{_listed(node.axes)}] define a result of shape [{', '.join(map(str, shape))}]"


def _listed(axes: tuple[Axis, ...]) -> str:
    return ", ".join(str(axis.extent) for axis in axes)


def accesses(scope: Scope, node: Compute) -> Iterator[str]:
    """One access per read, one index per axis of the buffer, over axes, dims and earlier integer reads."""
    if len(node.accesses) != len(node.reads):
        yield f"{len(node.accesses)} accesses for {len(node.reads)} reads"
        return
    known: dict[str, object] = {**scope.symbols, **{a.name: a for a in (*node.axes, *node.reduction)}}
    for position, (value, access) in enumerate(zip(node.reads, node.accesses, strict=True)):
        type_ = scope.type(value)
        yield from _access(access, type_.rank, known, f"read {position}")
        if type_.dtype.kind in {"signed", "unsigned"}:
            known[f"_r{position}"] = value
    for value in node.index_values:
        yield from _unknown(value, known, "an index value")


def _access(access: Access, rank: int, known: Mapping[str, object], what: str) -> Iterator[str]:
    if len(access.indices) != rank:
        yield f"{what} has {len(access.indices)} indices into a buffer of rank {rank}"
    for index in access.indices:
        yield from _unknown(index, known, f"an index of {what}")


def _unknown(extent: Extent, known: Mapping[str, object], what: str) -> Iterator[str]:
    for name in sorted(symbols_of(extent) - known.keys()):
        yield f"{what} uses {name!r}, which is nothing here"


def program(scope: Scope, node: Compute) -> Iterator[str]:
    """The program takes the reads, then the index values as i64, and gives one element of the result."""
    inputs = [scope.type(r).dtype for r in node.reads] + [I64] * len(node.index_values)
    yield from spec.program_problems(node.program, inputs, [scope.type(node.result).dtype])


def combine(_scope: Scope, node: Compute) -> Iterator[str]:
    """There are reduction axes exactly where there is something to combine."""
    if node.combine not in COMBINES:
        yield f"combine {node.combine!r} is not one of {', '.join(sorted(COMBINES))}"
    elif (node.combine == "none") != (not node.reduction):
        yield f"combine {node.combine!r} with {len(node.reduction)} reduction axes"


def kernel_parameters(_scope: Scope, node: KernelCall) -> Iterator[str]:
    """A kernel has a name, and its parameters have different names."""
    names = [name for name, _ in node.parameters]
    if len(set(names)) != len(names):
        yield "two parameters have one name"
    if not node.kernel:
        yield "the kernel has no name"


RULES: spec.Rules = {
    Compute: (values_are_tensors, axis_names, axis_extents, accesses, program, combine),
    KernelCall: (values_are_tensors, spec.dims_in_scope, kernel_parameters),
}
LEVEL = spec.Level(RULES)
