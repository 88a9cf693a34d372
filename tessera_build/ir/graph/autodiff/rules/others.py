"""Ops without operands that could have a tangent, and ops that have no derivative, each with its reason.

Takes nothing; gives their rows of the table. Invariant: an op that is here for what it is not yet says what to write
instead.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.ir.graph.autodiff.derivative import Derivative, NotDifferentiable, flat

OTHERS: Mapping[str, Derivative | NotDifferentiable] = {
    "constant": flat(),
    "dimension": flat(),
    "iota": flat(),
    "checked": Derivative(lambda _, tangents: tangents[:1]),  # it reads the value where it must
    "random": NotDifferentiable("draws do not depend on a number that could change a little"),
    "non_zero": flat(),
    "sizes": flat(),
    "sort_rows": flat(),
    "groups": flat(),
    "suppress": flat(),
    "listed": flat(),
    "coupled": NotDifferentiable("it stops its iterations by a tolerance"),
    "tree_ensemble": NotDifferentiable("trees jump from leaf to leaf and are constant between"),
    "count_grams": NotDifferentiable("it counts tokens, which are integers"),
}
