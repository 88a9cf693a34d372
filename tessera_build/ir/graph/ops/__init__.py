"""The one table of Graph IR's ops, gathered from a file for each family.

Takes the families; gives `OPS` by name. Invariant: an op exists when, and only when, it has a row here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tessera_build.ir.graph.ops.attention import ATTENTION
from tessera_build.ir.graph.ops.contraction import CONTRACTIONS
from tessera_build.ir.graph.ops.control import CONTROL
from tessera_build.ir.graph.ops.counting import COUNTING
from tessera_build.ir.graph.ops.cumulation import CUMULATIONS
from tessera_build.ir.graph.ops.elementwise import ELEMENTWISE
from tessera_build.ir.graph.ops.equations import EQUATIONS
from tessera_build.ir.graph.ops.grams import GRAMS
from tessera_build.ir.graph.ops.images import IMAGES
from tessera_build.ir.graph.ops.indexing import INDEXING
from tessera_build.ir.graph.ops.matrices import MATRICES
from tessera_build.ir.graph.ops.movement import MOVEMENTS
from tessera_build.ir.graph.ops.op import Op
from tessera_build.ir.graph.ops.random import RANDOM
from tessera_build.ir.graph.ops.reduction import REDUCTIONS
from tessera_build.ir.graph.ops.regions import REGIONS
from tessera_build.ir.graph.ops.scatter import SCATTERS
from tessera_build.ir.graph.ops.selection import SELECTIONS
from tessera_build.ir.graph.ops.sizes import SIZES
from tessera_build.ir.graph.ops.sources import SOURCES
from tessera_build.ir.graph.ops.trees import TREES

OPS: Mapping[str, Op] = MappingProxyType(
    {
        op.name: op
        for family in (
            SOURCES,
            RANDOM,
            ELEMENTWISE,
            CONTRACTIONS,
            REDUCTIONS,
            MOVEMENTS,
            INDEXING,
            SCATTERS,
            SELECTIONS,
            COUNTING,
            CUMULATIONS,
            TREES,
            IMAGES,
            REGIONS,
            MATRICES,
            GRAMS,
            ATTENTION,
            CONTROL,
            EQUATIONS,
            SIZES,
        )
        for op in family
    }
)
