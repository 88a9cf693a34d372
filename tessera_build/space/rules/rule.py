"""What a rule of the search space is, and the parts that several rules build their sketches from.

Takes a `Workload` and a machine; a `Rule` gives a sketch, says which vectors are legal, describes candidates by
features, and names the blocks of decisions that a derivation tries together. Invariant: everything a rule says of
candidates is computed for a whole batch of decision vectors at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.space.sketch import Sketch, Values
from tessera_build.space.workload import Span, Workload

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Features = dict[str, Floats]


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to compute a task.

    `sketch` gives None where the rule does not apply. `start` names values of a vector that is legal for every task;
    `blocks` are the decisions that the derivation enumerates together, one block after another. `margin`: how many
    times cheaper than other rules' candidates this one's must be to become the default.
    """

    name: str
    sketch: Callable[[Workload, CpuMachine], Sketch | None]
    legal: Callable[[Workload, CpuMachine, Values], Flags]
    features: Callable[[Workload, CpuMachine, Sketch, Values], Features]
    start: Callable[[Workload, CpuMachine], dict[str, int]]
    blocks: Callable[[Sketch], tuple[tuple[str, ...], ...]]
    margin: float = 1.0


def orders_of(outer: Sequence[str], vector: str) -> tuple[tuple[str, ...], ...]:
    """The vector axis outermost, then ever further in among the others, which keep their order."""
    return tuple((*outer[:at], vector, *outer[at:]) for at in range(len(outer) + 1))


def outer_rows(work: Workload, rows: Span, most: int) -> int:
    """How many of an outer axis may share a tile: of a leading one that is dynamic, a batch, there may be one only."""
    return 1 if rows.dynamic and rows.name == work.domain[0].name else most


def tile_name(axis: str) -> str:
    """The decision for the tile along an axis."""
    return f"tile{axis}"


def sizes(span: Span, most: int) -> tuple[int, ...]:
    """Every tile size of an axis up to `most`."""
    return tuple(range(1, max(1, min(span.extent, most)) + 1))


def vectors_of(span: Span, machine: CpuMachine, counts: Sequence[int], short: bool = True) -> tuple[int, ...]:
    """Tile sizes in whole registers; with `short`, all of an axis that a few registers hold."""
    if short and not span.dynamic and span.extent <= max(counts) * machine.lanes:
        whole = {max(1, span.extent)}
        return tuple(sorted(whole | {c * machine.lanes for c in counts if c * machine.lanes < span.extent}))
    rounded = -(-span.extent // machine.lanes) * machine.lanes
    return tuple(c * machine.lanes for c in counts if c * machine.lanes <= max(machine.lanes, rounded))
