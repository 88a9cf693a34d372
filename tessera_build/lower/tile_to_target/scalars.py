"""Scalar programs as Target operations: arithmetic one to one, vector math through its polynomial expansions.

Takes a program and one register per input (scalars and vectors mix; scalars are repeated where needed); gives one
register per result. Invariant: only the operations of Target IR's table come out, fused only where the machine fuses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tessera_build.ir.core.math.expand import EXPANSIONS, expand
from tessera_build.ir.core.math.storage import from_storage, to_storage
from tessera_build.ir.core.node import Region
from tessera_build.ir.core.scalar import ScalarOp, ScalarProgram
from tessera_build.ir.core.types import BOOL, F32, F64, I32, STORAGE_FLOATS, DType
from tessera_build.ir.target.kernel import OPS, Branch
from tessera_build.lower.tile_to_target.builder import TargetBuilder

_MATH = frozenset(EXPANSIONS)
_REGISTER_BITS = (128, 256, 512)


class ScalarEmitter:
    """Emits scalar programs into a kernel; also the emitter that vector math expansions are written against."""

    def __init__(self, builder: TargetBuilder, fused: bool, scales: bool = False) -> None:
        self._b = builder
        self._fused = fused
        self._scales = scales

    def run(self, program: ScalarProgram, inputs: Sequence[int]) -> tuple[int, ...]:
        """Emit `program` over registers."""
        values = list(inputs)
        for op in program.ops:
            values.append(self._emit(op, [values[a] for a in op.args]))
        return tuple(values[r] for r in program.results)

    def _emit(self, op: ScalarOp, args: list[int]) -> int:
        b = self._b
        if op.name == "const":
            return b.const(_number(op), op.dtype)
        lanes = max(b.lanes(a) for a in args)
        args = [b.splat(a, lanes) for a in args]
        if op.name == "cast":
            return self.convert(args[0], op.dtype)
        if op.name == "bitcast":
            return self._reinterpret(args[0], op.dtype)
        if op.name != "select" and b.type(args[0]).dtype in STORAGE_FLOATS:
            result = self._operation(op, [self.convert(a, F32) for a in args])
            return self.convert(result, op.dtype)
        return self._operation(op, args)

    def _operation(self, op: ScalarOp, args: list[int]) -> int:
        b = self._b
        match op.name:
            case "fma":
                return self.fma(*args)
            case "max" | "min":
                return self._extremum(op.name, args[0], args[1])
            case "not" if op.dtype == BOOL:
                return b.op("xor", args[0], b.const(1, BOOL, b.lanes(args[0])))
            case "pow" if not b.type(args[0]).dtype.is_float:
                return self._integer_power(args[0], args[1])
            case name if name in _MATH:
                return expand(name, self, *args)
            case name if name in OPS:
                return b.op(name, *args)
            case name:
                raise ValueError(f"scalar operation {name!r} has no lowering")

    def fma(self, a: int, b: int, c: int) -> int:
        """a*b + c, rounded once where the machine can, twice where it cannot."""
        if self._fused and self._b.type(a).dtype.is_float:
            return self._b.op("fma", a, b, c)
        return self._b.op("add", self._b.op("mul", a, b), c)

    # -- the emitter protocol of vector math -------------------------------------------------------------------------

    def const(self, value: float | int, like: int, dtype: DType | None = None) -> int:
        """A constant with as many lanes as `like`, of its element type unless another is given."""
        return self._b.const(value, dtype or self._b.type(like).dtype, self._b.lanes(like))

    def op(self, name: str, *values: int) -> int:
        """One Target operation."""
        return self.fma(*values) if name == "fma" else self._b.op(name, *values)

    def cast(self, value: int, dtype: DType) -> int:
        """Numeric conversion."""
        return self.convert(value, dtype)

    def bitcast(self, value: int, dtype: DType) -> int:
        """The same bits under another type of equal width."""
        return self._b.op("bitcast", value, dtype=dtype)

    def dtype(self, value: int) -> DType:
        """Element type of a value."""
        return self._b.type(value).dtype

    @property
    def fused(self) -> bool:
        """Whether `fma` rounds once."""
        return self._fused

    def scales(self, like: int) -> bool:
        """Whether the machine has `scale` and `like` fills one of its vector registers, the narrowest of 128 bits."""
        dtype = self.dtype(like)
        return self._scales and dtype in (F32, F64) and dtype.bits * self._b.lanes(like) in _REGISTER_BITS

    def rarely(self, mask: int, compute: Callable[[], Sequence[int]], otherwise: Sequence[int]) -> Sequence[int]:
        """`compute()` where `mask` holds, in a branch that is taken when any lane asks for it."""
        b = self._b
        with b.region() as nodes:
            found = [b.op("select", mask, new, old) for new, old in zip(compute(), otherwise, strict=True)]
            taken = Region((), tuple(nodes), tuple(found))
        results = tuple(b.fresh(b.type(value)) for value in otherwise)
        b.emit(Branch(results, self._any(mask), taken, Region((), (), tuple(otherwise))))
        return results

    def _any(self, mask: int) -> int:
        """Whether a lane is true: lanes as integers, halved until one is left."""
        b, width = self._b, self._b.lanes(mask)
        if width == 1:
            return mask
        value = b.op("select", mask, b.const(1, I32, width), b.const(0, I32, width))
        while width > 2:
            width //= 2
            value = b.op("or", b.shuffle(value, value, range(width)), b.shuffle(value, value, range(width, 2 * width)))
        value = b.op("or", b.extract(value, 0), b.extract(value, 1))
        return b.op("ne", value, b.const(0, I32))

    # -- operations whose meaning takes more than one instruction -----------------------------------------------------

    def _integer_power(self, base: int, exponent: int) -> int:
        """base**exponent by squaring, wrapping on overflow; to a negative power only 1 and -1 are not zero."""
        b, dtype, known = self._b, self._b.type(base).dtype, self._b.constant(exponent)
        lanes = b.lanes(base)
        zero, result, square = b.const(0, dtype, lanes), b.const(1, dtype, lanes), base
        width = dtype.bits - (dtype.kind == "signed")
        for bit in range(width if known is None or known < 0 else int(known).bit_length()):
            if known is None:
                chosen = b.op("ne", b.op("and", exponent, b.const(1 << bit, dtype, lanes)), zero)
                result = b.op("select", chosen, b.op("mul", result, square), result)
            elif int(known) >> bit & 1:
                result = b.op("mul", result, square)
            square = b.op("mul", square, square)
        return self._negative_power(base, exponent, result) if dtype.kind == "signed" else result

    def _negative_power(self, base: int, exponent: int, otherwise: int) -> int:
        b, dtype, lanes = self._b, self._b.type(base).dtype, self._b.lanes(base)
        zero, one = b.const(0, dtype, lanes), b.const(1, dtype, lanes)
        is_odd = b.op("ne", b.op("and", exponent, one), zero)
        size = b.op("abs", base)
        unit = b.op("select", is_odd, base, size)
        reciprocal = b.op("select", b.op("eq", size, one), unit, zero)
        return b.op("select", b.op("lt", exponent, zero), reciprocal, otherwise)

    def convert(self, value: int, dtype: DType) -> int:
        """`value` as another element type; the storage types by way of f32."""
        b = self._b
        source = b.type(value).dtype
        if source == dtype:
            return value
        if source in STORAGE_FLOATS:
            return self.convert(from_storage(self, value), dtype)
        if dtype in STORAGE_FLOATS:
            return to_storage(self, self.convert(value, F32), dtype)
        if dtype == BOOL:
            zero = b.const(0.0 if source.is_float else 0, source, b.lanes(value))
            return b.op("ne", value, zero)
        return b.op("cast", value, dtype=dtype)

    def _reinterpret(self, value: int, dtype: DType) -> int:
        return value if self.dtype(value) == dtype else self.bitcast(value, dtype)

    def _extremum(self, name: str, left: int, right: int) -> int:
        """max or min that keeps a NaN of either side; a constant side needs no test."""
        b = self._b
        if b.type(left).dtype == BOOL:
            return b.op("or" if name == "max" else "and", left, right)
        if not b.type(left).dtype.is_float or b.constant(right) is not None:
            return b.op(name, left, right)
        if b.constant(left) is not None:
            return b.op(name, right, left)
        # A NaN doubled is that NaN. Were it `right` itself, LLVM would merge both choices into comparisons of masks,
        # eight cycles a step of a reduction; so it is one maxps and a blend, two.
        doubled = b.op("add", right, right)
        return b.op("select", b.op("ne", right, right), doubled, b.op(name, left, right))


def _number(op: ScalarOp) -> float | int:
    if op.value is None:
        raise ValueError("constant without a value")
    return op.value if isinstance(op.value, float) else int(op.value)
