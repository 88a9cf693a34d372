"""How our types and constants are spelled in LLVM IR.

Takes `Type` and `DType`; gives LLVM type names, intrinsic suffixes and constants as text. Invariant: a value has one
spelling in registers and one in memory. They differ for bool and the 4-bit integers, which memory keeps one to a byte.
bf16 travels as i16 bits: LLVM's own `bfloat` needs a library call to round on processors without the instruction.
The storage floats travel as the bits of their byte.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tessera_build.backends.llvm_text.errors import CompileError
from tessera_build.ir.core.types import BF16, F16, F32, F64, STORAGE_FLOATS, DType, Type

_FLOATS = {F64: "double", F32: "float", F16: "half", BF16: "i16"} | dict.fromkeys(STORAGE_FLOATS, "i8")


@dataclass(frozen=True, slots=True)
class Value:
    """One SSA value or constant: its text as an operand and its type."""

    text: str
    type: Type

    @property
    def typed(self) -> str:
        """The operand with its LLVM type in front, as calls and returns want it."""
        return f"{register_type(self.type)} {self.text}"

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self.type.dtype


def lanes_of(type_: Type) -> int:
    """Lanes of a vector type, 0 for a scalar."""
    if type_.container == "vector":
        if type_.rank != 1:
            raise CompileError("vectors of the target level have one axis", found=str(type_))
        return type_.static_shape[0]
    return 0


def element_type(dtype: DType) -> str:
    """The LLVM type of one element in a register."""
    return _FLOATS[dtype] if dtype.is_float else f"i{dtype.bits}"


def memory_element(dtype: DType) -> str:
    """The LLVM type of one element in memory."""
    return f"i{8 * dtype.bytes}" if dtype.bits < 8 else element_type(dtype)


@lru_cache(maxsize=1024)  # asked for three times an instruction, of a few types
def register_type(type_: Type) -> str:
    """The LLVM type of a value in a register."""
    if type_.container == "memref":
        return "ptr"
    return vector_of(element_type(type_.dtype), lanes_of(type_))


def memory_type(type_: Type) -> str:
    """The LLVM type in which a scalar or vector is loaded and stored."""
    return vector_of(memory_element(type_.dtype), lanes_of(type_))


def vector_of(element: str, lanes: int) -> str:
    """`element` itself, or a vector of it."""
    return f"<{lanes} x {element}>" if lanes else element


def with_dtype(type_: Type, dtype: DType) -> Type:
    """The type with another element type and the same lanes."""
    return Type(type_.container, dtype, type_.shape)


_SUFFIX = {"double": "f64", "float": "f32", "half": "f16"}


def suffix(llvm_type: str) -> str:
    """The part of an overloaded intrinsic's name that stands for `llvm_type`: `<16 x float>` is `v16f32`."""
    if llvm_type == "ptr":
        return "p0"
    if llvm_type.startswith("<"):
        lanes, _, element = llvm_type[1:-1].partition(" x ")
        return f"v{lanes}{suffix(element)}"
    return _SUFFIX.get(llvm_type, llvm_type)


def scalar_constant(dtype: DType, value: float | int) -> str:
    """One element as LLVM writes it; a value that the type cannot hold is rounded (floats) or wrapped (integers)."""
    if dtype.kind == "bool":
        return "true" if value else "false"
    if not dtype.is_float:
        return str(_wrapped(dtype, int(value)))
    with np.errstate(over="ignore"):
        rounded = np.asarray(value, np.float64).astype(dtype.numpy)
    if dtype in STORAGE_FLOATS:
        return str(int(rounded.view(np.uint8)))
    if dtype in (BF16, F16):
        bits = int(rounded.view(np.uint16))
        return str(bits) if dtype == BF16 else f"0xH{bits:04X}"
    return f"0x{struct.unpack('>Q', struct.pack('>d', float(rounded)))[0]:016X}"


def _wrapped(dtype: DType, value: int) -> int:
    value &= (1 << dtype.bits) - 1
    return value - (1 << dtype.bits) if dtype.kind == "signed" and value >> (dtype.bits - 1) else value


def constant(type_: Type, value: float | int) -> Value:
    """A scalar constant, or the same one in every lane."""
    text = scalar_constant(type_.dtype, value)
    return Value(f"splat ({element_type(type_.dtype)} {text})" if lanes_of(type_) else text, type_)
