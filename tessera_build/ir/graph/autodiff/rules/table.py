"""The one table of derivatives, gathered from a file for each family.

Takes the families; gives `DERIVATIVES` by the name of the op. Invariant: every op of the table of ops has exactly one
row, a derivative or the reason why there is none; those with regions are differentiated through them, and some through
the ops that they are written out as.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tessera_build.ir.graph.autodiff.derivative import Derivative, NotDifferentiable
from tessera_build.ir.graph.autodiff.rules.contraction import CONTRACTION
from tessera_build.ir.graph.autodiff.rules.elementwise import ELEMENTWISE
from tessera_build.ir.graph.autodiff.rules.images import IMAGES
from tessera_build.ir.graph.autodiff.rules.indexing import INDEXING
from tessera_build.ir.graph.autodiff.rules.matrices import MATRICES
from tessera_build.ir.graph.autodiff.rules.movement import MOVEMENT
from tessera_build.ir.graph.autodiff.rules.others import OTHERS
from tessera_build.ir.graph.autodiff.rules.reduction import REDUCTION

FAMILIES = (ELEMENTWISE, MOVEMENT, CONTRACTION, REDUCTION, IMAGES, INDEXING, MATRICES, OTHERS)
DERIVATIVES: Mapping[str, Derivative | NotDifferentiable] = MappingProxyType(
    {name: row for family in FAMILIES for name, row in family.items()}
)
# Ops with regions: what they do is not a rule of one node.
THROUGH_REGIONS = frozenset({"if", "loop", "checkpoint", "stated", "linear_solve"})
# Ops that `composed` writes out: what is differentiated is what is written there.
THROUGH_OTHERS = frozenset({"max_regions", "sample_regions"})
