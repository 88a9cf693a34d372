"""Conversions of elements: Cast, CastLike, BitCast.

Takes a tensor and the type to convert to; gives the tensor converted. Invariant: what ONNX says about values beyond
the narrow types is made of core ops here; the core `cast` itself never saturates.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed
from tessera_build.frontends.onnx.load import element_type
from tessera_build.ir.core.types import BOOL, F8E4M3, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F8E8M0, F32, U8, U32, DType

LARGEST: Mapping[DType, float] = {F8E4M3: 448.0, F8E5M2: 57344.0, F8E4M3FNUZ: 240.0, F8E5M2FNUZ: 57344.0}
_ROUNDINGS = ("up", "down", "nearest")


def converted(c: Context, x: Tensor, target: DType, saturate: bool) -> Tensor:
    """A cast; one to an 8-bit float saturates, if asked, where the type would give infinity or NaN."""
    if target in LARGEST and saturate and x.dtype != target:
        wide = x if x.dtype.is_float and x.dtype.bits > 8 else c.cast(x, F32)
        low, high = (c.scalar(edge, wide.dtype) for edge in (-LARGEST[target], LARGEST[target]))
        return c.cast(c.op("min", c.op("max", wide, low), high), target)
    return c.cast(x, target)


def _to_exponent(c: Context, x: Tensor, saturate: bool, rounding: str) -> Tensor:
    """The exponent of an f32 alone, rounded as asked; signs are dropped, infinities and NaN have code 255."""
    if rounding not in _ROUNDINGS:
        raise ill_formed("Cast's round_mode is unknown", expected=" | ".join(_ROUNDINGS), found=rounding)

    def number(value: int) -> Tensor:
        return c.scalar(value, U32)

    bits = c.op("bitcast", c.cast(x, F32), dtype=U32)
    exponent = c.op("and", c.op("shr", bits, number(23)), number(255))
    fraction = c.op("and", bits, number((1 << 23) - 1))
    if rounding == "up":
        raised = c.op("ne", fraction, number(0))
    else:
        # A tie goes up, but at the bottom, where there is no even exponent below it.
        half = c.op("select", c.op("eq", exponent, number(0)), number((1 << 22) + 1), number(1 << 22))
        raised = c.op("ge", fraction, half)
    below = c.op("lt", exponent, number(254 if saturate else 255))
    following = exponent
    if rounding != "down":
        following = c.op("add", exponent, c.cast(c.op("and", raised, below), U32))
    return c.op("bitcast", c.cast(following, U8), dtype=F8E8M0)


def _cast_to(c: Context, n: Call, x: Tensor, target: DType) -> Tensor:
    saturate, rounding = bool(n.integer("saturate", 1)), n.text("round_mode", "up")
    if target == F8E8M0 and x.dtype != target:
        return _to_exponent(c, x, saturate, rounding)
    return converted(c, x, target, saturate)


def _cast(c: Context, n: Call) -> Tensor:
    return _cast_to(c, n, n.input(0), element_type(_code(n), "Cast's result"))


def _code(n: Call) -> int:
    """The type to convert to: before opset 6 it was written as a word."""
    stated = n.value("to")
    if isinstance(stated, str):
        codes = dict(onnx.TensorProto.DataType.items())
        if stated.upper() not in codes:
            raise ill_formed(f"{n.op}'s attribute to names no type", found=stated)
        return codes[stated.upper()]
    return n.integer("to")


def _cast_like(c: Context, n: Call) -> Tensor:
    return _cast_to(c, n, n.input(0), n.input(1).dtype)


def _bit_cast(c: Context, n: Call) -> Tensor:
    x, target = n.input(0), element_type(n.integer("to"), "BitCast's result")
    # A truth value is one byte to ONNX, 0 or 1.
    source = c.cast(x, U8) if x.dtype == BOOL else x
    wanted = U8 if target == BOOL else target
    if source.dtype.bits != wanted.bits:
        raise ill_formed(
            "BitCast keeps the width of elements", expected=f"a type as wide as {x.dtype}", found=str(target)
        )
    result = source if source.dtype == wanted else c.op("bitcast", source, dtype=wanted)
    return c.cast(result, target)


CASTING_OPERATORS: Mapping[str, Translator] = {"Cast": _cast, "CastLike": _cast_like, "BitCast": _bit_cast}
