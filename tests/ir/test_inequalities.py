"""Proofs that an extent is never negative, against Python's integers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tessera_build.ir.core.dims import Extent, Range, evaluate, floordiv, minimum, symbol
from tessera_build.ir.core.inequalities import never_negative

pytestmark = pytest.mark.unit
N, K = symbol("N"), symbol("K")
NATURAL: dict[str, Range] = {"N": (0, None), "K": (0, None)}


def test_slack_when_a_rest_was_rounded_down_then_is_never_negative() -> None:
    left = N - K
    assert never_negative(left - floordiv(minimum(128, left), 8) * 8, NATURAL)
    assert never_negative(left - minimum(128, left), NATURAL)
    assert never_negative(N - floordiv(floordiv(N, 2) * 2, 4) * 4, NATURAL)


def test_slack_when_a_rest_was_rounded_up_then_nothing_is_said() -> None:
    assert not never_negative(N - floordiv(N + 7, 8) * 8, NATURAL)
    assert not never_negative(N - K, NATURAL)
    assert not never_negative(floordiv(N, 8) * 7 - N, NATURAL)


def _extents(depth: int = 3) -> st.SearchStrategy[Extent]:
    leaves: st.SearchStrategy[Extent] = st.one_of(st.integers(-9, 9), st.sampled_from([N, K]))

    def grow(inner: st.SearchStrategy[Extent]) -> st.SearchStrategy[Extent]:
        return st.one_of(
            st.builds(minimum, inner, inner),
            st.builds(floordiv, inner, st.integers(1, 5)),
            st.builds(lambda a, b, c: a - b * c, inner, inner, st.integers(-4, 4)),
        )

    return st.recursive(leaves, grow, max_leaves=2**depth)


@given(_extents(), st.integers(0, 40), st.integers(0, 40))
def test_proof_when_there_is_one_then_holds_for_all_values(extent: Extent, n: int, k: int) -> None:
    if never_negative(extent, NATURAL):
        assert evaluate(extent, {"N": n, "K": k}) >= 0
