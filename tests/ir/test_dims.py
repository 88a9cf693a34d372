"""Symbolic dims against Python's integers: algebra, canonical text, bounds.

Takes random expressions and values of their symbols. Invariant: an expression means what Python computes for it,
however it was built.
"""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tessera_build.ir.core.dims import (
    Extent,
    Range,
    bounds,
    evaluate,
    floordiv,
    maximum,
    minimum,
    mod,
    parse_extent,
    substitute,
    symbol,
    symbols_of,
)

pytestmark = pytest.mark.unit

NAMES = ("N", "S", "batch")
# An expression twice over: as an extent, and as a function of the symbols' values.
Pair = tuple[Extent, Callable[[dict[str, int]], int]]


def _combine(left: Pair, right: Pair, kind: str, divisor: int) -> Pair:
    (a, f), (b, g) = left, right
    match kind:
        case "add":
            return a + b, lambda v: f(v) + g(v)
        case "sub":
            return a - b, lambda v: f(v) - g(v)
        case "mul":
            return a * b, lambda v: f(v) * g(v)
        case "max":
            return maximum(a, b), lambda v: max(f(v), g(v))
        case "min":
            return minimum(a, b), lambda v: min(f(v), g(v))
        case "floordiv":
            return floordiv(a, divisor), lambda v: f(v) // divisor
        case "mod":
            return mod(a, divisor), lambda v: f(v) % divisor
        case "floordiv_symbol":
            return floordiv(a, symbol("S") * divisor), lambda v: f(v) // (v["S"] * divisor)
        case _:
            return mod(a, symbol("S") * divisor), lambda v: f(v) % (v["S"] * divisor)


KINDS = ["add", "sub", "mul", "max", "min", "floordiv", "mod", "floordiv_symbol", "mod_symbol"]


def _named(name: str) -> Pair:
    return symbol(name), lambda values: values[name]


def _number(value: int) -> Pair:
    return value, lambda _: value


LEAVES = st.one_of(st.sampled_from(NAMES).map(_named), st.integers(-9, 9).map(_number))
PAIRS = st.recursive(
    LEAVES, lambda inner: st.builds(_combine, inner, inner, st.sampled_from(KINDS), st.integers(1, 7)), max_leaves=8
)
VALUES = st.fixed_dictionaries({name: st.integers(1, 40) for name in NAMES})


@settings(max_examples=500)
@given(PAIRS, VALUES)
def test_extent_when_evaluated_then_equals_python(pair: Pair, values: dict[str, int]) -> None:
    extent, meaning = pair
    assert evaluate(extent, values) == meaning(values)


@given(PAIRS)
def test_extent_when_printed_then_parses_equal(pair: Pair) -> None:
    extent, _ = pair
    assert parse_extent(str(extent)) == extent
    assert isinstance(extent, int) or symbols_of(extent)


@settings(max_examples=500)
@given(PAIRS, VALUES)
def test_substitute_when_done_one_by_one_then_equals_all_at_once(pair: Pair, values: dict[str, int]) -> None:
    extent, meaning = pair
    for name in NAMES:
        extent = substitute(extent, {name: values[name]})
    assert extent == meaning(values)


@settings(max_examples=500)
@given(PAIRS, VALUES, st.integers(0, 9), st.integers(0, 9))
def test_bounds_when_symbols_in_range_then_contain_value(
    pair: Pair, values: dict[str, int], below: int, above: int
) -> None:
    extent, meaning = pair
    ranges: dict[str, Range] = {n: (max(1, v - below), v + above) for n, v in values.items()}
    low, high = bounds(extent, ranges)
    assert low is not None
    assert high is not None
    assert low <= meaning(values) <= high
    one_sided: dict[str, Range] = dict.fromkeys(values, (1, None))
    low, high = bounds(extent, one_sided)
    assert low is None or low <= meaning(values)
    assert high is None or meaning(values) <= high


def test_bounds_when_one_operand_is_unbounded_then_come_from_the_other() -> None:
    n = symbol("N")
    assert bounds(minimum(16, n - 5), {}) == (None, 16)
    assert bounds(96 - minimum(16, n - 5) * 6, {}) == (0, None)
    assert bounds(maximum(n - 5, 3), {}) == (3, None)
    assert bounds(minimum(16, n), {"N": (2, None)}) == (2, 16)


@given(PAIRS, PAIRS)
def test_sums_when_reordered_then_are_equal_and_hash_equal(left: Pair, right: Pair) -> None:
    a, b = left[0], right[0]
    assert a + b == b + a
    assert hash(a * b) == hash(b * a)
    assert a - a == 0


def test_multiples_when_divided_then_leave_no_function() -> None:
    n = symbol("N")
    assert floordiv(n * 8 + 16, 8) == n + 2
    assert mod(n * 8 + 3, 8) == 3
    assert floordiv(n * 6, n * 2) == 3


def test_multiples_of_several_terms_when_divided_then_leave_no_function() -> None:
    b, q = symbol("B"), floordiv(symbol("L"), 5)
    assert floordiv(b * q * 64 - b * 64, b * q * 16 - b * 16) == 4
    assert floordiv(b * q - b, q - 1) == b
    assert mod((b + q) * (b + q), b + q) == 0
    assert floordiv(b * 3 + 3, b * 2 + 2) != 1
    assert evaluate(floordiv(b * q, q + 1), {"B": 7, "L": 10}) == 4


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=3))
def test_product_when_divided_by_a_factor_then_is_the_other(terms: list[tuple[int, int, int]]) -> None:
    a, b = symbol("A"), symbol("B")
    factor, whole = a * 2 + b + 1, a * 0
    for coefficient, left, right in terms:
        piece = a * 0 + coefficient
        for _ in range(left):
            piece = piece * a
        for _ in range(right):
            piece = piece * b
        whole = whole + piece
    for values in ({"A": 1, "B": 2}, {"A": 4, "B": 1}):
        assert evaluate(floordiv(whole * factor, factor), values) == evaluate(whole, values)


@pytest.mark.parametrize(
    "text", ["", "N+", "f(N, 2)", "N**2", "'x'", "max(N)", "1.5", "N if N else 2", "True", "mod(4, 0)"]
)
def test_text_when_not_a_dimension_then_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="dimension"):
        parse_extent(text)
