"""The algorithms that may take the place of a sum of products, within the precision policy's bounds.

Takes a definition and the subject that it is of; gives one `Rewriting` for each algorithm that applies and errs little
enough for the weights at hand. Invariant: whether an algorithm pays is not asked here: that is the cost model's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tessera_build.ir.schedule.nodes import Compute
from tessera_build.space.winograd import winograd_rewriting
from tessera_build.space.workload import Rewriting, Subject

ALGORITHMS: Final[tuple[Callable[[Compute, Subject], Rewriting | None], ...]] = (winograd_rewriting,)


def rewrites_of(node: Compute, subject: Subject) -> tuple[Rewriting, ...]:
    """All that apply, in the order of the table."""
    found = [rewriting(node, subject) for rewriting in ALGORITHMS]
    return tuple(rewriting for rewriting in found if rewriting is not None)
