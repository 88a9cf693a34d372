"""What all entries of a module, and the regions inside them, add to while they are lowered: weights, names, kernels.

Takes a module and a machine; gives rows of weights, of node names and of kernels. Invariant: the same array in the same
layout is one weight, and a name has one row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tessera_build.ir.core.node import Function
from tessera_build.ir.core.pages import drop_pages
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.lower.program.audit import Checks
from tessera_build.lower.program.frame import Slots
from tessera_build.lower.program.kernels import Chooser, derived
from tessera_build.lower.program.records import PackedWeight
from tessera_build.lower.schedule_to_tile.layouts import Packing

Progress = Callable[[int, int, str], None]
"""Called with (tasks lowered, tasks known so far, name of the one just done)."""


@dataclass(slots=True)
class Weights:
    """Weights in ABI order; the same array in the same layout is one weight."""

    module: Module
    rows: dict[tuple[str, Packing | None], int] = field(default_factory=dict[tuple[str, Packing | None], int])
    packed: list[PackedWeight] = field(default_factory=list[PackedWeight])

    def index(self, digest: str, packing: Packing | None) -> int:
        """Row of a constant in a layout."""
        key = (digest, packing)
        if key not in self.rows:
            array = self.module.constants[digest]
            laid = packing.apply(array) if packing else array
            drop_pages(array)
            layout = packing.layout if packing else "v1:row-major"
            self.rows[key] = len(self.packed)
            name = self.module.constant_names.get(digest, digest[:19])
            self.packed.append(PackedWeight(name, laid, layout, digest))
        return self.rows[key]


@dataclass(slots=True)
class Shared:
    """What all entries of a module add to: weights, node names, kernels; and who chooses schedules."""

    module: Module
    machine: CpuMachine
    weights: Weights
    checks: Checks = field(default_factory=Checks)
    names: list[str] = field(default_factory=list[str])
    kernels: list[Function] = field(default_factory=list[Function])
    slots: Slots = field(default_factory=Slots)
    dynamic: Slots = field(default_factory=Slots)
    known: set[str] = field(default_factory=set[str])
    progress: Progress | None = None
    choose: Chooser = derived
    tasks: int = 0
    done: int = 0

    def begin_entry(self) -> None:
        """Dynamic slots and the symbols that are known belong to one entry."""
        self.dynamic, self.known = Slots(), set()

    def finish_task(self, name: str) -> None:
        """Tell whoever watches that a task of any block was lowered."""
        self.done += 1
        if self.progress:
            self.progress(self.done, self.tasks, name)

    def name_row(self, name: str) -> int:
        """The row of a graph node's name."""
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name)

    def add_kernel(self, kernel: Function) -> Function:
        """The kernel under a name of its own."""
        named = replace(kernel, name=f"kernel_{len(self.kernels)}")
        self.kernels.append(named)
        return named
