"""What is legal in Target IR: one table for kernels, one for host programs.

Takes a kernel or a variant; raises `SpecError` with everything that is wrong. Invariant: what passes here, a back end
prints one to one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import cast

from tessera_build.ir.core import spec
from tessera_build.ir.core.dims import Extent, symbols_of
from tessera_build.ir.core.node import Function, Node, Region, walk
from tessera_build.ir.core.spec import Scope, SpecError, Violation
from tessera_build.ir.core.types import I64, scalar
from tessera_build.ir.target import group, host, kernel, spec_group, spec_kernel, spec_memory

KERNEL_RULES: spec.Rules = {
    kernel.Const: (spec_kernel.constant_value,),
    kernel.Op: (spec_kernel.op_row, spec_kernel.op_types),
    kernel.Splat: (spec_kernel.splat,),
    kernel.LaneIndex: (spec_kernel.lane_index,),
    kernel.Extract: (spec_kernel.extract,),
    kernel.Insert: (spec_kernel.insert,),
    kernel.Shuffle: (spec_kernel.shuffle,),
    kernel.Load: (spec_memory.address, spec_memory.element, spec_memory.mask, spec_memory.alignment),
    kernel.Gather: (spec_memory.lanes_of_addresses, spec_memory.element, spec_memory.mask),
    kernel.Store: (spec_memory.address, spec_memory.element, spec_memory.mask, spec_memory.alignment),
    kernel.Scatter: (spec_memory.lanes_of_addresses, spec_memory.element, spec_memory.mask),
    kernel.Prefetch: (spec_memory.address, spec_memory.prefetch_level),
    kernel.Alloca: (spec_memory.alloca,),
    kernel.Loop: (spec_kernel.loop_bounds, spec_kernel.loop_carried),
    kernel.Branch: (spec_kernel.condition, spec_kernel.branch_regions),
    kernel.Check: (spec_kernel.condition, spec_kernel.check_code),
}
GROUP_RULES: spec.Rules = {
    **KERNEL_RULES,
    group.GroupIndex: (spec_group.place,),
    group.Lane: (spec_group.place,),
    group.SharedAlloc: (spec_group.shared_alloc,),
    group.Barrier: (),
    group.AsyncCopy: (spec_group.async_copy,),
    group.AsyncCommit: (),
    group.AsyncWait: (spec_group.pending,),
    group.MatrixLoad: (spec_group.shared_address,),
    group.MatrixMultiply: (spec_group.accumulators,),
    group.SharedFence: (),
    group.WarpgroupFence: (),
    group.SharedMatrix: (spec_group.shared_address,),
    group.WarpgroupMultiply: (spec_group.accumulators,),
    group.MatrixWait: (spec_group.pending,),
}


def kernel_arguments(scope: Scope) -> Iterator[str]:
    """Buffers, then one i64 a dim, then the index of the parallel iteration; no results."""
    function = scope.function
    listed = function.attributes.get("dims", ())
    dims = len(cast("tuple[object, ...]", listed)) if isinstance(listed, tuple) else 0
    types = [scope.type(a) for a in function.args if a in function.types]
    numbers = types[len(types) - dims - 1 :]
    if numbers != [scalar(I64)] * (dims + 1) or any(t.container != "memref" for t in types[: len(types) - dims - 1]):
        yield f"arguments are ({', '.join(map(str, types))}), not buffers and then {dims} dims and the index as i64"
    if function.results:
        yield "a kernel has no results"


KERNEL = spec.Level(KERNEL_RULES, (kernel_arguments,))
GROUP = spec.Level(GROUP_RULES, (spec_group.group_arguments,))


def verify(function: Function, register_bits: int | None = None) -> None:
    """Raise `SpecError` unless the kernel is legal; with `register_bits`, no vector is wider than that.

    A kernel with the attribute `lanes` is one for machines of groups.
    """
    spec.verify(function, GROUP if "lanes" in function.attributes else KERNEL, {})
    if register_bits is None:
        return
    wide = [
        Violation("register_width", f"%{value} is {type_}, wider than {register_bits} bits", function.name, "")
        for value, type_ in function.types.items()
        if type_.container == "vector" and type_.static_shape[0] * type_.dtype.bits > register_bits
    ]
    if wide:
        raise SpecError(function.name, wide)


def verify_variant(variant: host.Variant) -> None:
    """Raise `SpecError` unless the kernels and the host programs of a variant are legal and fit together."""
    kernels = {k.name: k for k in variant.kernels}
    violations: list[Violation] = []
    if len(kernels) != len(variant.kernels):
        violations.append(Violation("kernel_names", "two kernels have one name", "variant", ""))
    for function in variant.kernels:
        try:
            verify(function)
        except SpecError as error:
            violations.extend(error.violations)
    for entry in variant.entries:
        violations += [Violation(rule, text, str(node), entry.name) for rule, text, node in _Host(entry, kernels).run()]
        violations += [Violation("host_dims", t, entry.name, "") for t in _unknown(entry.arena_bytes, entry.dims)]
        violations += [Violation("weights", t, entry.name, "") for t in _buffers(entry, variant)]
    if violations:
        raise SpecError("variant", violations)


class _Host:
    """One walk over an entry's nodes in running order: what is known at each, and what is wrong with it."""

    def __init__(self, entry: host.Entry, kernels: Mapping[str, Function]) -> None:
        self._entry = entry
        self._kernels = kernels
        self._known = set(entry.dims)

    def run(self) -> Iterator[tuple[str, str, Node | None]]:
        """(rule, what is wrong, node) of everything that is."""
        for node in self._entry.nodes:
            yield from ((rule, text, node) for rule, text in self._node(node))
        for extent in (e for shape in self._entry.outputs for e in shape):
            yield from (("host_dims", text, None) for text in _unknown(extent, self._known))

    def _node(self, node: Node) -> Iterator[tuple[str, str]]:
        for extent in host.extents_of(node):
            yield from (("host_dims", text) for text in _unknown(extent, self._known))
        match node:
            case host.Guard():
                if node.relation not in {"lt", "le", "eq", "ne"}:
                    yield "guard_relation", f"relation {node.relation!r} is unknown"
            case host.Launch():
                yield from (("launch", text) for text in _launch(node, self._kernels))
            case host.Read():
                if node.symbol in self._known:
                    yield "fresh_size", f"{node.symbol!r} is known already"
                self._known.add(node.symbol)
            case host.Allocate():
                count = self._entry.slots if node.space == "dynamic" else len(self._entry.outputs)
                yield from _slot(node.index, count, node.space)
                if node.space == "output" and node.index not in self._entry.dynamic_outputs:
                    yield "slots", f"the caller gives the memory of output {node.index}"
            case host.Release():
                yield from _slot(node.index, self._entry.slots, "dynamic")
            case host.Repeat():
                if node.index in self._known:
                    yield "fresh_size", f"index {node.index!r} is known already"
                if node.conditional and not node.carried:
                    yield "repeat", "the loop carries no condition"
                yield from self._region(node.body, node.index)
            case host.Choose():
                yield from self._region(node.then)
                yield from self._region(node.otherwise)
            case host.Apart():
                yield from self._region(node.body)
            case _:
                yield "level", f"{type(node).__name__} is not a node of a host program"

    def _region(self, region: Region, *symbols: str) -> Iterator[tuple[str, str]]:
        """A block inside a node; what it reads is unknown behind it."""
        before = set(self._known)
        self._known |= set(symbols)
        for node in region.nodes:
            yield from self._node(node)
        self._known = before


def _slot(index: int, count: int, space: str) -> Iterator[tuple[str, str]]:
    if not 0 <= index < count:
        yield "slots", f"{space} {index} does not exist"


def _unknown(extent: Extent, known: Collection[str]) -> Iterator[str]:
    for name in sorted(symbols_of(extent) - set(known)):
        yield f"{name!r} is neither a dim of the entry nor a size read before"


def _launch(node: host.Launch, kernels: Mapping[str, Function]) -> Iterator[str]:
    if node.kernel not in kernels:
        yield f"kernel {node.kernel!r} is not in the variant"
        return
    function = kernels[node.kernel]
    buffers = sum(function.types[a].container == "memref" for a in function.args)
    if (len(node.buffers), len(node.dims)) != (buffers, len(function.args) - buffers - 1):
        yield f"{len(node.buffers)} buffers and {len(node.dims)} dims do not fit the arguments of {node.kernel!r}"


def _buffers(entry: host.Entry, variant: host.Variant) -> Iterator[str]:
    limits = {"weight": variant.weights, "output": len(entry.outputs), "arena": 1, "dynamic": entry.slots}
    for buffer in (buffer for node in walk(entry.nodes) for buffer in host.buffers_of(node)):
        if not 0 <= buffer.index < limits.get(buffer.space, buffer.index + 1):
            yield f"{buffer.space} {buffer.index} does not exist"
        if isinstance(buffer.offset, int) and buffer.offset < 0:
            yield f"offset {buffer.offset} lies before {buffer.space} {buffer.index}"
