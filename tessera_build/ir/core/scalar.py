"""Scalar programs: the flat expressions inside compute definitions (Schedule IR) and elementwise maps (Tile IR).

Takes input element types; gives a tuple of operations over numbered values (inputs first, then one value per
operation). Invariant: a program is pure, topologically ordered, and every operation is a row of `SCALAR_OPS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tessera_build.ir.core.conversion import convert, reinterpret
from tessera_build.ir.core.error_function import erf
from tessera_build.ir.core.logistic import logistic
from tessera_build.ir.core.rounding import fma
from tessera_build.ir.core.types import BOOL, DTYPES, DType, dtype_of, number_in

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class ScalarOp:
    """One operation: its name, the values it reads, its result type and, for `const`, the value."""

    name: str
    args: tuple[int, ...]
    dtype: DType
    value: float | int | bool | None = None


@dataclass(frozen=True, slots=True)
class ScalarProgram:
    """Values 0..inputs-1 are the inputs; value inputs+i is the result of ops[i]; `results` are the values given out."""

    inputs: tuple[DType, ...]
    ops: tuple[ScalarOp, ...]
    results: tuple[int, ...]

    def dtype(self, value: int) -> DType:
        """Element type of a value."""
        return self.inputs[value] if value < len(self.inputs) else self.ops[value - len(self.inputs)].dtype

    def lines(self) -> tuple[str, ...]:
        """One line of text an operation; `parse_program` reads them back."""
        texts = [f"%{i} = input : {dtype}" for i, dtype in enumerate(self.inputs)]
        for index, op in enumerate(self.ops, len(self.inputs)):
            what = _literal(op.value) if op.name == "const" else ", ".join(f"%{a}" for a in op.args)
            texts.append(f"%{index} = {op.name}({what}) : {op.dtype}")
        return (*texts, "return " + ", ".join(f"%{r}" for r in self.results))


def _literal(value: float | int | bool | None) -> str:
    return float(value).hex() if isinstance(value, float) else str(value)


_LINE = re.compile(r"%(\d+) = (\w+)(?:\((.*)\))? : (\w+)")


def parse_program(lines: Sequence[str]) -> ScalarProgram:
    """Read what `ScalarProgram.lines` printed; raises `ValueError` on anything else."""
    inputs: list[DType] = []
    ops: list[ScalarOp] = []
    for line in lines[:-1]:
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{line!r} is not a scalar operation")
        _, name, arguments, dtype_name = match.groups()
        if dtype_name not in DTYPES:
            raise ValueError(f"{dtype_name!r} is not an element type")
        dtype = DTYPES[dtype_name]
        if name == "input":
            inputs.append(dtype)
        elif name == "const":
            ops.append(ScalarOp("const", (), dtype, _parse_literal(arguments, dtype)))
        else:
            ops.append(ScalarOp(name, tuple(int(a.strip()[1:]) for a in arguments.split(",")), dtype))
    results = tuple(int(r.strip()[1:]) for r in lines[-1].removeprefix("return").split(",") if r.strip())
    return ScalarProgram(tuple(inputs), tuple(ops), results)


def _parse_literal(text: str, dtype: DType) -> float | int | bool:
    if dtype.kind == "bool":
        return text == "True"
    return float.fromhex(text) if dtype.is_float else int(text)


def _sigmoid(x: Array) -> Array:
    smaller = np.exp(-np.abs(np.asarray(x, np.float64)))
    return np.asarray(np.where(np.greater_equal(x, 0), 1 / (1 + smaller), smaller / (1 + smaller)), dtype=x.dtype)


def _divide(a: Array, b: Array) -> Array:
    if dtype_of(a.dtype).is_float:
        return np.asarray(np.divide(a, b))
    # Truncates, where numpy's // rounds down: step back up from a negative, inexact quotient.
    quotient, remainder = np.floor_divide(a, b), np.remainder(a, b)
    return np.asarray(quotient + np.logical_and(remainder != 0, np.less(a, 0) != np.less(b, 0)), dtype=a.dtype)


def _power(base: Array, exponent: Array) -> Array:
    """Integers wrap; to a negative power they are what their reciprocals truncate to, and zero stays zero."""
    if base.dtype.kind != "i":
        return np.asarray(np.power(base, exponent))
    odd = np.bitwise_and(exponent, exponent.dtype.type(1))
    whole = np.power(base, np.maximum(exponent, exponent.dtype.type(0)))
    unit = np.where(odd == 1, base, np.abs(base))
    reciprocal = np.where(np.equal(np.abs(base), 1), unit, 0)
    return np.where(np.less(exponent, 0), reciprocal, whole).astype(base.dtype)


def _shift(move: Callable[[Array, Array], Array], values: Array, count: Array) -> Array:
    """A shift; by the width or more (negative counts are large ones) it moves every bit out."""
    bits = values.dtype.itemsize * 8
    inside = np.less(count.view(f"u{count.dtype.itemsize}"), bits)
    empty = np.zeros((), values.dtype)
    if move is np.right_shift:
        empty = np.right_shift(values, values.dtype.type(bits - 1)) if values.dtype.kind == "i" else empty
    return np.where(inside, move(values, np.where(inside, count, np.zeros((), count.dtype))), empty)


def _high_product(a: Array, b: Array) -> Array:
    """The upper 32 of the 64 bits of a product of u32."""
    return np.right_shift(np.multiply(a.astype(np.uint64), b.astype(np.uint64)), np.uint64(32))


_UNARY: dict[str, Callable[[Array], Array]] = {
    "neg": np.negative,
    "abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: np.asarray(1 / np.sqrt(x), dtype=x.dtype),
    "tanh": np.tanh,
    "erf": erf,
    "sigmoid": _sigmoid,
    "logistic": logistic,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "sign": np.sign,
    "not": np.bitwise_not,
    "isnan": np.isnan,
}
_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _divide,
    "mod": np.mod,
    "pow": _power,
    "max": np.maximum,
    "min": np.minimum,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "rem": np.fmod,
    "mulhi": _high_product,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "shl": lambda values, count: _shift(np.left_shift, values, count),
    "shr": lambda values, count: _shift(np.right_shift, values, count),
}
COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})
# Their result's type is stated, not derived: `cast` keeps the value, `bitcast` the bits.
CONVERSIONS: dict[str, Callable[[Array, DType], Array]] = {"cast": convert, "bitcast": reinterpret}
# name -> number of arguments; `select(c, a, b)` is a where c holds, else b; `fma(a, b, c)` is a*b + c rounded once;
# and, or, xor, not work on every bit of an integer; `rem` has the sign of its first argument, `mod` of its second;
# `mulhi` is of u32 alone: what `mul` of two of them leaves out.
SCALAR_OPS: dict[str, int] = (
    dict.fromkeys(_UNARY, 1)
    | dict.fromkeys(_BINARY, 2)
    | {"const": 0, "select": 3, "fma": 3}
    | dict.fromkeys(CONVERSIONS, 1)
)


def result_dtype(name: str, args: Sequence[DType]) -> DType:
    """Element type of an operation's result (not for `const` and conversions, which state theirs)."""
    if name in COMPARISONS or name == "isnan":
        return BOOL
    return args[1] if name == "select" else args[0]


def evaluate(program: ScalarProgram, inputs: Sequence[Array]) -> tuple[Array, ...]:
    """Run a program over numpy arrays that broadcast together: the definition of what each operation means."""
    values: list[Array] = list(inputs)
    with np.errstate(all="ignore"):
        for op in program.ops:
            values.append(_evaluate_op(op, [values[a] for a in op.args]))
    return tuple(values[r] for r in program.results)


def _evaluate_op(op: ScalarOp, args: list[Array]) -> Array:
    if op.name == "const":
        return np.asarray(op.value, dtype=op.dtype.numpy)
    if op.name in CONVERSIONS:
        return CONVERSIONS[op.name](args[0], op.dtype)
    if op.name == "select":
        return np.where(args[0], args[1], args[2]).astype(op.dtype.numpy)
    if op.name == "fma":
        return fma(args[0], args[1], args[2], op.dtype)
    if len(args) == 1:
        return np.asarray(_UNARY[op.name](args[0])).astype(op.dtype.numpy)
    return np.asarray(_BINARY[op.name](args[0], args[1])).astype(op.dtype.numpy)


class ScalarBuilder:
    """Builds a program one operation at a time, merging equal operations."""

    def __init__(self, inputs: Sequence[DType]) -> None:
        self._inputs = tuple(inputs)
        self._ops: list[ScalarOp] = []
        self._known: dict[ScalarOp, int] = {}

    def dtype(self, value: int) -> DType:
        """Element type of a value built so far."""
        count = len(self._inputs)
        return self._inputs[value] if value < count else self._ops[value - count].dtype

    def const(self, value: float | int | bool, dtype: DType) -> int:
        """A constant of type `dtype`."""
        typed = bool(value) if dtype.kind == "bool" else number_in(value, dtype)
        return self._append(ScalarOp("const", (), dtype, typed))

    def cast(self, value: int, dtype: DType) -> int:
        """`value` converted to `dtype`."""
        return value if self.dtype(value) == dtype else self._append(ScalarOp("cast", (value,), dtype))

    def bitcast(self, value: int, dtype: DType) -> int:
        """The bits of `value` read as another type of the same width."""
        return value if self.dtype(value) == dtype else self._append(ScalarOp("bitcast", (value,), dtype))

    def op(self, name: str, *args: int) -> int:
        """Apply operation `name`; raises `ValueError` for an unknown name or a wrong number of arguments."""
        if SCALAR_OPS.get(name) != len(args):
            raise ValueError(f"scalar operation {name!r} with {len(args)} arguments")
        return self._append(ScalarOp(name, args, result_dtype(name, [self.dtype(a) for a in args])))

    def inline(self, program: ScalarProgram, args: Sequence[int]) -> tuple[int, ...]:
        """Append another program with its inputs bound to `args`; gives its results' values here."""
        values = list(args)
        for op in program.ops:
            values.append(self._append(ScalarOp(op.name, tuple(values[a] for a in op.args), op.dtype, op.value)))
        return tuple(values[r] for r in program.results)

    def finish(self, *results: int) -> ScalarProgram:
        """The finished program."""
        return ScalarProgram(self._inputs, tuple(self._ops), results)

    def _append(self, op: ScalarOp) -> int:
        if op.value is not None or op.name != "const":
            key = ScalarOp(op.name, op.args, op.dtype, _literal(op.value) if op.value is not None else None)  # type: ignore[arg-type]
            if key not in self._known:
                self._known[key] = len(self._inputs) + len(self._ops)
                self._ops.append(op)
            return self._known[key]
        raise ValueError("a constant needs a value")
