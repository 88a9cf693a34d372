"""Elementwise ops and conversions as ONNX operators, and whole scalar programs.

Takes operands whose shapes broadcast; gives one. Invariant: an operation has the meaning of its row in the scalar
table: quotients of integers are cut, `mod` has the sign of its divisor, a shift by the width moves every bit out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tessera_build.frontends.onnx.errors import unsupported
from tessera_build.frontends.onnx.export.kernels import carrier
from tessera_build.frontends.onnx.export.site import Site, WriteNode
from tessera_build.frontends.onnx.export.writer import CODES, Operand, Writer
from tessera_build.ir.core.scalar import SCALAR_OPS, ScalarProgram
from tessera_build.ir.core.types import BOOL, DTYPES, F32, I32, I64, U8, U16, U32, U64, DType
from tessera_build.ir.graph.ops.elementwise import NOT_GRAPH_OPS
from tessera_build.ir.graph.ops.op import dtype_attribute

Write = Callable[[Writer, Sequence[Operand]], Operand]


def scalar(writer: Writer, name: str, operands: Sequence[Operand]) -> Operand:
    """One operation of the scalar table."""
    return _OPERATIONS[name](writer, operands)


def program(writer: Writer, body: ScalarProgram, operands: Sequence[Operand]) -> tuple[Operand, ...]:
    """The results of a scalar program over whole tensors."""
    values = list(operands)
    for op in body.ops:
        arguments = [values[a] for a in op.args]
        if op.name == "const":
            assert op.value is not None, "a constant has a value"
            values.append(writer.number(op.value, op.dtype))
        elif op.name in ("cast", "bitcast"):
            convert = converted if op.name == "cast" else reread
            values.append(convert(writer, arguments[0], op.dtype))
        else:
            values.append(scalar(writer, op.name, arguments))
    return tuple(values[r] for r in body.results)


def converted(writer: Writer, x: Operand, dtype: DType) -> Operand:
    """`cast` of Graph IR: floats beyond an integer's range become the lowest of a wide one and wrap from there."""
    narrow = not dtype.is_float and dtype != BOOL and dtype.bits < I32.bits
    if x.dtype.is_float and (narrow or dtype == U32):
        x = writer.cast(x, I64 if dtype == U32 else I32)
    if x.dtype.is_float and dtype.is_float and dtype.bits < F32.bits and x.dtype.bits > F32.bits:
        x = writer.cast(x, F32)
    return writer.cast(x, dtype)


def reread(writer: Writer, x: Operand, dtype: DType) -> Operand:
    """The bits of x as another type."""
    if x.dtype == dtype:
        return x
    if min(x.dtype.bits, dtype.bits) < 8 or BOOL in (x.dtype, dtype):
        raise unsupported("elements narrower than a byte cannot be read as others in ONNX", found=f"{x.dtype}, {dtype}")
    return writer.emit("BitCast", x, dtype=dtype, to=CODES[dtype.name])


def _named(op: str) -> Write:
    return lambda writer, operands: writer.run(op, *operands)


def _logical(boolean: str, bitwise: str) -> Write:
    """An operator of truth values, and another one of integers."""
    return lambda writer, operands: writer.run(boolean if operands[0].dtype == BOOL else bitwise, *operands)


def _compared(op: str) -> Write:
    return lambda writer, operands: writer.run(op, *operands, dtype=BOOL)


def _differs(writer: Writer, operands: Sequence[Operand]) -> Operand:
    return writer.emit("Not", writer.run("Equal", *operands, dtype=BOOL), dtype=BOOL)


def _negated(writer: Writer, operands: Sequence[Operand]) -> Operand:
    (x,) = operands
    return writer.run("Neg", x) if x.dtype.kind != "unsigned" else writer.run("Sub", writer.number(0, x.dtype), x)


def _inverse_root(writer: Writer, operands: Sequence[Operand]) -> Operand:
    return writer.run("Reciprocal", writer.run("Sqrt", *operands))


def _is_nan(writer: Writer, operands: Sequence[Operand]) -> Operand:
    return writer.run("IsNaN", *operands, dtype=BOOL)


def _sign(writer: Writer, operands: Sequence[Operand]) -> Operand:
    """Of NaN it is NaN, which ONNX leaves open."""
    (x,) = operands
    result = writer.run("Sign", x)
    return writer.where(_is_nan(writer, operands), x, result) if x.dtype.is_float else result


def _remainder(writer: Writer, operands: Sequence[Operand]) -> Operand:
    """With the sign of the dividend; of integers through the other one: onnxruntime computes this one in doubles."""
    x, divisor = operands
    if x.dtype.kind == "unsigned":
        return writer.run("Mod", *operands)
    if not x.dtype.is_float:
        return _turned(writer, writer.run("Mod", *operands), x, scalar(writer, "neg", [divisor]))
    through = carrier("Mod", x.dtype)
    result = writer.emit("Mod", *(writer.cast(o, through) for o in operands), dtype=through, fmod=1)
    return writer.cast(result, x.dtype)


def _modulo(writer: Writer, operands: Sequence[Operand]) -> Operand:
    """With the sign of the divisor; of floats ONNX has only the other one."""
    if not operands[0].dtype.is_float:
        return writer.run("Mod", *operands)
    return _turned(writer, _remainder(writer, operands), operands[1], operands[1])


def _turned(writer: Writer, rest: Operand, sign: Operand, added: Operand) -> Operand:
    """A remainder that is not zero brought to a sign by adding the divisor, or taking it off."""
    zero = writer.number(0, rest.dtype)
    below = [writer.run("Less", side, zero, dtype=BOOL) for side in (rest, sign)]
    apart = writer.emit("Xor", *below, dtype=BOOL)
    moved = writer.emit("And", apart, _differs(writer, (rest, zero)), dtype=BOOL)
    return writer.where(moved, writer.run("Add", rest, added), rest)


def _power(writer: Writer, operands: Sequence[Operand]) -> Operand:
    """ONNX has no powers of u64; in i64 they wrap to the same bits."""
    if operands[0].dtype != U64:
        return writer.run("Pow", *operands)
    signed = [reread(writer, operand, I64) for operand in operands]
    return reread(writer, writer.run("Pow", *signed), U64)


def _high_product(writer: Writer, operands: Sequence[Operand]) -> Operand:
    wide = writer.emit("Mul", *(writer.cast(o, U64) for o in operands), dtype=U64)
    return writer.cast(writer.emit("BitShift", wide, writer.number(32, U64), dtype=U64, direction="RIGHT"), U32)


def _extreme(op: str, boolean: str) -> Write:
    return lambda writer, operands: writer.run(boolean if operands[0].dtype == BOOL else op, *operands)


def _selected(writer: Writer, operands: Sequence[Operand]) -> Operand:
    return writer.where(*operands)


def _shifted(direction: str) -> Write:
    """Of signed integers: to the right through the complement of those below zero, so that their sign comes in."""

    def write(writer: Writer, operands: Sequence[Operand]) -> Operand:
        x, count = operands
        if x.dtype.kind == "unsigned":
            return _moved(writer, x, count, direction)
        unsigned = DTYPES[f"u{x.dtype.bits}"]
        count = writer.cast(count, unsigned)
        if direction == "LEFT":
            return writer.cast(_moved(writer, writer.cast(x, unsigned), count, direction), x.dtype)
        below = writer.run("Less", x, writer.number(0, x.dtype), dtype=BOOL)
        positive = writer.where(below, writer.run("BitwiseNot", x), x)
        moved = writer.cast(_moved(writer, writer.cast(positive, unsigned), count, direction), x.dtype)
        return writer.where(below, writer.run("BitwiseNot", moved), moved)

    return write


def _moved(writer: Writer, x: Operand, count: Operand, direction: str) -> Operand:
    """An unsigned integer shifted; by its width or more nothing is left, which ONNX leaves open."""
    wide = U32 if x.dtype == U16 else U8 if x.dtype.bits < U8.bits else x.dtype
    inside = writer.run("Less", count, writer.number(x.dtype.bits, count.dtype), dtype=BOOL)
    zero = writer.number(0, wide)
    safe = writer.where(inside, writer.cast(count, wide), zero)
    moved = writer.emit("BitShift", writer.cast(x, wide), safe, dtype=wide, direction=direction)
    return writer.cast(writer.where(inside, moved, zero), x.dtype)


_PLAIN = {
    "abs": "Abs",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
    "erf": "Erf",
    "sigmoid": "Sigmoid",
    "logistic": "Sigmoid",
    "sin": "Sin",
    "cos": "Cos",
    "tan": "Tan",
    "asin": "Asin",
    "acos": "Acos",
    "atan": "Atan",
    "sinh": "Sinh",
    "cosh": "Cosh",
    "asinh": "Asinh",
    "acosh": "Acosh",
    "atanh": "Atanh",
    "floor": "Floor",
    "ceil": "Ceil",
    "round": "Round",
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
}
_OPERATIONS: Mapping[str, Write] = {
    **{name: _named(op) for name, op in _PLAIN.items()},
    "neg": _negated,
    "rsqrt": _inverse_root,
    "sign": _sign,
    "isnan": _is_nan,
    "mod": _modulo,
    "rem": _remainder,
    "mulhi": _high_product,
    "pow": _power,
    "max": _extreme("Max", "Or"),
    "min": _extreme("Min", "And"),
    "eq": _compared("Equal"),
    "ne": _differs,
    "lt": _compared("Less"),
    "le": _compared("LessOrEqual"),
    "gt": _compared("Greater"),
    "ge": _compared("GreaterOrEqual"),
    "not": _logical("Not", "BitwiseNot"),
    "and": _logical("And", "BitwiseAnd"),
    "or": _logical("Or", "BitwiseOr"),
    "xor": _logical("Xor", "BitwiseXor"),
    "select": _selected,
    "shl": _shifted("LEFT"),
    "shr": _shifted("RIGHT"),
}


def _node(name: str) -> WriteNode:
    return lambda site: scalar(site.writer, name, site.inputs)


def _cast(site: Site) -> Operand:
    return converted(site.writer, site.inputs[0], dtype_attribute(site.attributes, "dtype"))


def _bitcast(site: Site) -> Operand:
    return reread(site.writer, site.inputs[0], dtype_attribute(site.attributes, "dtype"))


ELEMENTWISE_WRITERS: Mapping[str, WriteNode] = {
    **{name: _node(name) for name in SCALAR_OPS if name not in NOT_GRAPH_OPS},
    "cast": _cast,
    "bitcast": _bitcast,
}
