"""What a call takes, by entry, and at the largest sizes that a model's dims are declared to have.

Takes a lowered variant and its module; gives bytes, and a sentence where they are many. Invariant: nothing is said
where a dim has no bound, or a size from data has none: then only the run knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tessera_build.ir.core.dims import Extent, Range, bounds
from tessera_build.ir.graph.nodes import Module
from tessera_build.lower.program.records import LoweredVariant

_MANY: Final = 8 << 30
_ENDLESS: Final = 2**31 - 1  # a bound that stands for none


@dataclass(frozen=True, slots=True)
class Footprint:
    """The weights, and the largest workspace of an entry, in bytes."""

    weights: int
    workspace: int


@dataclass(frozen=True, slots=True)
class Workspace:
    """The peak of an entry's working memory: bytes that a run has beside its inputs, outputs and weights.

    `bytes`: an integer, or an expression over the dims, as text; `least` and `most` are its bounds by the dims' ranges,
    `most` None where there is none.
    """

    target: str
    entry: str
    bytes: str
    least: int
    most: int | None


def workspace(target: str, entry: str, size: Extent, ranges: Mapping[str, Range]) -> Workspace:
    """The workspace of an entry whose arena takes `size`, for dims in these ranges."""
    low, high = bounds(size, _bounded(ranges))
    return Workspace(target, entry, str(size), max(0, low or 0), high)


def footprint(module: Module, lowered: LoweredVariant) -> Footprint | None:
    """At the largest sizes; None where one has no bound."""
    ranges = _bounded(module.dims)
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


def _bounded(ranges: Mapping[str, Range]) -> dict[str, Range]:
    return {name: (low, None if high is None or high >= _ENDLESS else high) for name, (low, high) in ranges.items()}


def _text(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.1f} MiB"
