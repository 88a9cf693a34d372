"""Element types with numeric policies: `bf16 @ accum(f32)`.

Takes the core's element types; gives `Numeric`, an element type together with how numbers of it are added up, rounded,
cut off and scaled. Invariant: a policy is either honoured by what is traced under it or refused where it is used; it is
never dropped in silence.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace

from tessera.errors import LanguageError
from tessera.model.site import here
from tessera_build.ir.core import types
from tessera_build.ir.core.types import DTYPES, DType

_ALIASES = {
    "fp64": "f64",
    "fp32": "f32",
    "fp16": "f16",
    "float64": "f64",
    "float32": "f32",
    "float16": "f16",
    "bfloat16": "bf16",
    "fp8": "f8e4m3",
    "e4m3": "f8e4m3",
    "e5m2": "f8e5m2",
    "fp8e4m3": "f8e4m3",
    "fp8e5m2": "f8e5m2",
    "fp8_e4m3": "f8e4m3",
    "fp8_e5m2": "f8e5m2",
    **{f"int{bits}": f"i{bits}" for bits in (4, 8, 16, 32, 64)},
    **{f"uint{bits}": f"u{bits}" for bits in (4, 8, 16, 32, 64)},
}

# The largest finite number of each float type that can saturate.
LARGEST = {
    "f64": 1.7976931348623157e308,
    "f32": 3.4028234663852886e38,
    "bf16": 3.3895313892515355e38,
    "f16": 65504.0,
    "f8e4m3": 448.0,
    "f8e5m2": 57344.0,
    "f8e4m3fnuz": 240.0,
    "f8e5m2fnuz": 57344.0,
}


@dataclass(frozen=True, slots=True)
class Policy:
    """How numbers are treated: the type that sums are kept in, rounding, cutting off, and the scale of a loss."""

    accumulate: DType | None = None
    stochastic: bool = False
    saturating: bool = False
    scale: float = 1.0

    def joined(self, other: Policy) -> Policy:
        """Both policies; what `other` states comes before what this one states."""
        return Policy(
            other.accumulate or self.accumulate,
            self.stochastic or other.stochastic,
            self.saturating or other.saturating,
            other.scale if other.scale != 1.0 else self.scale,
        )

    def __str__(self) -> str:
        parts = [f"accum({self.accumulate})"] if self.accumulate else []
        parts += ["stochastic_round"] if self.stochastic else []
        parts += ["saturate"] if self.saturating else []
        parts += [f"loss_scale({self.scale:g})"] if self.scale != 1.0 else []
        return "".join(f" @ {part}" for part in parts)


NO_POLICY = Policy()


@dataclass(frozen=True, slots=True)
class Numeric:
    """An element type and its policy; `@` adds one to it."""

    dtype: DType
    policy: Policy = field(default=NO_POLICY)

    def __matmul__(self, policy: object) -> Numeric:
        if not isinstance(policy, Policy):
            raise LanguageError(
                "BAD_POLICY",
                "what follows @ in a type is no numeric policy",
                site=here(),
                expected="accum(f32), stochastic_round, loss_scale(1024) or saturate",
                found=repr(policy),
            )
        return replace(self, policy=self.policy.joined(policy))

    def __str__(self) -> str:
        return f"{self.dtype}{self.policy}"


def accum(numeric: object) -> Policy:
    """Sums of products and of elements are kept in this type and rounded once."""
    return Policy(accumulate=numeric_of(numeric).dtype)


def loss_scale(factor: float) -> Policy:
    """Gradients of a loss of this type are computed times `factor`, a power of two, and divided by it in the end."""
    number = isinstance(factor, int | float)  # pyright: ignore[reportUnnecessaryIsInstance]
    if not number or not math.isfinite(factor) or factor <= 0 or math.frexp(factor)[0] != 0.5:
        raise LanguageError(
            "BAD_POLICY", "a loss is scaled exactly", site=here(), expected="a power of two", found=repr(factor)
        )
    return Policy(scale=float(factor))


stochastic_round = Policy(stochastic=True)
saturate = Policy(saturating=True)

f64, f32, bf16, f16 = (Numeric(d) for d in (types.F64, types.F32, types.BF16, types.F16))
f8e4m3, f8e5m2 = Numeric(types.F8E4M3), Numeric(types.F8E5M2)
i64, i32, i16, i8, i4 = (Numeric(d) for d in (types.I64, types.I32, types.I16, types.I8, types.I4))
u64, u32, u16, u8, u4 = (Numeric(d) for d in (types.U64, types.U32, types.U16, types.U8, types.U4))
boolean = Numeric(types.BOOL)


def names_type(name: str) -> bool:
    """Whether a word is an element type's name, or looks like one."""
    return name in DTYPES or name in _ALIASES or re.fullmatch(r"(b?float|fp|tf|u?int|complex)\d+", name) is not None


def numeric_of(value: object) -> Numeric:
    """An element type by its record or by its name: f32, "fp32", "bf16", "int8"."""
    if isinstance(value, Numeric):
        return value
    if isinstance(value, DType):
        return Numeric(value)
    if isinstance(value, str):
        name = _ALIASES.get(value, value)
        if name in DTYPES:
            return Numeric(DTYPES[name])
        if name == "tf32":
            raise LanguageError(
                "UNKNOWN_DTYPE",
                "tf32 is a way to multiply, not to store",
                site=here(),
                expected="a storage type",
                hint="write f32",
            )
    raise LanguageError(
        "UNKNOWN_DTYPE",
        f"{value!r} is no element type",
        site=here(),
        expected=", ".join(DTYPES),
        hint="names such as fp32, float32 and int8 are understood too",
    )
