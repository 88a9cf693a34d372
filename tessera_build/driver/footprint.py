"""What a call takes at the largest sizes that a model's dims are declared to have.

Takes a lowered variant and its module; gives bytes, and a sentence where they are many. Invariant: nothing is said
where a dim has no bound, or a size from data has none: then only the run knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tessera_build.ir.core.dims import Range, bounds
from tessera_build.ir.graph.nodes import Module
from tessera_build.lower.program.records import LoweredVariant

_MANY: Final = 8 << 30
_ENDLESS: Final = 2**31 - 1  # a bound that stands for none


@dataclass(frozen=True, slots=True)
class Footprint:
    """The weights, and the largest workspace of an entry, in bytes."""

    weights: int
    workspace: int


def footprint(module: Module, lowered: LoweredVariant) -> Footprint | None:
    """At the largest sizes; None where one has no bound."""
    ranges: dict[str, Range] = {
        name: (low, None if high is None or high >= _ENDLESS else high) for name, (low, high) in module.dims.items()
    }
    sizes = [bounds(entry.arena_bytes, ranges)[1] for entry in lowered.variant.entries]
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return None
    return Footprint(sum(weight.array.nbytes for weight in lowered.weights), max(known, default=0))


def footprint_warnings(found: Footprint | None) -> list[str]:
    """Nothing for a model that most machines can run."""
    if found is None or found.weights + found.workspace <= _MANY:
        return []
    return [
        f"a call takes {_text(found.workspace)} of workspace beside {_text(found.weights)} of weights at the largest "
        "sizes of its dims; to run on less, bound dims with --dims"
    ]


def _text(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.1f} MiB"
