"""Depthwise convolutions that stay channels-first: which do, and that they compute what they did."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.types import F32, F64, DType, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.graph.reference import run
from tests.graph.graphs import assert_same_results, channel_constant, conv, inputs_of, nodes_of, normal, op_counts, relu
from tests.lower.compiled import compile_module

pytestmark = pytest.mark.unit
Build = Callable[[GraphBuilder, int], int]
SHAPE = (2, 6, 9, 20)


def _module(build: Build, shape: tuple[Extent, ...] = SHAPE, dtype: DType = F32) -> Module:
    b = GraphBuilder(dims={"N": (1, None), "H": (1, None)})
    b.output("y", build(b, b.input("x", tensor(dtype, *shape))))
    return b.finish()


def _stays(module: Module, runs: bool = True) -> bool:
    """Whether all convolutions are channels-first after all passes and nothing is transposed; results stay the same."""
    after = run_passes(module, verify_each=True)
    if runs:
        assert_same_results(module, after)
    kept = {node.attributes["layout"] for node in nodes_of(after, "conv")} == {"NCHW"}
    assert kept == ("transpose" not in op_counts(after))
    return kept


def _depthwise(
    b: GraphBuilder, x: int, *kernel: int, step: int = 1, apart: int = 1, low: int = 1, high: int = 1
) -> int:
    channels, rank = b.type(x).static_shape[1], len(kernel)
    steps, spread = (step,) * rank, (apart,) * rank
    windows = {"strides": steps, "low": (low,) * rank, "high": (high,) * rank, "dilations": spread}
    return b.op("conv", x, b.constant(normal(5, channels, 1, *kernel)), **windows, groups=channels)


def _block(b: GraphBuilder, x: int) -> int:
    first = relu(b, b.op("add", conv(b, x, 6, 1, 3, groups=6), channel_constant(b, x, 2)))
    return b.op("mul", b.op("add", conv(b, first, 6, 3, 3, groups=6), x), b.constant(normal(4, 9, 20)))


@pytest.mark.parametrize(
    ("build", "stays"),
    [
        (_block, True),
        (lambda b, x: _depthwise(b, x, 3, 3, low=0, high=0), True),
        (lambda b, x: _depthwise(b, x, 3, 3, apart=2, low=2, high=1), True),
        (lambda b, x: _depthwise(b, x, 5, 5, low=2, high=2), False),
        (lambda b, x: _depthwise(b, x, 3, 3, step=2), False),
        (lambda b, x: conv(b, x, 12, 1, 3, groups=6), False),
        (lambda b, x: conv(b, conv(b, x, 6, 1, 3, groups=6), 6, 2, 1), False),
        (lambda b, x: b.op("reduce", conv(b, x, 6, 1, 3, groups=6), kind="sum", axes=(2, 3)), False),
    ],
    ids=["two", "no border", "apart", "25 taps", "steps of two", "two a channel", "beside a product", "mean"],
)
def test_depthwise_when_alone_with_elements_then_stays_channels_first(build: Build, stays: bool) -> None:
    assert _stays(_module(build)) == stays


@pytest.mark.parametrize(
    ("shape", "layers", "stays"),
    [
        ((1, 8, 56, 56), 4, True),
        ((1, 8, 56, 56), 9, False),  # the layers lose more than the ends
        ((symbol("N"), 8, 12, 14), 1, True),
        ((1, 8, symbol("H"), 14), 1, False),  # pixels that are not known
        ((1, 8, 3, 3), 2, False),  # lanes without pixels
    ],
)
def test_region_when_weighed_then_stays_where_exchanges_cost_more(
    shape: tuple[Extent, ...], layers: int, stays: bool
) -> None:
    def build(b: GraphBuilder, x: int) -> int:
        for seed in range(layers):
            x = relu(b, conv(b, x, 8, seed, 3, groups=8))
        return x

    assert _stays(_module(build, shape)) == stays


def test_depthwise_when_of_doubles_then_is_channels_last() -> None:
    def build(b: GraphBuilder, x: int) -> int:
        weights = b.constant(normal(1, 6, 1, 3, 3).astype(np.float64))
        windows = {"strides": (1, 1), "low": (1, 1), "high": (1, 1), "dilations": (1, 1)}
        return b.op("conv", x, weights, **windows, groups=6)

    assert not _stays(_module(build, dtype=F64), runs=False)  # the graphs' inputs are of f32


@pytest.mark.parametrize(
    ("shape", "build"),
    [
        ((2, 6, 9, 20), _block),
        ((1, 3, 56, 56), lambda b, x: _depthwise(b, x, 3, 3)),
        ((2, 3, 7, 7), lambda b, x: _depthwise(b, x, 3, 3)),
        ((1, 3, 5, 33), lambda b, x: _depthwise(b, x, 3, 3, low=0, high=0)),
        ((1, 3, 8, 40), lambda b, x: _depthwise(b, x, 3, 3, apart=2, low=3, high=1)),
        ((1, 3, 8, 40), lambda b, x: _depthwise(b, x, 1, 5, low=0, high=2)),
        ((2, 3, 50), lambda b, x: _depthwise(b, x, 7, low=3, high=3)),
        ((1, 3, 1, 24), lambda b, x: _depthwise(b, x, 3, 3)),
    ],
    ids=["two", "56", "7", "no border", "apart", "one row of taps", "one axis", "one row"],
)
def test_planes_when_compiled_then_are_what_the_reference_says(shape: tuple[int, ...], build: Build) -> None:
    module = run_passes(_module(build, shape))
    assert {node.attributes["layout"] for node in nodes_of(module, "conv")} == {"NCHW"}
    inputs = inputs_of(module)
    wanted = np.asarray(run(module, "main", inputs)["y"], np.float64)
    for threads in (1, 2):
        found = np.asarray(compile_module(module).run(inputs, {}, threads)["y"], np.float64)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())
