"""The table of expansions: every scalar operation that is not a row of Target IR's `OPS`.

Takes an operation's name, an emitter and operand values; gives the result's value. Invariant: a row states the
element types that it can be written in and its error in ULP; f16 and bf16 compute in f32 and round once at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tessera_build.ir.core.math import (
    exponential,
    inverse,
    logarithm,
    power,
    rational,
    remainder,
    simple,
    trigonometric,
)
from tessera_build.ir.core.math.emitter import Emitter
from tessera_build.ir.core.types import BF16, F16, F32

_BOTH = ("f32", "f64")
_ANY: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Expansion:
    """`ulp` is the largest error in units in the last place of f32, None where the
    result is exact, step by step what the scalar operation is defined to be."""

    expand: Callable[..., int]
    operands: int
    dtypes: tuple[str, ...]
    ulp: float | None


# Rounded once from f64, where their own bounds are those of `DOUBLE_ULP`.
_IN_DOUBLE = {
    "tan": inverse.tan,
    "asin": inverse.asin,
    "acos": inverse.acos,
    "atan": inverse.atan,
    "sinh": inverse.sinh,
    "cosh": inverse.cosh,
    "asinh": inverse.asinh,
    "acosh": inverse.acosh,
    "atanh": inverse.atanh,
}
DOUBLE_ULP = {
    "tan": 4.0,
    "asin": 2.5,
    "acos": 2.0,
    "atan": 2.0,
    "sinh": 4.0,
    "cosh": 3.5,
    "asinh": 2.5,
    "acosh": 3.0,
    "atanh": 2.5,
    "erf": 2.5,
}
# Bounds that hold for machines without fused multiply-add, where they are not those of the others.
UNFUSED_ULP = {"exp": 1.25}
EXPANSIONS: dict[str, Expansion] = {
    "exp": Expansion(exponential.exp, 1, _BOTH, 1.0),
    "tanh": Expansion(exponential.tanh, 1, _BOTH, 2.5),
    "sigmoid": Expansion(exponential.sigmoid, 1, _BOTH, 2.5),
    "logistic": Expansion(rational.logistic, 1, ("f32",), None),
    "erf": Expansion(exponential.erf, 1, _BOTH, 2.0),
    "log": Expansion(logarithm.log, 1, _BOTH, 1.0),
    "sin": Expansion(trigonometric.sin, 1, _BOTH, 2.0),
    "cos": Expansion(trigonometric.cos, 1, _BOTH, 2.0),
    "pow": Expansion(power.power, 2, _BOTH, 1.5),
    "rsqrt": Expansion(simple.rsqrt, 1, _BOTH, 1.5),
    **{name: Expansion(inverse.in_double(function), 1, _BOTH, 0.51) for name, function in _IN_DOUBLE.items()},
    "mod": Expansion(remainder.mod, 2, _ANY, None),
    "rem": Expansion(remainder.rem, 2, _ANY, None),
    "shl": Expansion(simple.shift_left, 2, _ANY, None),
    "shr": Expansion(simple.shift_right, 2, _ANY, None),
    "sign": Expansion(simple.sign, 1, _ANY, None),
    "isnan": Expansion(simple.isnan, 1, _ANY, None),
    "minimum": Expansion(simple.minimum, 2, _ANY, None),
    "maximum": Expansion(simple.maximum, 2, _ANY, None),
}


def can_expand(name: str, dtype_name: str) -> bool:
    """Whether an operation can be written out for operands of an element type."""
    row = EXPANSIONS.get(name)
    return row is not None and (not row.dtypes or dtype_name in row.dtypes or dtype_name in (BF16.name, F16.name))


def expand(name: str, emitter: Emitter, *operands: int) -> int:
    """Write an operation out; raises `KeyError` where `can_expand` says no."""
    row, dtype = EXPANSIONS[name], emitter.dtype(operands[0])
    if not can_expand(name, dtype.name):
        raise KeyError(f"{name} of {dtype}")
    if len(operands) != row.operands:
        raise KeyError(f"{name} of {len(operands)} operands")
    if dtype not in (F16, BF16):
        return row.expand(emitter, *operands)
    result = row.expand(emitter, *(emitter.cast(operand, F32) for operand in operands))
    return emitter.cast(result, dtype) if emitter.dtype(result) == F32 else result
