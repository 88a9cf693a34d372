"""Extents as an author meets them in `x.shape`: symbolic among whole numbers, tensors where numbers are floats.

Takes extents of Graph IR; gives `Size`s. Invariant: whole numbers and extents make extents, exactly and without a
node; everything else is computed by the model when it runs, as what stands beside a tensor is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Never, cast, final

import numpy as np

from tessera.errors import LanguageError
from tessera.model.site import here, is_ours
from tessera.model.trace import current
from tessera_build.ir.core.dims import Dim, Extent, bounds, floordiv, mod

Compute = Callable[[str, object, object], object]  # an op of two operands, one of them an extent, as a tensor


def sized(extent: Extent, compute: Compute) -> Extent:
    """An extent as the author computes with it; numbers are numbers."""
    return Size(extent, compute) if isinstance(extent, Dim) else extent


@final
class Size(Dim):
    """A symbolic extent: `n + 1`, `n * m`, `n // 2` are extents; `n * 0.5`, `1 / n`, `n ** 0.5` scalar tensors.

    What stands beside a tensor becomes a scalar of its type, by the tensor's own operators.
    """

    compute: Compute
    dim: Dim  # the same, as Graph IR has it
    __slots__ = ("compute", "dim")
    __array_ufunc__ = None  # numpy's operators leave these to us

    def __init__(self, dim: Dim, compute: Compute) -> None:
        plain = dim.dim if isinstance(dim, Size) else dim
        for name, value in (("terms", dim.terms), ("text", dim.text), ("symbols", dim.symbols)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "compute", compute)
        object.__setattr__(self, "dim", plain)

    def _of(self, op: str, other: object, *, reflected: bool = False) -> object:
        whole = _whole(other)
        if whole is not None and _stays_whole(op, self if reflected else other):
            left, right = (whole, self.dim) if reflected else (self.dim, whole)
            return sized(_WHOLE[op](left, right), self.compute)
        beside = _plain(other)
        if whole is None and not _is_number(beside):
            return NotImplemented
        return self.compute(op, beside, self) if reflected else self.compute(op, self, beside)

    def __add__(self, other: object) -> object:  # type: ignore[override]
        return self._of("add", other)

    def __radd__(self, other: object) -> object:  # type: ignore[override]
        return self._of("add", other, reflected=True)

    def __sub__(self, other: object) -> object:  # type: ignore[override]
        return self._of("sub", other)

    def __rsub__(self, other: object) -> object:  # type: ignore[override]
        return self._of("sub", other, reflected=True)

    def __mul__(self, other: object) -> object:  # type: ignore[override]
        return self._of("mul", other)

    def __rmul__(self, other: object) -> object:  # type: ignore[override]
        return self._of("mul", other, reflected=True)

    def __floordiv__(self, other: object) -> object:  # type: ignore[override]
        return self._of("floor_divide", other)

    def __rfloordiv__(self, other: object) -> object:
        return self._of("floor_divide", other, reflected=True)

    def __mod__(self, other: object) -> object:  # type: ignore[override]
        return self._of("mod", other)

    def __rmod__(self, other: object) -> object:
        return self._of("mod", other, reflected=True)

    def __truediv__(self, other: object) -> object:
        return self._of("div", other)

    def __rtruediv__(self, other: object) -> object:
        return self._of("div", other, reflected=True)

    def __pow__(self, other: object) -> object:
        return self._of("pow", other)

    def __rpow__(self, other: object) -> object:
        return self._of("pow", other, reflected=True)

    def __neg__(self) -> Extent:
        return sized(-self.dim, self.compute)

    def __eq__(self, other: object) -> bool:
        whole = _whole(other)
        if whole is None or whole == self.dim:
            return NotImplemented if whole is None else True
        asked_by = sys._getframe(1).f_code.co_filename  # pyright: ignore[reportPrivateUsage]
        if is_ours(asked_by) or self._differs(whole):  # the language itself asks whether they are written alike
            return False
        raise self._unknown("whether two numbers are equal")

    __hash__ = Dim.__hash__

    def _differs(self, other: Extent) -> bool:
        """Whether no sizes make both the same."""
        trace = current()
        low, high = bounds(self.dim - other, {} if trace is None else trace.builder.dims)
        return (low is not None and low > 0) or (high is not None and high < 0)

    def __lt__(self, other: object) -> bool:
        return self._compared(other)

    def __le__(self, other: object) -> bool:
        return self._compared(other)

    def __gt__(self, other: object) -> bool:
        return self._compared(other)

    def __ge__(self, other: object) -> bool:
        return self._compared(other)

    def _compared(self, other: object) -> bool:
        if _whole(other) is None and not isinstance(other, float):
            return NotImplemented  # a tensor compares its elements with it
        raise self._unknown("which of two numbers is larger")

    def __int__(self) -> Never:
        raise self._unknown("an integer")

    def __float__(self) -> Never:
        raise self._unknown("a number")

    def __index__(self) -> Never:
        raise self._unknown("an index or a count")

    def _unknown(self, what: str) -> LanguageError:
        return LanguageError(
            "EXTENT_AS_PYTHON",
            f"an extent is asked for {what} while the model is traced",
            site=here(),
            found=str(self),
            hint="it has no number until the model runs: graph.require demands one, --dims B=4 fixes it; "
            "op.dimension(n) is a tensor, and op.sqrt(n) another",
        )


def _whole(other: object) -> Extent | None:
    """A whole number or an extent; None for everything else."""
    plain = _plain(other)
    if isinstance(plain, Size):
        return plain.dim
    return plain if isinstance(plain, int | Dim) else None


def _is_number(other: object) -> bool:
    return isinstance(other, float | np.ndarray)


def _plain(number: object) -> object:
    """Python's number for one of numpy's, which has a type that nobody wrote."""
    return cast("np.generic[object]", number).item() if isinstance(number, np.integer | np.floating) else number


def _stays_whole(op: str, right: object) -> bool:
    """Whether whole numbers give an extent."""
    return op in _WHOLE and (op != "pow" or (isinstance(right, int) and right >= 0))


def _power(base: Extent, exponent: Extent) -> Extent:
    result: Extent = 1
    for _ in range(int(str(exponent))):
        result = result * base
    return result


def _by_positive(function: Callable[[Extent, Extent], Extent]) -> Callable[[Extent, Extent], Extent]:
    """A division of extents, whose divisors are above zero."""

    def checked(left: Extent, right: Extent) -> Extent:
        if isinstance(right, int) and right < 1:
            raise LanguageError(
                "BAD_EXTENT",
                "an extent is divided by a number that is not above zero",
                site=here(),
                expected="a number of 1 or more",
                found=str(right),
            )
        trace = current()
        if trace is not None:
            trace.require(right, ">=", 1, f"an extent is divided by {right}, which is not above zero")
        return function(left, right)

    return checked


_WHOLE: dict[str, Callable[[Extent, Extent], Extent]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floor_divide": _by_positive(floordiv),
    "mod": _by_positive(mod),
    "pow": _power,
}
