"""Quantised graphs through the passes: products become integer, ties stay ties.

Takes small graphs as an importer writes them; compares every stage with the reference before any pass. Invariant: what
does not qualify stays in floats, and the tests ask the graph which of both it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tessera_build.ir.core.types import F32, I8, I32, U8, DType, tensor
from tessera_build.ir.graph.builder import GraphBuilder, graph_nodes
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.passes.multiply_bytes import MultiplyBytes
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.graph.reference import run

WINDOW = {"strides": (1, 2), "low": (1, 0), "high": (1, 2), "dilations": (1, 1)}


def _dequantised(b: GraphBuilder, value: int, zero: Array | None, scale: Array) -> int:
    """(value - zero) * scale as importers write it."""
    if zero is not None:
        value = b.op("sub", b.op("cast", value, dtype=I32), b.constant(zero.astype(np.int32)))
    return b.op("mul", b.op("cast", value, dtype=F32), b.constant(scale.astype(np.float32)))


def _bytes(rng: np.random.Generator, dtype: DType, shape: Sequence[int]) -> Array:
    low, high = (0, 256) if dtype == U8 else (-128, 128)
    return rng.integers(low, high, shape).astype(dtype.numpy)


def _contractions(module: Module) -> list[DType]:
    function = module.entries["main"]
    return [function.types[n.output].dtype for n in graph_nodes(function) if n.op in ("matmul", "conv")]


def _assert_integer(b: GraphBuilder, data: NDArray[np.generic]) -> None:
    before = b.finish()
    after = MultiplyBytes().run(before)
    assert set(_contractions(after)) == {I32}
    wanted = run(before, "main", {"x": data})["y"].astype(np.float64)
    for module in (after, run_passes(before)):
        found = run(module, "main", {"x": data})["y"].astype(np.float64)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("left", [U8, I8], ids=str)
@pytest.mark.parametrize("right", [U8, I8], ids=str)
@pytest.mark.parametrize("form", ["plain", "transposed", "flag"])
def test_matmul_when_both_sides_are_dequantised_then_is_a_product_of_bytes(
    left: DType, right: DType, form: str
) -> None:
    rng, b = np.random.default_rng(4), GraphBuilder()
    flipped = form != "plain"
    x = _dequantised(b, b.input("x", tensor(left, 2, 5, 7)), _bytes(rng, left, ()), np.asarray(0.03))
    columns = (4, 1) if flipped else (4,)
    numbers = b.constant(_bytes(rng, right, (4, 7) if flipped else (7, 4)))
    w = _dequantised(b, numbers, _bytes(rng, right, columns), rng.uniform(0.1, 1, columns))
    w = b.op("transpose", w, perm=(1, 0)) if form == "transposed" else w
    b.output("y", b.op("matmul", x, w, transpose_b=form == "flag"))
    _assert_integer(b, _bytes(rng, left, (2, 5, 7)))


@pytest.mark.parametrize("left", [U8, I8], ids=str)
@pytest.mark.parametrize(("groups", "symmetric"), [(1, True), (1, False), (2, True)])
def test_conv_when_both_sides_are_dequantised_then_pads_count_as_zero(
    left: DType, groups: int, symmetric: bool
) -> None:
    rng, b = np.random.default_rng(4), GraphBuilder()
    x = _dequantised(b, b.input("x", tensor(left, 2, 6, 5, 7)), _bytes(rng, left, ()), np.asarray(0.03))
    zero = None if symmetric else _bytes(rng, I8, (4, 1, 1, 1))
    w = _dequantised(b, b.constant(_bytes(rng, I8, (4, 6 // groups, 3, 3))), zero, rng.uniform(0.1, 1, (4, 1, 1, 1)))
    b.output("y", b.op("conv", x, w, **WINDOW, groups=groups))
    _assert_integer(b, _bytes(rng, left, (2, 6, 5, 7)))


def _weights(b: GraphBuilder, *shape: int) -> int:
    return _dequantised(b, b.constant(_bytes(np.random.default_rng(1), I8, shape)), None, np.asarray(0.1))


def test_product_when_it_does_not_qualify_then_stays_in_floats() -> None:
    b = GraphBuilder()
    x = b.input("x", tensor(U8, 1, 4, 6, 6))
    numbers = _dequantised(b, x, None, np.asarray(0.5))
    b.output("depthwise", b.op("conv", numbers, _weights(b, 4, 1, 3, 3), **WINDOW, groups=4))
    rows = _dequantised(b, b.input("a", tensor(U8, 2, 70_000)), None, np.asarray(0.5))
    b.output("too long for i32", b.op("matmul", rows, _weights(b, 70_000, 2)))
    each = _dequantised(b, b.input("c", tensor(U8, 2, 9)), None, np.array([[0.5], [0.25]]))
    b.output("a scale a row", b.op("matmul", each, _weights(b, 9, 2)))
    data = _dequantised(b, b.input("d", tensor(I8, 9, 2)), None, np.asarray(0.5))
    one = _dequantised(b, b.input("e", tensor(U8, 2, 9)), None, np.asarray(0.5))
    b.output("weights are data", b.op("matmul", one, data))
    b.output("floats", b.op("matmul", b.input("f", tensor(F32, 2, 9)), _weights(b, 9, 2)))
    assert set(_contractions(MultiplyBytes().run(b.finish()))) == {F32}


@pytest.mark.parametrize("rounding", ["round", "floor", "ceil", "cast"])
def test_division_when_its_quotient_is_rounded_then_no_reciprocal_takes_its_place(rounding: str) -> None:
    b, steps = GraphBuilder(), np.asarray([0.1, 0.2, 0.3], np.float32)
    x = b.op("div", b.input("x", tensor(F32, 3)), b.constant(steps))
    b.output("rounded", b.op(rounding, x, **({"dtype": I32} if rounding == "cast" else {})))
    b.output("as it is", b.op("div", b.input("z", tensor(F32, 3)), b.constant(steps)))
    ops = [node.op for node in graph_nodes(run_passes(b.finish()).entries["main"])]
    assert ops.count("div") == 1
    assert ops.count("mul") == 1
