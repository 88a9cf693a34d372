"""Functions that are defined by a rational one, step by step.

Takes f32 values; gives f32 values. Invariant: the steps are those of `ir/core`, so the bits are those of the reference
wherever multiply-adds are fused.
"""

from __future__ import annotations

from tessera_build.ir.core.logistic import DENOMINATOR, LIMIT, NUMERATOR
from tessera_build.ir.core.math.emitter import Emitter, polynomial


def logistic(emitter: Emitter, x: int) -> int:
    """x * P(x²) / Q(x²) + 1/2, between 0 and 1; a NaN stays, as the first operand of every clamp."""
    below = emitter.op("min", x, emitter.const(LIMIT, x))
    bounded = emitter.op("max", below, emitter.const(-LIMIT, x))
    square = emitter.op("mul", bounded, bounded)
    above = emitter.op("mul", polynomial(emitter, square, NUMERATOR), bounded)
    ratio = emitter.op("div", above, polynomial(emitter, square, DENOMINATOR))
    result = emitter.op("add", ratio, emitter.const(0.5, x))
    return emitter.op("min", emitter.op("max", result, emitter.const(0.0, x)), emitter.const(1.0, x))
