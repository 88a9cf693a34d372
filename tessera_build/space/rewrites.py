"""The algorithms that may take the place of a sum of products, within the precision policy's bounds.

Takes a definition and the subject that it is of; gives one `Rewriting` for each algorithm that applies and errs little
enough for the weights at hand, and says whether a schedule keeps to these. Invariant: whether an algorithm pays is not
asked here: that is the cost model's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tessera_build.ir.schedule.nodes import Compute
from tessera_build.ir.schedule.trace import Schedule
from tessera_build.space.pairs import PAIRS, pairs_rewriting
from tessera_build.space.strassen import STRASSEN, strassen_rewriting
from tessera_build.space.winograd import WINOGRAD, winograd_rewriting
from tessera_build.space.workload import Rewriting, Subject, Workload

Allowed = Callable[[Rewriting, Schedule], bool]

ALGORITHMS: Final[tuple[Callable[[Compute, Subject], Rewriting | None], ...]] = (
    winograd_rewriting,
    strassen_rewriting,
    pairs_rewriting,
)


def rewrites_of(node: Compute, subject: Subject) -> tuple[Rewriting, ...]:
    """All that apply, in the order of the table."""
    found = [rewriting(node, subject) for rewriting in ALGORITHMS]
    return tuple(rewriting for rewriting in found if rewriting is not None)


def _tile_allowed(rewriting: Rewriting, schedule: Schedule) -> bool:
    step = schedule.rewritten()
    return step is not None and step.tile in rewriting.sizes


def _piece_allowed(rewriting: Rewriting, schedule: Schedule) -> bool:
    """Sums of fewer steps err less."""
    step = schedule.rewritten()
    return step is not None and 1 <= step.block <= max(rewriting.sizes)


# What of a schedule has an algorithm's error, and must be within what its weights allow.
_ALLOWED: Final[Mapping[str, Allowed]] = {WINOGRAD: _tile_allowed, STRASSEN: _piece_allowed}


def allows(work: Workload, schedule: Schedule) -> bool:
    """Whether a schedule has no algorithm but those that a task's bounds allow, or those of its stages."""
    if work.stages:
        return all(_allows(stage.rewrites, schedule.stage(index)) for index, stage in enumerate(work.stages))
    return _allows(work.rewrites, schedule)


def _allows(rewrites: Sequence[Rewriting], schedule: Schedule) -> bool:
    pair, step = schedule.paired(), schedule.rewritten()
    if pair is not None and not any(r.algorithm == PAIRS and pair.scale in r.sizes for r in rewrites):
        return False
    if step is None:
        return True
    return any(r.algorithm == step.algorithm and _ALLOWED[r.algorithm](r, schedule) for r in rewrites)
