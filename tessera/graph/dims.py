"""Dimensions as the author speaks of them: names with ranges, and demands on extents.

Takes names and bounds; gives dimensions for annotations. Invariant: what is demanded holds in every call of the entry,
by the ranges or by a guard that the bundle checks.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from tessera.errors import LanguageError
from tessera.model.annotation import Dimension
from tessera.model.arguments import found_text
from tessera.model.site import here
from tessera.model.trace import needed
from tessera_build.ir.core.dims import Dim, Extent


def dim(name: str, low: int = 1, high: int | None = None) -> Dimension:
    """A symbolic dimension with a range: `S = graph.dim("S", 1, 512)`, then `Tensor["B", S, 64]`."""
    whole = type(low) is int and (high is None or type(high) is int)
    named = isinstance(name, str) and name.isidentifier()  # pyright: ignore[reportUnnecessaryIsInstance]
    if not (named and whole) or low < 0 or (high is not None and high < low):
        raise LanguageError(
            "BAD_EXTENT",
            "a dimension has no name or an empty range",
            site=here(),
            expected="a name such as S, and 0 <= low <= high",
            found=f"{name!r}, {low!r}..{high!r}"[:200],
        )
    return Dimension(name, low, high)


def require(left: Extent, relation: str, right: Extent, message: str = "") -> None:
    """Demand `left == right` or `left >= right` (also: `<=`) of extents such as those of `x.shape`."""
    if relation == "<=":
        left, relation, right = right, ">=", left
    if relation not in ("==", ">="):
        raise LanguageError(
            "BAD_ARGUMENT", "an unknown relation of extents", site=here(), expected="==, >= or <=", found=repr(relation)
        )
    left, right = _extent(left), _extent(right)
    needed().require(left, relation, right, message or f"the model demands {left} {relation} {right}")


def _extent(given: object) -> Extent:
    """One side of a demand."""
    if isinstance(given, int | np.integer) and not isinstance(given, bool):
        return int(cast(int, given))
    if isinstance(given, Dim):
        return given
    raise LanguageError(
        "BAD_ARGUMENT",
        "graph.require compares extents",
        site=here(),
        expected="whole numbers, and extents such as x.shape[0]",
        found=found_text(given),
        hint="what data decide is no extent: op.where and op.cond choose by it",
    )
