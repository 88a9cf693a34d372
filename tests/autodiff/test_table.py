"""Every op has exactly one derivative, or the reason why it has none."""

from __future__ import annotations

import pytest

from tessera_build.ir.graph.autodiff.derivative import Derivative, NotDifferentiable
from tessera_build.ir.graph.autodiff.rules.table import DERIVATIVES, FAMILIES, THROUGH_OTHERS, THROUGH_REGIONS
from tessera_build.ir.graph.composed import COMPOSED
from tessera_build.ir.graph.ops import OPS

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("name", OPS)
def test_op_when_in_the_table_then_has_one_derivative_or_one_reason(name: str) -> None:
    rows = [family[name] for family in FAMILIES if name in family]
    if name in THROUGH_REGIONS:
        assert OPS[name].control is not None
        assert rows == []
        return
    if name in THROUGH_OTHERS:
        assert name in COMPOSED
        assert rows == []
        return
    (row,) = rows
    assert isinstance(row, Derivative) or len(row.reason.split()) > 3


def test_derivatives_when_listed_then_each_belongs_to_an_op() -> None:
    assert DERIVATIVES.keys() | THROUGH_REGIONS | THROUGH_OTHERS == OPS.keys()
    assert sum(isinstance(row, NotDifferentiable) for row in DERIVATIVES.values()) < len(DERIVATIVES) / 4
