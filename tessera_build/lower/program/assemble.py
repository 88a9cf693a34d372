"""A graph module as one CPU variant: every entry lowered, with the weights, names and kernels that entries share.

Takes a module after the graph passes and a machine; gives a `LoweredVariant`. Invariant: the result depends on the
module and the machine only, and launches run in an order in which every value is written before it is read.
"""

from __future__ import annotations

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.node import Function
from tessera_build.ir.graph.nodes import GraphNode, Module
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.target.host import Entry, Guard, Variant
from tessera_build.lower.program.block import Block, Frame, Home
from tessera_build.lower.program.records import LaunchRecord, LoweredVariant
from tessera_build.lower.program.shared import Shared, Weights
from tessera_build.lower.schedule_to_tile.replay import is_reserved


def lower_module(module: Module, machine: CpuMachine) -> LoweredVariant:
    """Lower every entry of a module for one machine; a dim may not be called like a loop that lowering makes."""
    reserved = sorted(name for name in module.dims if is_reserved(name))
    if reserved:
        raise TesseraError(
            "DIM_NAME_RESERVED",
            f"the dims {', '.join(reserved)} are called like loops of the compiler",
            expected="other names",
            hint="fix them with `--dim`, or give them other names in the model",
        )
    shared = Shared(module, machine, Weights(module))
    entries: list[Entry] = []
    launches: list[tuple[LaunchRecord, ...]] = []
    bound = 0
    for name, function in module.entries.items():
        block = Block(shared, function, _entry_frame(module, function))
        guards = [_guard(guard, index) for index, guard in enumerate(module.guards)]
        nodes = block.emit(0)
        outputs = tuple(function.types[v].shape for v in function.results)
        entries.append(Entry(name, tuple(module.dims), (*guards, *nodes), block.arena_bytes, outputs))
        launches.append(tuple(block.records))
        bound = max(bound, block.lower_bound)
    packed = tuple(shared.weights.packed)
    variant = Variant(tuple(entries), tuple(shared.kernels), len(packed))
    guards = tuple(message for *_, message in module.guards)
    return LoweredVariant(variant, packed, tuple(launches), tuple(shared.names), guards, bound)


def _entry_frame(module: Module, function: Function) -> Frame:
    """An entry's surroundings: its inputs and outputs by position, its constants as weights."""
    nodes = [n for n in function.nodes if isinstance(n, GraphNode)]
    digests = {n.output: str(n.attributes["digest"]) for n in nodes if n.op == "constant"}
    inputs = {value: Home("input", i) for i, value in enumerate(function.args)}
    results = tuple(Home("output", i) for i in range(len(function.results)))
    return Frame(digests, inputs, results, module.dims)


def _guard(guard: tuple[Extent, str, Extent, str], index: int) -> Guard:
    left, relation, right, _ = guard
    if relation == "==":
        return Guard(left, "eq", right, index)
    return Guard(right, "le", left, index)
