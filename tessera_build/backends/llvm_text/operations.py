"""The operations of Target IR (`OPS`) as LLVM instructions, scalars and vectors alike.

Takes an operation's name and operand `Value`s; gives the result's. Invariant: no fast-math flag is ever set, so that
each operation rounds exactly once and equal inputs give equal bits on every machine. bf16 and f16 compute in f32 and
round after every operation.
"""

from __future__ import annotations

from tessera_build.backends.llvm_text.errors import CompileError
from tessera_build.backends.llvm_text.function_text import FunctionText
from tessera_build.backends.llvm_text.types import Value, constant, lanes_of, register_type, with_dtype
from tessera_build.ir.core.types import BF16, BOOL, F16, F32, F64, I32, I64, STORAGE_FLOATS, U32, U64, DType, Type

_FLOAT = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_INTEGER = {"add": "add", "sub": "sub", "mul": "mul", "shl": "shl", "lshr": "lshr", "ashr": "ashr"}
_LOGIC = {"and": "and", "or": "or", "xor": "xor"}
_FLOAT_COMPARE = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
_ORDER = {"lt", "le", "gt", "ge"}
_FLOAT_CALLS = {"abs": "fabs", "sqrt": "sqrt", "fma": "fma", "floor": "floor", "ceil": "ceil", "round": "roundeven"}
_NARROW = (BF16, F16)
_BUNDLED = {
    "dot4": {bits // 32: f"llvm.x86.avx512.vpdpbusd.{bits}" for bits in (128, 256, 512)},
    "dot2": {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"},
}


def emit_operation(out: FunctionText, name: str, operands: tuple[Value, ...], result: Type) -> Value:
    """Write one row of `OPS`; raises `CompileError` where the element type has no such operation."""
    if name == "select":
        condition, left, right = (operand.typed for operand in operands)
        return out.instruction(f"select {condition}, {left}, {right}", result)
    if name == "cast":
        return emit_cast(out, operands[0], result.dtype)
    if name == "bitcast" and register_type(operands[0].type) == register_type(result):
        return Value(operands[0].text, result)
    if name == "bitcast":
        return out.instruction(f"bitcast {operands[0].typed} to {register_type(result)}", result)
    if name in ("dot4", "dot2"):
        return _bundled(out, name, operands, result)
    if operands[0].dtype in STORAGE_FLOATS:
        raise CompileError(f"`{name}` is no operation on a storage type", found=str(operands[0].type))
    if operands[0].dtype in _NARROW:
        wide = tuple(emit_cast(out, operand, F32) for operand in operands)
        computed = emit_operation(out, name, wide, with_dtype(result, F32 if result.dtype in _NARROW else result.dtype))
        return emit_cast(out, computed, result.dtype)
    if name in _FLOAT_COMPARE:
        return _compare(out, name, operands[0], operands[1])
    if operands[0].dtype.is_float:
        return _float_operation(out, name, operands)
    return _integer_operation(out, name, operands)


def _binary(out: FunctionText, opcode: str, left: Value, right: Value) -> Value:
    return out.instruction(f"{opcode} {left.typed}, {right.text}", left.type)


def _compare(out: FunctionText, name: str, left: Value, right: Value) -> Value:
    if left.dtype.is_float:
        opcode = f"fcmp {_FLOAT_COMPARE[name]}"
    else:
        sign = ("s" if left.dtype.kind == "signed" else "u") if name in _ORDER else ""
        opcode = f"icmp {sign}{name}"
    return out.instruction(f"{opcode} {left.typed}, {right.text}", with_dtype(left.type, BOOL))


def _select(out: FunctionText, condition: Value, left: Value, right: Value) -> Value:
    return out.instruction(f"select {condition.typed}, {left.typed}, {right.typed}", left.type)


def _bundled(out: FunctionText, name: str, operands: tuple[Value, ...], result: Type) -> Value:
    """x86's products within lanes; the kernel was lowered for a machine that has them at this width."""
    names = _BUNDLED[name]
    if lanes_of(result) not in names:
        raise CompileError(f"`{name}` has no register of this width", found=str(result))
    types = tuple(register_type(operand.type) for operand in operands)
    call = out.intrinsic(names[lanes_of(result)], register_type(result), types, tuple(o.typed for o in operands))
    return out.instruction(call, result)


def _float_operation(out: FunctionText, name: str, operands: tuple[Value, ...]) -> Value:
    first = operands[0]
    if name in _FLOAT:
        return _binary(out, _FLOAT[name], first, operands[1])
    if name == "scale":
        return _scaled(out, first, operands[1])
    if name in _FLOAT_CALLS:
        return out.instruction(out.lane_intrinsic(_FLOAT_CALLS[name], *operands), first.type)
    if name == "neg":
        return out.instruction(f"fneg {first.typed}", first.type)
    if name in ("min", "max"):
        # The comparison has the shape that x86 matches to one minps or maxps, NaN rule included.
        chosen = _compare(out, "lt" if name == "min" else "gt", operands[1], first)
        return _select(out, chosen, operands[1], first)
    raise CompileError(f"`{name}` is no operation on floats", found=str(first.type))


def _scaled(out: FunctionText, value: Value, exponent: Value) -> Value:
    """AVX-512's instruction, with every lane chosen; at full width it is told to round as the processor does."""
    lanes, kind = lanes_of(value.type), register_type(value.type)
    bits = lanes * value.dtype.bits
    if bits not in (128, 256, 512) or value.dtype not in (F32, F64):
        raise CompileError("`scale` has no register of this width", found=str(value.type))
    mask = max(8, lanes)
    types, arguments = (kind,) * 3 + (f"i{mask}",), (value.typed, exponent.typed, value.typed, f"i{mask} -1")
    if bits == 512:
        types, arguments = (*types, "i32"), (*arguments, "i32 4")
    name = f"llvm.x86.avx512.mask.scalef.p{'s' if value.dtype == F32 else 'd'}.{bits}"
    return out.instruction(out.intrinsic(name, kind, types, arguments), value.type)


def _integer_operation(out: FunctionText, name: str, operands: tuple[Value, ...]) -> Value:
    first = operands[0]
    signed = first.dtype.kind == "signed"
    if name in _LOGIC or (name in _INTEGER and first.dtype != BOOL):
        return _binary(out, (_INTEGER | _LOGIC)[name], first, operands[1])
    if name in ("min", "max"):
        return out.instruction(out.lane_intrinsic(f"{'s' if signed else 'u'}{name}", *operands), first.type)
    if name == "mulhi":
        return _high_product(out, first, operands[1])
    if name == "neg":
        return _negated(out, first)
    if name == "not":
        return _binary(out, "xor", first, constant(first.type, -1))
    if name == "abs":
        return _select(out, _compare(out, "lt", first, constant(first.type, 0)), _negated(out, first), first)
    if name in ("floor", "ceil", "round"):
        return first
    if name in ("div", "rem"):
        return _divide(out, name, first, operands[1])
    raise CompileError(f"`{name}` is no operation on integers", found=str(first.type))


def _negated(out: FunctionText, value: Value) -> Value:
    return _binary(out, "sub", constant(value.type, 0), value)


def _high_product(out: FunctionText, left: Value, right: Value) -> Value:
    """Multiplied as 64 bits, which code generators see to be one widening product of 32 bits each."""
    wide = [emit_cast(out, operand, U64) for operand in (left, right)]
    product = _binary(out, "mul", wide[0], wide[1])
    return emit_cast(out, _binary(out, "lshr", product, constant(product.type, 32)), left.dtype)


def _divide(out: FunctionText, name: str, left: Value, right: Value) -> Value:
    """Division that never traps: by zero it is division by one (a `Check` reports it), by -1 it negates and wraps.

    Lanes that a mask leaves out hold zeros, so a vector's division must survive them.
    """
    signed = left.dtype.kind == "signed"
    opcode = f"{'s' if signed else 'u'}{name}"
    if _is_safe_divisor(right):
        return _binary(out, opcode, left, right)
    one, zero = constant(left.type, 1), constant(left.type, 0)
    refused = _compare(out, "eq", right, zero)
    if not signed:
        return _binary(out, opcode, left, _select(out, refused, one, right))
    minus = _compare(out, "eq", right, constant(left.type, -1))
    divisor = _select(out, _binary(out, "or", refused, minus), one, right)
    divided = _binary(out, opcode, left, divisor)
    if name == "rem":
        return divided
    return _select(out, minus, _negated(out, left), divided)


def _is_safe_divisor(value: Value) -> bool:
    if value.text.startswith("%"):
        return False
    return value.text not in {constant(value.type, forbidden).text for forbidden in (0, -1)}


def emit_cast(out: FunctionText, value: Value, dtype: DType) -> Value:
    """Numeric conversion; anything but zero is true, floats to integers truncate."""
    source = value.dtype
    if source == dtype:
        return value
    if source in STORAGE_FLOATS or dtype in STORAGE_FLOATS:
        raise CompileError("storage types are converted in ir/core/math", found=f"{source} to {dtype}")
    if source == BF16:
        return emit_cast(out, _widen_bf16(out, value), dtype)
    if dtype == BF16:
        return _narrow_to_bf16(out, emit_cast(out, value, F32))
    if F16 in (source, dtype) and F32 not in (source, dtype):
        return emit_cast(out, emit_cast(out, value, F32), dtype)
    if dtype == BOOL:
        return _compare(out, "ne", value, constant(value.type, 0))
    if source.is_float and not dtype.is_float:
        return _truncate(out, value, dtype)
    return _convert(out, _cast_opcode(source, dtype), value, dtype)


def _convert(out: FunctionText, opcode: str, value: Value, dtype: DType) -> Value:
    result = with_dtype(value.type, dtype)
    return out.instruction(f"{opcode} {value.typed} to {register_type(result)}", result)


def _truncate(out: FunctionText, value: Value, dtype: DType) -> Value:
    """A float to an integer; what lies out of range is the lowest i32 or i64, cut to the integer's bits.

    LLVM leaves it undefined, so that the guard is a select over a lane that may be poison.
    """
    wide = I64 if dtype.bits == 64 or dtype == U32 else I32
    edge = constant(value.type, 2.0 ** (wide.bits - 1))
    magnitude = out.instruction(out.lane_intrinsic("fabs", value), value.type)
    inside = _compare(out, "lt", magnitude, edge)
    lowest = constant(with_dtype(value.type, wide), -(1 << (wide.bits - 1)))
    whole = _select(out, inside, _convert(out, "fptosi", value, wide), lowest)
    if dtype == U64:
        high = _compare(out, "ge", value, edge)
        high = _binary(out, "and", high, _compare(out, "lt", value, constant(value.type, 2.0**64)))
        upper, whole = _convert(out, "fptoui", value, U64), Value(whole.text, with_dtype(whole.type, U64))
        return _select(out, high, upper, whole)
    return emit_cast(out, whole, dtype)


def _cast_opcode(source: DType, dtype: DType) -> str:
    if source.is_float and dtype.is_float:
        return "fpext" if dtype.bits > source.bits else "fptrunc"
    if dtype.is_float:
        return "sitofp" if source.kind == "signed" else "uitofp"
    if dtype.bits == source.bits:
        return "bitcast"
    if dtype.bits < source.bits:
        return "trunc"
    return "sext" if source.kind == "signed" else "zext"


def _widen_bf16(out: FunctionText, value: Value) -> Value:
    integer, result = with_dtype(value.type, I32), with_dtype(value.type, F32)
    bits = Value(out.temporary(f"zext {value.typed} to {register_type(integer)}"), integer)
    shifted = _binary(out, "shl", bits, constant(integer, 16))
    return out.instruction(f"bitcast {shifted.typed} to {register_type(result)}", result)


def _narrow_to_bf16(out: FunctionText, value: Value) -> Value:
    """Round to nearest, ties to even, in integers; a NaN keeps its top bits and becomes quiet.

    Not the processor's own instruction, where there is one: it flushes denormals.
    """
    integer, result = with_dtype(value.type, I32), with_dtype(value.type, BF16)
    bits = out.instruction(f"bitcast {value.typed} to {register_type(integer)}", integer)
    top = _binary(out, "lshr", bits, constant(integer, 16))
    odd = _binary(out, "and", top, constant(integer, 1))
    biased = _binary(out, "add", bits, _binary(out, "add", odd, constant(integer, 0x7FFF)))
    rounded = _binary(out, "lshr", biased, constant(integer, 16))
    quiet = _binary(out, "or", top, constant(integer, 0x40))
    chosen = _select(out, _compare(out, "ne", value, value), quiet, rounded)
    return out.instruction(f"trunc {chosen.typed} to {register_type(result)}", result)
