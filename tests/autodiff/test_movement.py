"""Derivatives of ops that move elements, with static and with symbolic extents."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tessera_build.ir.core.dims import floordiv, symbol
from tessera_build.ir.core.types import F64, Type, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tests.autodiff.checking import check, drawn, f64, module_of

pytestmark = pytest.mark.unit

N, M = symbol("N"), symbol("M")
Make = Callable[[GraphBuilder, list[int]], int]
CASES: dict[str, tuple[Make, list[Type]]] = {
    "reshape": (lambda b, x: b.op("reshape", x[0], shape=(M, N * 2)), [f64(N, 2, M)]),
    "transpose": (lambda b, x: b.op("transpose", x[0], perm=(2, 0, 1)), [f64(N, 2, M)]),
    "broadcast": (lambda b, x: b.op("broadcast_to", x[0], shape=(4, N, 3)), [f64(N, 1)]),
    "scalar": (lambda b, x: b.op("broadcast_to", x[0], shape=(3,)), [f64()]),
    "slice": (lambda b, x: b.op("slice", x[0], starts=(1, 0), stops=(N, 6), steps=(1, 2)), [f64(N, 7)]),
    "stride": (
        lambda b, x: b.op("slice", x[0], starts=(1, 2), stops=(symbol("H"), 9), steps=(3, 4)),
        [f64(symbol("H"), 10)],
    ),
    "half": (lambda b, x: b.op("slice", x[0], starts=(0,), stops=(floordiv(M, 2),), steps=(1,)), [f64(M)]),
    "nothing": (lambda b, x: b.op("slice", x[0], starts=(2,), stops=(2,), steps=(2,)), [f64(4)]),
    "pad": (lambda b, x: b.op("pad", x[0], low=(1, 0), high=(N, 2), value=3.0), [f64(N, 2)]),
    "concat": (lambda b, x: b.op("concat", *x, axis=1), [f64(2, N), f64(2, 3), f64(2, M)]),
    "twice": (lambda b, x: b.op("concat", x[0], x[0], axis=0), [f64(N)]),
    "beside": (lambda b, x: b.op("concat", x[0], b.constant([[1.0, 2.0]]), axis=0), [f64(3, 2)]),
    "repeat": (lambda b, x: b.op("repeat", x[0], factors=(1, 2, 3)), [f64(2, N, 3)]),
    "depth": (
        lambda b, x: b.op("depth_to_space", x[0], blocks=(2, 2), extents=(5, 6)),
        [f64(1, 8, 3, 3)],
    ),
    "depth last": (
        lambda b, x: b.op("depth_to_space", x[0], blocks=(2, 3), extents=(6, 8), layout="NHWC", order="CRD"),
        [f64(1, 3, 3, 12)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_movement_when_differentiated_then_agrees_with_differences(name: str) -> None:
    make, types = CASES[name]
    square = module_of(lambda b, x: b.op("mul", made := make(b, x), made), types)
    check(square, drawn(square, "main", 11), order=2)


def test_movement_when_one_operand_has_no_tangent_then_the_other_still_has() -> None:
    module = module_of(lambda b, x: b.op("concat", x[0], b.op("exp", x[1]), axis=0), [f64(2), tensor(F64, 2)])
    check(module, drawn(module, "main", 12))
