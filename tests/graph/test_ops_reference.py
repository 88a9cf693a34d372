"""References of the ops against formulas written out element by element."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.types import F32, I32
from tessera_build.ir.graph.infer import complete, op_named
from tessera_build.ir.graph.nodes import Array, Attribute
from tests.graph.graphs import assert_close, normal

pytestmark = pytest.mark.numerics


def evaluated(op: str, *arrays: Array, **attributes: Attribute) -> Array:
    record = op_named(op)
    assert record.evaluate is not None
    (result,) = record.evaluate(arrays, complete(record, attributes), {"N": 3})
    return result


def positions(shape: Sequence[int]) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(extent) for extent in shape)))


def brute_conv(x: Array, w: Array, window: Mapping[str, tuple[int, ...]], groups: int) -> Array:
    """The sum of products of every output element, one at a time, in float64."""
    spatial = x.ndim - 2
    strides, low, high, dilations = (window[name] for name in ("strides", "low", "high", "dilations"))
    out = [
        (x.shape[2 + i] + low[i] + high[i] - dilations[i] * (w.shape[2 + i] - 1) - 1) // strides[i] + 1
        for i in range(spatial)
    ]
    result = np.zeros((x.shape[0], w.shape[0], *out))
    outputs_a_group = w.shape[0] // groups
    for n, o, *place in positions(result.shape):
        for c, *tap in positions(w.shape[1:]):
            at = [p * s - b + t * d for p, s, b, t, d in zip(place, strides, low, tap, dilations, strict=True)]
            if all(0 <= a < x.shape[2 + i] for i, a in enumerate(at)):
                channel = o // outputs_a_group * w.shape[1] + c
                result[(n, o, *place)] += float(x[(n, channel, *at)]) * float(w[(o, c, *tap)])
    return result.astype(x.dtype)


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "strides", "low", "high", "dilations", "groups"),
    [
        ((2, 3, 6, 5), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1), (1, 1), 1),
        ((1, 4, 7, 6), (6, 2, 3, 2), (2, 1), (0, 1), (2, 0), (1, 2), 2),
        ((2, 4, 5, 5), (8, 1, 3, 3), (2, 2), (1, 0), (0, 1), (1, 1), 4),
        ((1, 2, 9), (3, 2, 4), (2,), (2,), (1,), (2,), 1),
        ((1, 2, 3, 4, 3), (2, 1, 2, 2, 2), (1, 2, 1), (0, 0, 1), (1, 0, 0), (1, 1, 1), 2),
    ],
)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_conv_when_strided_dilated_grouped_then_equals_the_sum_of_products(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    strides: tuple[int, ...],
    low: tuple[int, ...],
    high: tuple[int, ...],
    dilations: tuple[int, ...],
    groups: int,
    layout: str,
) -> None:
    x, w = normal(1, *x_shape), normal(2, *w_shape)
    window = {"strides": strides, "low": low, "high": high, "dilations": dilations}
    given = x if layout == "NCHW" else np.moveaxis(x, 1, -1)
    attributes: dict[str, Attribute] = {**window, "groups": groups, "layout": layout}
    found = evaluated("conv", given, w, **attributes)
    expected = brute_conv(x, w, window, groups)
    # Both sum in float64; only the last rounding to float32 may differ.
    assert_close(found if layout == "NCHW" else np.moveaxis(found, -1, 1), expected, rtol=3e-7, atol=1e-7)


@pytest.mark.parametrize(("kind", "identity"), [("max", -np.inf), ("min", np.inf), ("sum", 0.0)])
def test_reduce_window_when_padded_then_padding_is_the_identity(kind: str, identity: float) -> None:
    x = normal(3, 2, 5, 6, 3)
    window, strides, low, high, dilations = (1, 3, 2, 1), (1, 2, 1, 1), (0, 2, 0, 0), (0, 1, 1, 0), (1, 1, 2, 1)
    found = evaluated(
        "reduce_window", x, kind=kind, window=window, strides=strides, low=low, high=high, dilations=dilations
    )
    padded = np.pad(x.astype(np.float64), list(zip(low, high, strict=True)), constant_values=identity)
    combine = {"max": max, "min": min, "sum": sum}[kind]
    for place in positions(found.shape):
        taps = [
            float(padded[tuple(p * s + t * d for p, s, t, d in zip(place, strides, tap, dilations, strict=True))])
            for tap in positions(window)
        ]
        assert found[place] == pytest.approx(combine(taps), rel=1e-6, abs=1e-6)
    assert found.shape == (2, 3, 5, 3)


def test_reduce_window_when_integers_then_padding_never_wins() -> None:
    x = np.full((3,), np.iinfo(np.int32).min, np.int32)
    found = evaluated("reduce_window", x, kind="max", window=(2,), strides=(1,), low=(1,), high=(0,), dilations=(1,))
    assert found.tolist() == x.tolist()


def test_matmul_when_flags_are_set_then_operands_are_transposed() -> None:
    a, b = normal(4, 2, 1, 5, 3), normal(5, 4, 6, 5)
    expected = np.einsum("bhkm,hnk->bhmn", a.astype(np.float64), b.astype(np.float64))
    found = evaluated("matmul", a, b, transpose_a=True, transpose_b=True)
    assert_close(found, expected, rtol=3e-7, atol=1e-7)


def test_matmul_when_float32_then_accumulates_wider_than_float32() -> None:
    # In float32 the small terms vanish beside 2^24; accumulated in float64 and rounded once, they count.
    a = np.array([[2.0**24, *([1.0] * 64), -(2.0**24)]], np.float32)
    assert evaluated("matmul", a, np.ones((66, 1), np.float32))[0, 0] == 64.0


@pytest.mark.parametrize("kind", ["sum", "max", "min", "prod"])
def test_reduce_when_axes_are_given_then_reduces_those(kind: str) -> None:
    x = normal(6, 3, 4, 5)
    by_name = {"sum": np.sum, "max": np.max, "min": np.min, "prod": np.prod}[kind]
    expected = by_name(x.astype(np.float64), axis=(0, 2), keepdims=True)
    found = evaluated("reduce", x, kind=kind, axes=(0, 2), keepdims=True)
    assert_close(found, expected, rtol=1e-6)


def test_softmax_when_numbers_are_large_then_does_not_overflow() -> None:
    found = evaluated("softmax", np.array([[1000.0, 1000.0, -1000.0]], np.float32), axis=1)
    assert_close(found, [[0.5, 0.5, 0.0]], atol=1e-7)


def test_attention_when_masked_then_equals_its_composition() -> None:
    q, k, v, mask = normal(7, 2, 3, 4, 8), normal(8, 2, 3, 5, 8), normal(9, 2, 3, 5, 6), normal(10, 2, 1, 1, 5)
    product = evaluated("matmul", q, k, transpose_b=True)
    scores = evaluated("add", evaluated("mul", product, np.asarray(0.25, np.float32)), mask)
    expected = evaluated("matmul", evaluated("softmax", scores, axis=3), v)
    assert_close(evaluated("attention", q, k, v, mask, scale=0.25), expected, rtol=1e-5, atol=1e-6)


def test_gather_when_index_is_negative_then_counts_from_the_end() -> None:
    data = normal(11, 4, 3)
    found = evaluated("gather", data, np.array([[0, -1], [2, -4]]), axis=0)
    np.testing.assert_array_equal(found, data[[[0, 3], [2, 0]]])


@pytest.mark.errors
def test_gather_when_index_is_out_of_range_then_error() -> None:
    with pytest.raises(TesseraError, match="from -4 to 3"):
        evaluated("gather", normal(11, 4, 3), np.array([4]), axis=0)


def test_movement_when_evaluated_then_equals_numpy() -> None:
    x = normal(12, 4, 6)
    np.testing.assert_array_equal(evaluated("transpose", x, perm=(1, 0)), x.T)
    np.testing.assert_array_equal(evaluated("slice", x, starts=(1, 0), stops=(4, 5), steps=(1, 2)), x[1:4, 0:5:2])
    np.testing.assert_array_equal(evaluated("concat", x, x[:1], axis=0), np.vstack([x, x[:1]]))
    np.testing.assert_array_equal(evaluated("broadcast_to", x[:1], shape=(3, 1, 6)), np.broadcast_to(x[:1], (3, 1, 6)))
    padded = evaluated("pad", x, low=(1, 0), high=(0, 2), value=7.0)
    np.testing.assert_array_equal(padded, np.pad(x, [(1, 0), (0, 2)], constant_values=7.0))


def test_sources_when_dims_are_bound_then_use_their_values() -> None:
    assert evaluated("iota", shape=(2, symbol("N")), axis=1, dtype=I32).tolist() == [[0, 1, 2], [0, 1, 2]]
    assert evaluated("dimension", value=2 * symbol("N") + 1, dtype=F32) == np.float32(7)
