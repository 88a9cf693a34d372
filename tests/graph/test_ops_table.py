"""Every op of the table has each fact that an op must have."""

from __future__ import annotations

import pytest

from tessera_build.ir.core.scalar import SCALAR_OPS
from tessera_build.ir.graph.ops import OPS
from tessera_build.ir.graph.ops.elementwise import NOT_GRAPH_OPS
from tessera_build.ir.graph.ops.op import Op

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_op_when_in_the_table_then_states_its_signature(op: Op) -> None:
    assert "->" in op.signature
    assert set(op.defaults) <= set(op.attributes)
    assert all(name in op.signature for name in op.attributes)


def test_table_when_scalar_operation_exists_then_has_its_elementwise_op() -> None:
    scalar = set(SCALAR_OPS) - NOT_GRAPH_OPS
    assert {name for name, op in OPS.items() if op.elementwise} == scalar | {"cast", "bitcast"}


def test_table_when_op_uses_blas_or_libm_then_is_not_ordered() -> None:
    unordered = {name for name, op in OPS.items() if not op.ordered}
    libm = {"exp", "log", "tanh", "erf", "sigmoid", "sin", "cos", "pow", "tan", "asin", "acos", "atan"}
    libm |= {"sinh", "cosh", "asinh", "acosh", "atanh"}
    others = {"matmul", "conv", "softmax", "attention", "constant", "if", "loop", "checkpoint", "stated", "sizes"}
    others |= {"coupled", "random", "linear_solve", "checked"}
    assert unordered == libm | others
