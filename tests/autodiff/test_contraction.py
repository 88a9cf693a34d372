"""Derivatives of matrix products and convolutions."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tessera_build.ir.core.dims import Dim, symbol
from tessera_build.ir.graph.builder import GraphBuilder
from tests.autodiff.checking import check, drawn, f64, module_of

pytestmark = pytest.mark.unit

N, M, H, W = (symbol(name) for name in "NMHW")


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("batches", [((), ()), ((2,), ()), ((), (2,)), ((2, 1), (3,)), ((N,), (N,)), ((N, M), ())])
def test_matmul_when_differentiated_then_agrees_with_differences(
    transpose_a: bool, transpose_b: bool, batches: tuple[tuple[int | Dim, ...], tuple[int | Dim, ...]]
) -> None:
    a, b = ((4, 2) if transpose_a else (2, 4)), ((3, 4) if transpose_b else (4, 3))
    module = module_of(
        lambda g, x: g.op("matmul", *x, transpose_a=transpose_a, transpose_b=transpose_b),
        [f64(*batches[0], *a), f64(*batches[1], *b)],
    )
    check(module, drawn(module, "main", 20), order=2)


@dataclass(frozen=True)
class Conv:
    """A convolution of an image or a line."""

    x: tuple[int | Dim, ...]
    w: tuple[int, ...]
    strides: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: int = 1
    layout: str = "NCHW"

    def make(self, builder: GraphBuilder, x: list[int]) -> int:
        """The node."""
        windows = {"strides": self.strides, "low": self.low, "high": self.high, "dilations": self.dilations}
        return builder.op("conv", *x, **windows, groups=self.groups, layout=self.layout)


CONVOLUTIONS = {
    "line": Conv((2, 3, 8), (4, 3, 3), (1,), (1,), (1,), (1,)),
    "pointwise": Conv((N, 3, H, W), (4, 3, 1, 1), (1, 1), (0, 0), (0, 0), (1, 1)),
    "same": Conv((2, 2, H, W), (3, 2, 3, 3), (1, 1), (1, 1), (1, 1), (1, 1)),
    "stride": Conv((1, 2, 7, 8), (3, 2, 3, 3), (2, 2), (1, 1), (1, 1), (1, 1)),
    "symbolic stride": Conv((N, 2, H, W), (3, 2, 3, 3), (2, 2), (1, 1), (1, 1), (1, 1)),
    "down": Conv((1, 2, H, W), (3, 2, 1, 1), (2, 2), (0, 0), (0, 0), (1, 1)),
    "patches": Conv((1, 2, 8, 6), (5, 2, 4, 3), (4, 3), (0, 0), (0, 0), (1, 1)),
    "dilated": Conv((1, 2, 9, 9), (2, 2, 3, 2), (1, 2), (2, 1), (2, 0), (2, 3)),
    "both": Conv((1, 2, 11, 10), (2, 2, 3, 3), (2, 3), (2, 0), (1, 2), (2, 2)),
    "uneven": Conv((1, 1, 10, 9), (2, 1, 2, 5), (3, 4), (0, 2), (1, 3), (1, 1)),
    "groups": Conv((2, 4, 6, 5), (6, 2, 3, 3), (1, 2), (1, 1), (1, 1), (1, 1), 2),
    "depthwise": Conv((2, 4, 6, 5), (4, 1, 3, 3), (1, 1), (1, 1), (1, 1), (1, 1), 4),
    "multiplier": Conv((1, 2, 6, 5), (4, 1, 3, 3), (2, 1), (1, 1), (1, 1), (1, 1), 2),
    "last": Conv((N, 7, 6, 3), (4, 3, 3, 3), (2, 2), (1, 1), (1, 1), (1, 1), 1, "NHWC"),
    "last groups": Conv((1, 7, 6, 4), (4, 2, 3, 3), (1, 2), (0, 1), (2, 1), (1, 1), 2, "NHWC"),
    "space": Conv((1, 2, 4, 4, 5), (2, 2, 2, 3, 2), (1, 2, 2), (1, 1, 0), (0, 1, 0), (1, 1, 1)),
    "padded beyond": Conv((1, 1, 5, 5), (1, 1, 1, 2), (1, 1), (2, 3), (1, 2), (1, 1)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_conv_when_differentiated_then_agrees_with_differences_to_second_order(name: str) -> None:
    case = CONVOLUTIONS[name]
    module = module_of(case.make, [f64(*case.x), f64(*case.w)])
    check(module, drawn(module, "main", 21), order=2)
