"""The one table of how ops of Graph IR are written as ONNX operators, and which become other ops before.

Takes the families' tables; gives `WRITERS` by the op's name, and `WRITTEN_OUT`. Invariant: every op of Graph IR is in
one of the two, but for `constant`, which is a weight.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.frontends.onnx.export.contraction import CONTRACTION_WRITERS
from tessera_build.frontends.onnx.export.control import CONTROL_WRITERS
from tessera_build.frontends.onnx.export.counting import COUNTING_WRITERS
from tessera_build.frontends.onnx.export.elementwise import ELEMENTWISE_WRITERS
from tessera_build.frontends.onnx.export.images import IMAGE_WRITERS
from tessera_build.frontends.onnx.export.indexing import INDEXING_WRITERS
from tessera_build.frontends.onnx.export.matrices import MATRIX_WRITERS
from tessera_build.frontends.onnx.export.movement import MOVEMENT_WRITERS
from tessera_build.frontends.onnx.export.others import OTHER_WRITERS
from tessera_build.frontends.onnx.export.reductions import REDUCTION_WRITERS
from tessera_build.frontends.onnx.export.site import WriteNode
from tessera_build.frontends.onnx.export.wholes import WHOLE_WRITERS
from tessera_build.ir.graph.composed import COMPOSED

WRITERS: Mapping[str, WriteNode] = {
    **ELEMENTWISE_WRITERS,
    **MOVEMENT_WRITERS,
    **REDUCTION_WRITERS,
    **CONTRACTION_WRITERS,
    **IMAGE_WRITERS,
    **INDEXING_WRITERS,
    **COUNTING_WRITERS,
    **CONTROL_WRITERS,
    **MATRIX_WRITERS,
    **OTHER_WRITERS,
    **WHOLE_WRITERS,
}
# Ops that are written out as others before anything is exported.
WRITTEN_OUT = frozenset({"linear_solve", *COMPOSED})
