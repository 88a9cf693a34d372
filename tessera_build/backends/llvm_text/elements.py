"""Elements on their way between registers and memory.

Takes `Value`s; gives `Value`s. Invariant: bool and the 4-bit integers lie one to a byte in memory, and any byte but
zero reads as true.
"""

from __future__ import annotations

from tessera_build.backends.llvm_text.function_text import FunctionText
from tessera_build.backends.llvm_text.types import Value, constant, memory_type, register_type, with_dtype
from tessera_build.ir.core.types import U8, Type


def from_memory(out: FunctionText, raw: str, type_: Type) -> Value:
    """What was loaded, as a register holds it."""
    memory, register = memory_type(type_), register_type(type_)
    if memory == register:
        return Value(raw, type_)
    if type_.dtype.kind == "bool":  # any byte but zero is true
        zero = constant(with_dtype(type_, U8), 0)
        return out.instruction(f"icmp ne {memory} {raw}, {zero.text}", type_)
    return out.instruction(f"trunc {memory} {raw} to {register}", type_)


def to_memory(out: FunctionText, value: Value) -> Value:
    """A register's value, as memory holds it."""
    if memory_type(value.type) == register_type(value.type):
        return value
    byte = with_dtype(value.type, U8)
    opcode = "sext" if value.dtype.kind == "signed" else "zext"
    return out.instruction(f"{opcode} {value.typed} to {register_type(byte)}", byte)
