"""Element types and value types shared by all IR levels.

Takes nothing but numpy's dtypes; gives `DType` (what one element is) and `Type` (what one value is: a container of
elements with a shape whose extents may be symbolic). Invariant: both are immutable and equal by content.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import ml_dtypes
import numpy as np

from tessera_build.ir.core.dims import Extent

Kind = Literal["float", "signed", "unsigned", "bool"]
Container = Literal["scalar", "tensor", "vector", "memref"]


@dataclass(frozen=True, slots=True)
class DType:
    """One element type: our short `name`, its spelling in MLIR, its kind and its width in bits."""

    name: str
    mlir: str
    kind: Kind
    bits: int

    @property
    def bytes(self) -> int:
        """Storage of one element in bytes; sub-byte types are stored one to a byte until packed."""
        return max(1, self.bits // 8)

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The numpy dtype that holds this element type on the host."""
        return _NUMPY[self.name]

    @property
    def is_float(self) -> bool:
        """True for every floating-point type."""
        return self.kind == "float"

    def __str__(self) -> str:
        return self.name


F64 = DType("f64", "f64", "float", 64)
F32 = DType("f32", "f32", "float", 32)
BF16 = DType("bf16", "bf16", "float", 16)
F16 = DType("f16", "f16", "float", 16)
F8E4M3 = DType("f8e4m3", "f8E4M3FN", "float", 8)
F8E5M2 = DType("f8e5m2", "f8E5M2", "float", 8)
F8E4M3FNUZ = DType("f8e4m3fnuz", "f8E4M3FNUZ", "float", 8)
F8E5M2FNUZ = DType("f8e5m2fnuz", "f8E5M2FNUZ", "float", 8)
F8E8M0 = DType("f8e8m0", "f8E8M0FNU", "float", 8)
F6E2M3 = DType("f6e2m3", "f6E2M3FN", "float", 6)
F6E3M2 = DType("f6e3m2", "f6E3M2FN", "float", 6)
F4E2M1 = DType("f4e2m1", "f4E2M1FN", "float", 4)
I64 = DType("i64", "i64", "signed", 64)
I32 = DType("i32", "i32", "signed", 32)
I16 = DType("i16", "i16", "signed", 16)
I8 = DType("i8", "i8", "signed", 8)
I4 = DType("i4", "i4", "signed", 4)
I2 = DType("i2", "i2", "signed", 2)
U64 = DType("u64", "ui64", "unsigned", 64)
U32 = DType("u32", "ui32", "unsigned", 32)
U16 = DType("u16", "ui16", "unsigned", 16)
U8 = DType("u8", "ui8", "unsigned", 8)
U4 = DType("u4", "ui4", "unsigned", 4)
U2 = DType("u2", "ui2", "unsigned", 2)
BOOL = DType("bool", "i1", "bool", 1)

# The narrowest floats are for storage: arithmetic on them happens in f32.
STORAGE_FLOATS = (F8E4M3, F8E5M2, F8E4M3FNUZ, F8E5M2FNUZ, F8E8M0, F6E2M3, F6E3M2, F4E2M1)
_INTEGERS = (I64, I32, I16, I8, I4, I2, U64, U32, U16, U8, U4, U2)
DTYPES: dict[str, DType] = {d.name: d for d in (F64, F32, BF16, F16, *STORAGE_FLOATS, *_INTEGERS, BOOL)}
_BY_MLIR: dict[str, DType] = {d.mlir: d for d in DTYPES.values()}
_NUMPY: dict[str, np.dtype[np.generic]] = {
    "f64": np.dtype(np.float64),
    "f32": np.dtype(np.float32),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "f16": np.dtype(np.float16),
    "f8e4m3": np.dtype(ml_dtypes.float8_e4m3fn),
    "f8e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "f8e4m3fnuz": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "f8e5m2fnuz": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "f8e8m0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "f6e2m3": np.dtype(ml_dtypes.float6_e2m3fn),
    "f6e3m2": np.dtype(ml_dtypes.float6_e3m2fn),
    "f4e2m1": np.dtype(ml_dtypes.float4_e2m1fn),
    "i64": np.dtype(np.int64),
    "i32": np.dtype(np.int32),
    "i16": np.dtype(np.int16),
    "i8": np.dtype(np.int8),
    "i4": np.dtype(ml_dtypes.int4),
    "i2": np.dtype(ml_dtypes.int2),
    "u64": np.dtype(np.uint64),
    "u32": np.dtype(np.uint32),
    "u16": np.dtype(np.uint16),
    "u8": np.dtype(np.uint8),
    "u4": np.dtype(ml_dtypes.uint4),
    "u2": np.dtype(ml_dtypes.uint2),
    "bool": np.dtype(np.bool_),
}


def dtype_of(dtype: np.dtype[np.generic]) -> DType:
    """Our element type for a numpy dtype; raises `KeyError` for one that Tessera does not have."""
    for name, candidate in _NUMPY.items():
        if candidate == dtype:
            return DTYPES[name]
    raise KeyError(str(dtype))


def dtype_from_mlir(text: str) -> DType:
    """The element type spelled `text` in MLIR; raises `KeyError` for an unknown one."""
    return _BY_MLIR[text]


@dataclass(frozen=True, slots=True)
class Type:
    """The type of one value: graph tensors, tile vectors, memory references and scalars share this record."""

    container: Container
    dtype: DType
    shape: tuple[Extent, ...] = ()

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def static_shape(self) -> tuple[int, ...]:
        """The shape as integers; raises `ValueError` when an extent is symbolic."""
        return tuple(int_extent(extent) for extent in self.shape)

    def __str__(self) -> str:
        if self.container == "scalar":
            return self.dtype.name
        return f"{self.container}<{'x'.join([str(e) for e in self.shape] + [self.dtype.name])}>"


def int_extent(extent: Extent) -> int:
    """The extent as a number; raises `ValueError` when it is symbolic."""
    if isinstance(extent, int):
        return extent
    raise ValueError(f"extent {extent} is symbolic")


def number_in(value: float, dtype: DType) -> float | int:
    """`value` as a number of an element type: integers truncate and saturate, so that -inf is the smallest of them."""
    if dtype.is_float:
        return float(value)
    low = -(1 << (dtype.bits - 1)) if dtype.kind == "signed" else 0
    high = 1 if dtype.kind == "bool" else (1 << (dtype.bits - (dtype.kind == "signed"))) - 1
    if value <= low or value >= high:
        return low if value <= low else high
    return int(value)


def tensor(dtype: DType, *shape: Extent) -> Type:
    """A graph-level tensor type."""
    return Type("tensor", dtype, shape)


def tile(dtype: DType, *shape: int) -> Type:
    """A tile value of static shape."""
    return Type("vector", dtype, shape)


def memref(dtype: DType, *shape: Extent) -> Type:
    """A buffer or a view into one."""
    return Type("memref", dtype, shape)


def scalar(dtype: DType) -> Type:
    """A scalar value."""
    return Type("scalar", dtype)
