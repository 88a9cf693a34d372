"""Loads, stores, gathers, scatters, prefetches and stack slots of a kernel as LLVM instructions.

Takes the nodes of Target IR and a way to look up their operands; gives results as `Value`s. Invariant: masked-off
lanes touch no memory, and bool and 4-bit elements lie one to a byte in memory.
"""

from __future__ import annotations

from tessera_build.backends.llvm_text.elements import from_memory, to_memory
from tessera_build.backends.llvm_text.function_text import FunctionText
from tessera_build.backends.llvm_text.operations import emit_cast
from tessera_build.backends.llvm_text.types import (
    Value,
    constant,
    lanes_of,
    memory_element,
    memory_type,
    register_type,
    suffix,
)
from tessera_build.ir.core.types import I64, Type, tile
from tessera_build.ir.target.kernel import Alloca, Gather, Load, Prefetch, Scatter, Store

Operands = dict[int, Value]
_LOCALITY = {1: 3, 2: 2, 3: 1}


def emit_load(out: FunctionText, values: Operands, node: Load, type_: Type) -> Value:
    """A plain load, or a masked one whose other lanes are `other` (zero when absent)."""
    address = _address(out, values[node.pointer], values[node.index])
    alignment = node.alignment or type_.dtype.bytes
    if node.mask is None:
        raw = out.temporary(f"load {memory_type(type_)}, ptr {address}, align {alignment}")
        return from_memory(out, raw, type_)
    other = values[node.other] if node.other is not None else constant(type_, 0)
    mask, kept = values[node.mask], to_memory(out, other)
    if not lanes_of(type_):
        return _masked_scalar_load(out, f"ptr align {alignment} {address}", mask, kept)
    memory = memory_type(type_)
    types = ("ptr", register_type(mask.type), memory)
    arguments = (f"ptr align {alignment} {address}", mask.typed, kept.typed)
    raw = out.temporary(out.intrinsic(f"llvm.masked.load.{suffix(memory)}.p0", memory, types, arguments))
    return from_memory(out, raw, type_)


def _masked_scalar_load(out: FunctionText, pointer: str, mask: Value, other: Value) -> Value:
    """One element under a condition: a vector of one lane, which LLVM turns into a branch."""
    element = memory_element(other.dtype)
    types = ("ptr", "<1 x i1>", f"<1 x {element}>")
    lane = out.temporary(f"insertelement <1 x i1> poison, i1 {mask.text}, i64 0")
    kept = out.temporary(f"insertelement <1 x {element}> poison, {element} {other.text}, i64 0")
    call = out.intrinsic(
        f"llvm.masked.load.v1{suffix(element)}.p0",
        types[2],
        types,
        (pointer, f"<1 x i1> {lane}", f"{types[2]} {kept}"),
    )
    raw = out.temporary(f"extractelement {types[2]} {out.temporary(call)}, i64 0")
    return Value(raw, other.type)


def emit_gather(out: FunctionText, values: Operands, node: Gather, type_: Type) -> Value:
    """One element for each lane from pointer + index."""
    pointers, lanes = _addresses(out, values[node.pointer], values[node.indices])
    mask, other = values[node.mask], to_memory(out, values[node.other])
    memory = memory_type(type_)
    types = (f"<{lanes} x ptr>", register_type(mask.type), memory)
    arguments = (f"<{lanes} x ptr> align {type_.dtype.bytes} {pointers}", mask.typed, other.typed)
    name = f"llvm.masked.gather.{suffix(memory)}.v{lanes}p0"
    return from_memory(out, out.temporary(out.intrinsic(name, memory, types, arguments)), type_)


def emit_scatter(out: FunctionText, values: Operands, node: Scatter) -> None:
    """One element of each lane to pointer + index; of lanes with one address the last stays."""
    pointers, lanes = _addresses(out, values[node.pointer], values[node.indices])
    mask, value = values[node.mask], to_memory(out, values[node.value])
    memory = register_type(value.type)
    types = (memory, f"<{lanes} x ptr>", register_type(mask.type))
    arguments = (value.typed, f"<{lanes} x ptr> align {value.dtype.bytes} {pointers}", mask.typed)
    out.line(out.intrinsic(f"llvm.masked.scatter.{suffix(memory)}.v{lanes}p0", "void", types, arguments))


def emit_store(out: FunctionText, values: Operands, node: Store) -> None:
    """A plain, masked or streaming store."""
    value = to_memory(out, values[node.value])
    address = _address(out, values[node.pointer], values[node.index])
    alignment = node.alignment or value.dtype.bytes
    if node.mask is None:
        line = f"store {value.typed}, ptr {address}, align {alignment}"
        size = value.dtype.bytes * max(1, lanes_of(value.type))
        # LLVM splits a streaming store that is not aligned to its size into scalars.
        stream = f", !nontemporal {out.shared_metadata('!{i32 1}')}" if node.stream and alignment >= size else ""
        out.line(line + stream)
        return
    mask = values[node.mask]
    if not lanes_of(value.type):
        value, mask = _one_lane(out, value), _one_lane(out, mask)
    memory = register_type(value.type)
    types = (memory, "ptr", register_type(mask.type))
    arguments = (value.typed, f"ptr align {alignment} {address}", mask.typed)
    out.line(out.intrinsic(f"llvm.masked.store.{suffix(memory)}.p0", "void", types, arguments))


def _one_lane(out: FunctionText, value: Value) -> Value:
    type_ = tile(value.dtype, 1)
    return out.instruction(f"insertelement {register_type(type_)} poison, {value.typed}, i64 0", type_)


def emit_prefetch(out: FunctionText, values: Operands, node: Prefetch) -> None:
    """A hint to read; the address may lie outside the buffer."""
    address = _address(out, values[node.pointer], values[node.index])
    arguments = (f"ptr {address}", "i32 0", f"i32 {_LOCALITY.get(node.level, 3)}", "i32 1")
    out.line(out.intrinsic("llvm.prefetch.p0", "void", ("ptr", "i32", "i32", "i32"), arguments))


def emit_alloca(out: FunctionText, node: Alloca, type_: Type) -> Value:
    """A stack slot; in the entry block, so that a loop does not grow the stack."""
    name = out.name()
    out.entry_line(f"{name} = alloca [{node.elements} x {memory_element(type_.dtype)}], align 64")
    return Value(name, type_)


def _address(out: FunctionText, pointer: Value, index: Value) -> str:
    # Not `inbounds`: prefetches and the bases of masked vectors may lie outside.
    element = memory_element(pointer.dtype)
    if index.text == "0":
        return pointer.text
    return out.temporary(f"getelementptr {element}, ptr {pointer.text}, {_signed(out, index).typed}")


def _addresses(out: FunctionText, pointer: Value, indices: Value) -> tuple[str, int]:
    element = memory_element(pointer.dtype)
    text = f"getelementptr {element}, ptr {pointer.text}, {_signed(out, indices).typed}"
    return out.temporary(text), lanes_of(indices.type)


def _signed(out: FunctionText, index: Value) -> Value:
    """Address arithmetic sign-extends its index; an unsigned one is widened first."""
    return emit_cast(out, index, I64) if index.dtype.kind == "unsigned" else index
