"""Where a window reaches beyond what it reads: products with zeros that need not be made.

Takes a sum of products and the subject that it is of; gives one `Reach` for each reduction axis along which some output
reads nothing but padding. Invariant: weights that are no numbers keep all their products, because zero times infinity
is none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tessera_build.ir.core.dims import Extent, symbol, symbols_of, terms_of
from tessera_build.ir.schedule.nodes import Axis, Compute
from tessera_build.space.contraction import is_product, known
from tessera_build.space.workload import Reach, Subject


def reaches_of(node: Compute, axes: Sequence[Axis], subject: Subject) -> tuple[Reach, ...]:
    """Those of all reduction axes but the last, which tiles run over; `axes`: the domain's, after grouping."""
    shape = subject.shapes.get(node.reads[0], ())
    if not is_product(node) or node.accesses[0].pad != 0.0 or len(shape) != len(node.accesses[0].indices):
        return ()
    found = [_reach(node, tap, axes, shape) for tap in node.reduction[:-1]]
    outside = tuple(r for r in found if r is not None and r.share(1) < 1.0)
    return outside if outside and _are_numbers(node, subject) else ()


def _reach(node: Compute, tap: Axis, axes: Sequence[Axis], shape: Sequence[Extent]) -> Reach | None:
    """How a tap moves the one index that it moves, together with one axis of the domain."""
    moved = [(i, e) for i, e in zip(node.accesses[0].indices, shape, strict=True) if tap.name in symbols_of(i)]
    if len(moved) != 1 or not isinstance(tap.extent, int):
        return None
    index, size = moved[0]
    steps = {
        name: factor for axis in (*axes, tap) for name, factor in [(axis.name, _factor(index, axis.name))] if factor
    }
    others = [axis for axis in axes if axis.name in steps]
    if len(others) != 1 or tap.name not in steps:
        return None
    (axis,) = others
    start = index - steps[axis.name] * symbol(axis.name) - steps[tap.name] * symbol(tap.name)
    if not isinstance(start, int) or min(steps.values()) < 1:
        return None
    extents = known(axis.extent), tap.extent, known(size)
    return Reach(tap.name, axis.name, start, steps[axis.name], steps[tap.name], extents)


def _factor(index: Extent, name: str) -> int:
    """The factor of a symbol that stands alone in a term."""
    return sum(f for monomial, f in terms_of(index) if len(monomial) == 1 and monomial[0][0].name == name)


def _are_numbers(node: Compute, subject: Subject) -> bool:
    weights = subject.constants.get(node.reads[1])
    return weights is not None and bool(np.isfinite(weights).all())
