"""Division by a number that is known: a product by its reciprocal in two parts, which rounds as the division does.

Takes a program under construction and a divisor; gives the quotient. Invariant: both parts of the reciprocal have the
divisor's sign, so that infinities, zeros and NaN give what they give when divided.

A division blocks its unit for several cycles, products are issued in every one. The reciprocal alone is no way out:
that of 6 is off by 3e-8, by as much in every element, and sums over images do not average that away.
"""

from __future__ import annotations

import math

import numpy as np

from tessera_build.ir.core.scalar import ScalarBuilder
from tessera_build.ir.core.types import F32, DType

# Within these powers of two the lower part of the reciprocal, 2^-24 of it or less, is a normal number.
_LARGEST_POWER = 100


def has_parts(divisor: float, dtype: DType) -> bool:
    """Whether quotients by this divisor may be made by `quotient`. Below 32 bits a fused product rounds too often."""
    return dtype == F32 and math.isfinite(divisor) and 2.0**-_LARGEST_POWER <= abs(divisor) <= 2.0**_LARGEST_POWER


def quotient(builder: ScalarBuilder, dividend: int, divisor: float) -> int:
    """`dividend` / `divisor`, both f32.

    The parts give the reciprocal to 2^-46, so that the quotient is the rounded one unless the exact one is about as
    near to half way between two floats: of those that are floats, as 41 / 41, none is. Quotients below 2^-100 may be
    off by their last digit, since the product with the lower part is no normal number there.
    """
    upper, lower = _parts(divisor)
    if lower == 0:
        return builder.op("mul", dividend, builder.const(upper, F32))
    rest = builder.op("mul", dividend, builder.const(lower, F32))
    return builder.op("fma", dividend, builder.const(upper, F32), rest)


def _parts(divisor: float) -> tuple[float, float]:
    """The reciprocal rounded towards zero, and what is left of it: a lower part of the other sign would make a NaN of
    an infinity."""
    whole = 1.0 / divisor
    upper = np.float32(whole)
    if abs(float(upper)) > abs(whole):
        upper = np.nextafter(upper, np.float32(0))
    return float(upper), float(np.float32(whole - float(upper)))
