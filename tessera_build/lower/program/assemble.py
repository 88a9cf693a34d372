"""A graph module as one CPU variant: every entry lowered, with the weights, names and kernels that entries share.

Takes a module after the graph passes and a machine; gives a `LoweredVariant`. Invariant: the result depends on the
module and the machine only, and launches run in an order in which every value is written before it is read.
"""

from __future__ import annotations

from bundle_format.errors import TesseraError
from tessera_build.ir.core.node import walk
from tessera_build.ir.graph.mixing import mixed_dims
from tessera_build.ir.graph.nodes import GraphNode, Module
from tessera_build.ir.graph.sizes import data_sizes, entry_dims, symbol_ranges
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.target.host import POINTER_BYTES, Entry, Variant
from tessera_build.lower.program.arena import aligned
from tessera_build.lower.program.audit import NO_CHECKS, Checks
from tessera_build.lower.program.block import Block
from tessera_build.lower.program.frame import Frame, Home, Surroundings
from tessera_build.lower.program.kernels import Chooser, derived
from tessera_build.lower.program.reads import check_placed, early_guards
from tessera_build.lower.program.records import LaunchRecord, LoweredVariant
from tessera_build.lower.program.shared import Progress, Shared, Weights
from tessera_build.lower.program.update import updated_in_place
from tessera_build.lower.schedule_to_tile.replay import is_reserved


def lower_module(
    module: Module,
    machine: CpuMachine,
    checks: Checks = NO_CHECKS,
    progress: Progress | None = None,
    choose: Chooser = derived,
) -> LoweredVariant:
    """Lower every entry of a module for one machine; a dim may not be called like a loop that lowering makes.

    With `checks`, what every task writes is looked at before the next one runs. `choose` gives the tasks' schedules.
    """
    _check_names(module)
    shared = Shared(module, machine, Weights(module), checks, progress=progress, choose=choose)
    entries: list[Entry] = []
    launches: list[tuple[LaunchRecord, ...]] = []
    bound = 0
    for name, function in module.entries.items():
        shared.begin_entry()
        block = Block(shared, function, _entry_frame(module, name))
        inputs = {value: Home("input", i) for i, value in enumerate(function.args)}
        results = [Home("output", i) for i in range(len(function.results))]
        slots = shared.dynamic.next
        base = aligned(slots * POINTER_BYTES)
        dims = entry_dims(module, name)
        nodes = (*early_guards(module, dims), *block.emit(Surroundings(base, inputs, results)))
        outputs = tuple(function.types[v].shape for v in function.results)
        entries.append(Entry(name, dims, nodes, base + block.arena_bytes, outputs, slots))
        launches.append(tuple(block.records))
        bound = max(bound, block.lower_bound)
    check_placed(module, (node for entry in entries for node in walk(entry.nodes)))
    packed = tuple(shared.weights.packed)
    variant = Variant(tuple(entries), tuple(shared.kernels), len(packed))
    guards = tuple(message for *_, message in module.guards)
    return LoweredVariant(variant, packed, tuple(launches), tuple(shared.names), guards, bound)


def _check_names(module: Module) -> None:
    """Refuse dims that could not be told from loops."""
    sizes = (name for function in module.entries.values() for name in data_sizes(function))
    reserved = sorted(name for name in (*module.dims, *sizes) if is_reserved(name))
    if reserved:
        raise TesseraError(
            "DIM_NAME_RESERVED",
            f"the dims {', '.join(reserved)} are called like loops of the compiler",
            expected="other names",
            hint="fix them with `--dims`, or give them other names in the model",
        )


def _entry_frame(module: Module, name: str) -> Frame:
    """What an entry has from outside: its inputs, and its constants as weights."""
    function = module.entries[name]
    nodes = [n for n in function.nodes if isinstance(n, GraphNode)]
    digests = {n.output: str(n.attributes["digest"]) for n in nodes if n.op == "constant"}
    updated = updated_in_place(function, module.states.get(name, ()))
    ranges, sizes = symbol_ranges(module, function), data_sizes(function)
    arguments, mixed = frozenset(function.args), mixed_dims(function)
    derivative = name in module.derivatives
    return Frame(digests, arguments, ranges, sizes=sizes, updated=updated, mixed=mixed, derivative=derivative)
