"""Quotients: `/` of floats, `//` and `%` of everything, by the interpreter and compiled, against numpy's."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from tessera import executor, graph, op
from tests.language.build import compiled
from tests.language.numeric import Doubles

INTEGERS = (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)
Whole = NDArray[np.int64]  # of any width


def _operands(kind: type) -> tuple[Whole, Whole]:
    """Dividends as a column and divisors as a row, with the ends of the type."""
    ends = np.iinfo(kind)
    signs = (1, -1) if ends.min < 0 else (1,)
    dividends = [ends.min, ends.max, 0, *(sign * n for n in (1, 2, 3, 5, 7) for sign in signs)]
    divisors = [ends.max, *(sign * n for n in (1, 2, 3, 7) for sign in signs), *([ends.min] if ends.min else [])]
    return cast(Whole, np.asarray(dividends, kind)[:, None].copy()), cast(Whole, np.asarray(divisors, kind)[None])


@pytest.mark.numerics
@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("interpreted", [True, False])
def test_integers_when_divided_then_quotient_and_rest_are_numpys(kind: type, interpreted: bool) -> None:
    a, b = _operands(kind)

    def divided(x: Whole, y: Whole) -> tuple[Whole, ...]:
        return x // y, x % y, 7 // y, 7 % y, (x // y) * y + x % y

    with executor.using(None) if interpreted else nullcontext():
        found = [np.asarray(part) for part in graph.jit(divided)(a, b)]
    with np.errstate(over="ignore"):  # the least number by -1 is itself again
        wanted = [a // b, a % b, kind(7) // b, kind(7) % b, np.broadcast_to(a, (len(a), b.shape[1]))]
    for got, expected in zip(found, wanted, strict=True):
        assert got.dtype == kind
        np.testing.assert_array_equal(got, expected)


@pytest.mark.numerics
@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("interpreted", [True, False])
def test_integers_when_divided_by_zero_then_are_zero(kind: type, interpreted: bool) -> None:
    a, _ = _operands(kind)
    with executor.using(None) if interpreted else nullcontext():
        both = graph.jit(lambda x, y: (x // y, x % y))(a, np.zeros((1, 1), kind))
    assert not any(np.asarray(part).any() for part in cast("tuple[Whole, ...]", both))


@pytest.mark.numerics
@pytest.mark.parametrize("interpreted", [True, False])
def test_floats_when_divided_to_whole_numbers_then_are_numpys(interpreted: bool) -> None:
    """1 // 0.1 is 9: the quotient that is rounded down is the exact one."""
    x = np.asarray([1, -1, 7.5, -7.5, 0, np.inf, 1e30, 3, np.nan, 1e-30], np.float32)[:, None].copy()
    y = np.asarray([0.1, -0.1, 2, -2, 0, np.inf, -np.inf, 3, 1e-10], np.float32)[None]
    with executor.using(None) if interpreted else nullcontext():
        found = np.asarray(graph.jit(lambda a, b: a // b)(x, y))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(found, x // y)


@pytest.mark.numerics
def test_floats_when_divided_to_whole_numbers_then_derivatives_are_zero_as_those_of_floor() -> None:
    x = np.asarray([0.7, -2.3, 5.1])

    def loss(v: Doubles) -> object:
        return op.reduce_sum(op.floor_divide(v, 0.75) + 2.0 // v)  # type: ignore[arg-type]

    with executor.using(None):
        np.testing.assert_array_equal(np.asarray(graph.jit(lambda v: graph.grad(loss)(v))(x)), np.zeros(3))


@pytest.mark.numerics
def test_saturating_integers_when_the_quotient_is_too_large_then_are_cut_off(tmp_path: Path) -> None:
    body = """
    from tessera import i8, saturate

    @graph.module("cut")
    def cut(x: Tensor[3, i8 @ saturate]):
        return x // -1, x // 2
    """
    found = compiled(tmp_path, body, {"x": np.asarray([-128, 127, -3], np.int8)}, verify=True)
    assert [part.tolist() for part in found.values()] == [[127, -127, 3], [-64, 63, -2]]
