"""Products over pixels: which regions become such, and that they compute what they did."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.passes.multiply_pixels import MultiplyPixels
from tessera_build.ir.graph.passes.pipeline import run_passes
from tests.graph.graphs import assert_same_results, channel_constant, conv, nodes_of, normal, op_counts, ops_of, relu

pytestmark = pytest.mark.unit
Build = Callable[[GraphBuilder, int], int]


def _image(b: GraphBuilder, *shape: Extent) -> int:
    return b.input("x", tensor(F32, *shape))


def _after(shape: tuple[Extent, ...], build: Build) -> list[str]:
    """The ops after all passes, whose results are those before."""
    b = GraphBuilder(dims={"N": (1, None), "H": (1, None)})
    b.output("y", build(b, _image(b, *shape)))
    module = b.finish()
    after = run_passes(module, verify_each=True)
    assert_same_results(module, after)
    return ops_of(after)


def _strided(b: GraphBuilder, x: int, stride: int = 1, low: int = 0) -> int:
    weights = b.constant(normal(1, 8, 6, 1, 1))
    return b.op("conv", x, weights, strides=(stride, stride), low=(low, low), high=(0, 0), dilations=(1, 1))


@pytest.mark.parametrize("batch", [1, 3, symbol("N")])
def test_chain_when_run_then_products_and_nothing_is_transposed(batch: Extent) -> None:
    def build(b: GraphBuilder, x: int) -> int:
        first = relu(b, b.op("add", conv(b, x, 8, 1, 1), channel_constant(b, x, 2)))
        return relu(b, b.op("add", conv(b, first, 8, 3, 1), x))

    found = _after((batch, 8, 6, 8), build)
    assert found == ["reshape", "matmul", "add", "max", "matmul", "add", "max", "reshape"]


def test_operands_when_of_channels_pixels_or_one_number_then_they_broadcast_as_before() -> None:
    def build(b: GraphBuilder, x: int) -> int:
        y = conv(b, x, 8, 1, 1)
        gate = b.input("gate", tensor(F32, 2, 8, 1, 1))
        mask = b.input("mask", tensor(F32, 6, 8))
        return b.op("mul", b.op("add", b.op("mul", y, gate), mask), b.constant(normal(5, 1, 1, 1, 1)))

    assert op_counts_of(_after((2, 8, 6, 8), build)) == {"matmul": 1, "mul": 2, "add": 1}


def op_counts_of(ops: list[str]) -> dict[str, int]:
    """How often each op occurs, reshapes left out."""
    return {op: ops.count(op) for op in ops if op != "reshape"}


@pytest.mark.parametrize(
    "build",
    [
        lambda b, x: _strided(b, x, stride=2),
        lambda b, x: _strided(b, x, low=1),
        lambda b, x: conv(b, x, 6, 1, 1, groups=2),
        lambda b, x: conv(b, conv(b, x, 6, 1, 1), 6, 2, 3),
        lambda b, x: conv(b, relu(b, conv(b, x, 6, 1, 3)), 6, 2, 1),
        lambda b, x: b.op("reduce", conv(b, x, 6, 1, 1), kind="sum", axes=(2, 3)),
        lambda b, x: b.op("transpose", conv(b, x, 6, 1, 1), perm=(0, 2, 3, 1)),
        lambda b, x: b.op("mul", conv(b, x, 6, 1, 1), b.constant(normal(3, 8))),
    ],
    ids=["strided", "padded", "grouped", "before a window", "behind a window", "mean", "transposed", "by columns"],
)
def test_region_when_anything_in_or_beside_it_is_no_product_of_pixels_then_it_is_channels_last(build: Build) -> None:
    assert "matmul" not in _after((2, 6, 6, 8), build)


@pytest.mark.parametrize(
    ("shape", "outputs", "pays"),
    [
        ((1, 256, 28, 28), 64, True),
        ((1, 64, 28, 28), 256, True),
        ((1, 256, 28, symbol("H")), 64, False),  # pixels that are not known
        ((1, 256, 32, 32), 64, False),  # rows that share the sets of a cache
        ((1, 512, 7, 7), 512, False),  # lanes without pixels
        ((1, 1024, 14, 14), 512, False),  # a product that is cut into halves
        ((1, 16, 1, 1), 16, False),
    ],
)
def test_region_when_weighed_then_chosen_where_exchanges_cost_more(
    shape: tuple[Extent, ...], outputs: int, pays: bool
) -> None:
    b = GraphBuilder(dims={"H": (1, None)})
    b.output("y", conv(b, _image(b, *shape), outputs, 1, 1))
    assert ("matmul" in op_counts(MultiplyPixels().run(b.finish()))) == pays


def test_weights_when_their_rows_share_the_sets_of_a_cache_then_they_are_stored_by_columns() -> None:
    for inputs, across in ((1024, True), (1000, False)):
        b = GraphBuilder()
        b.output("y", conv(b, _image(b, 1, inputs, 14, 14), 64, 1, 1))
        module = b.finish()
        after = run_passes(module)
        (product,) = nodes_of(after, "matmul")
        assert product.attributes["transpose_a"] == across
        assert ops_of(after) == ["reshape", "matmul", "reshape"]
        assert_same_results(module, after)


def test_regions_when_one_has_a_window_then_the_other_is_rewritten_alone() -> None:
    b = GraphBuilder()
    x = _image(b, 1, 8, 6, 8)
    b.output("y", conv(b, x, 8, 1, 1))
    b.output("z", conv(b, b.input("w", tensor(F32, 1, 8, 6, 8)), 8, 2, 3))
    module = b.finish()
    after = MultiplyPixels().run(module)
    assert op_counts(after)["matmul"] == op_counts(after)["conv"] == 1
    assert_same_results(module, after)


def test_image_when_a_window_reads_it_too_then_it_is_transposed_once_for_both() -> None:
    b = GraphBuilder()
    x = _image(b, 1, 8, 6, 8)
    b.output("y", conv(b, x, 8, 1, 1))
    b.output("z", conv(b, x, 8, 2, 3))
    assert op_counts(MultiplyPixels().run(b.finish()))["conv"] == 2
