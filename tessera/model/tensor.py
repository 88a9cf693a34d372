"""Traced tensors: values of Graph IR with Python's operators.

Takes operands that are tensors, parameters, numbers, arrays or extents; gives tensors, recording a node each time.
Invariant: a node carries the author's place, and what a type rule refuses is raised there, with both operands' types
and where each came from.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Never, cast, final

import numpy as np

from bundle_format.errors import TesseraError
from tessera.errors import LanguageError, Note
from tessera.model.annotation import TensorSpec, spec_of
from tessera.model.explain import element_number, expect_extent, explained, wanted_type
from tessera.model.extents import sized
from tessera.model.index import index_plan
from tessera.model.numeric import NO_POLICY, Policy, numeric_of
from tessera.model.operators import Operators
from tessera.model.policies import inner_policies, plan_of, written
from tessera.model.site import Site, here
from tessera.model.trace import Trace, constant_of, current, needed
from tessera_build.ir.core.dims import Dim, Extent
from tessera_build.ir.core.node import Region
from tessera_build.ir.core.types import F32, I64, DType, Type
from tessera_build.ir.graph.nodes import Array, Attribute
from tessera_build.ir.graph.ops.elementwise import FLOAT_ONLY

_LONGEST = 50_000  # values of one trace
_OF_FLOATS = FLOAT_ONLY | {"div", "pow", "softmax"}  # what the language defines on floats alone


class Value(Operators["Tensor", "Operand"]):
    """What stands in a model for numbers: a `Tensor` of a trace, or a `Parameter`."""

    __slots__ = ()
    __array_priority__ = 1000.0  # numpy's operators leave these to us
    __array_ufunc__ = None

    @abstractmethod
    def value_in(self, trace: Trace) -> int:
        """The value of Graph IR that this is in a trace."""

    @property
    @abstractmethod
    def shape(self) -> tuple[Extent, ...]:
        """Extents of all axes; those of symbolic dimensions are expressions."""

    @property
    @abstractmethod
    def dtype(self) -> DType:
        """Element type."""

    @property
    @abstractmethod
    def policy(self) -> Policy:
        """The numeric policy."""

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def T(self) -> Tensor:  # noqa: N802  the name of the field
        """The last two axes exchanged; a vector stays as it is."""
        order = list(range(self.ndim))
        order[-2:] = reversed(order[-2:])
        return emit("transpose", self, perm=tuple(order))

    def applied(self, op: str, *operands: Operand) -> Tensor:
        """What an operator between these operands gives."""
        return _operated(op, *operands)

    def __getitem__(self, key: object) -> Tensor:
        return indexed(self, key)

    def __setitem__(self, key: object, value: object) -> Never:
        raise self._unchangeable()

    def __delitem__(self, key: object) -> Never:
        raise self._unchangeable()

    def _unchangeable(self) -> LanguageError:
        return LanguageError(
            "TENSOR_CHANGED",
            "a tensor is never changed: what is computed from it is another one",
            site=here(),
            found=described(self),
            hint="op.where chooses element by element, op.scatter and op.concat put parts together",
        )

    def __iter__(self) -> Iterator[Tensor]:
        extent = self.shape[0] if self.shape else None
        if not isinstance(extent, int):
            raise LanguageError(
                "TENSOR_ITERATED",
                "a tensor whose first extent is not a number cannot be taken apart in Python",
                site=here(),
                found=described(self),
                hint="use op.scan, which runs a function over the first axis",
            )
        return iter([self[i] for i in range(extent)])

    def __bool__(self) -> bool:
        raise self._undecided("a truth value", "use op.where for elements, op.cond to choose what is computed")

    def __int__(self) -> int:
        raise self._undecided("an integer", "shapes are known while tracing: x.shape; data only when the model runs")

    def __float__(self) -> float:
        raise self._undecided("a number", "keep it as a tensor: numbers exist only when the model runs")

    def __index__(self) -> int:
        raise self._undecided("an index", "op.gather takes a tensor of indices")

    def __len__(self) -> int:
        raise self._undecided("a length", "x.shape[0] is the extent")

    def __array__(self, *_: object) -> Never:
        raise self._undecided("an array", "numpy sees a model only by op.* and operators")

    def _undecided(self, what: str, hint: str) -> LanguageError:
        return LanguageError(
            "TENSOR_AS_PYTHON",
            f"a tensor is asked for {what} while the model is traced",
            site=here(),
            found=described(self),
            hint=hint,
        )


Operand = Value | Array | Dim | int | float | bool


@final
class Tensor(Value):
    """A value of one trace. As an annotation, `Tensor["B", 768, f32]` is a specification."""

    __slots__ = ("name", "trace", "value")

    def __init__(self, trace: Trace, value: int, name: str = "") -> None:
        self.trace = trace
        self.value = value
        self.name = name

    def __class_getitem__(cls, items: object) -> TensorSpec:
        return spec_of(items)

    def value_in(self, trace: Trace) -> int:
        """The value in this trace; values of traces around it are captured."""
        if self.trace is not trace and trace.within(self.trace):
            return trace.capture(self.trace, self.value)
        if self.trace is not trace or not trace.builder.visible(self.value):
            raise LanguageError(
                "TENSOR_OUT_OF_SCOPE",
                "a tensor is used outside of the function that it was made in",
                site=here(),
                found=described(self),
                hint="return it from that function, or pass it on as an argument",
                notes=(Note("made", described(self), self.site),),
            )
        return self.value

    @property
    def type(self) -> Type:
        """The type of Graph IR."""
        return self.trace.builder.type(self.value)

    @property
    def shape(self) -> tuple[Extent, ...]:
        """Extents of all axes; those of symbolic dimensions are expressions, and numbers beside tensors."""
        return tuple(sized(extent, _operated) for extent in self.type.shape)

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self.type.dtype

    @property
    def policy(self) -> Policy:
        """The numeric policy that the value is under."""
        return self.trace.policies.get(self.value, NO_POLICY)

    @property
    def site(self) -> Site | None:
        """Where the author made it."""
        return self.trace.sites.get(self.value)

    def __repr__(self) -> str:
        return described(self)


def described(value: Value) -> str:
    """Element type, shape and policy, for messages."""
    return f"{value.dtype}[{', '.join(str(extent) for extent in value.shape)}]{value.policy}"


def emit(op: str, /, *operands: Operand, **attributes: Attribute) -> Tensor:
    """The only result of a graph op at the author's place; numbers take the element type of the first tensor."""
    (result,) = emit_all(op, operands, attributes)
    return result


def emit_all(
    op: str, operands: Sequence[Operand], attributes: Mapping[str, Attribute], regions: Sequence[Region] = ()
) -> tuple[Tensor, ...]:
    """All results of a graph op."""
    trace, site = trace_of(operands), here()
    like = element_type(op, operands)
    values = tuple(lift(trace, operand, like, site) for operand in operands)
    plan = plan_of(op, [trace.policies.get(v, NO_POLICY) for v in values], attributes, like, site)
    try:
        with trace.at(site):
            results = written(trace.builder, plan, (op, values, attributes), regions)
    except LanguageError:
        raise
    except TesseraError as error:
        raise explained(error, trace, values, site) from error
    if results and results[0] > _LONGEST:
        raise LanguageError(
            "TRACE_TOO_LONG",
            "the model's Python makes more values than a program should have",
            site=site,
            expected=f"at most {_LONGEST}",
            hint="a Python loop is unrolled: op.scan and op.while_ are loops of the model",
        )
    policies = inner_policies(trace.policies, op, regions, len(results)) or [plan.policy] * len(results)
    return tuple(Tensor(trace, trace.note(*row)) for row in zip(results, [site] * len(results), policies, strict=True))


def _operated(op: str, *operands: object) -> Tensor:
    """What an operator between these operands gives."""
    given = cast("tuple[Operand, ...]", operands)
    match op:
        case "div":
            return quotient(given[0], given[1])
        case "floor_divide":
            return floor_quotient(given[0], given[1])
        case "matmul":
            return product(given[0], given[1])
        case _:
            return emit(op, *given)


def product(a: Operand, b: Operand, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    """The matrix product; a vector is a row on the left and a column on the right.

    Floats that are for storage only are multiplied in the type that their policy sums in, and the result is rounded.
    """
    trace, site = trace_of((a, b)), here()
    left, right = (x if isinstance(x, Value) else Tensor(trace, lift(trace, x, None, site)) for x in (a, b))
    row, column = left.ndim == 1, right.ndim == 1
    if row:
        left = emit("reshape", left, shape=(1, *left.shape))
    if column:
        right = emit("reshape", right, shape=(*right.shape, 1))
    flags = {"transpose_a": transpose_a and not row, "transpose_b": transpose_b and not column}
    result = emit("matmul", left, right, **flags)
    if not row and not column:
        return result
    kept = [*result.shape[:-2], *(() if row else result.shape[-2:-1]), *(() if column else result.shape[-1:])]
    return emit("reshape", result, shape=tuple(kept))


def quotient(a: Operand, b: Operand) -> Tensor:
    """a / b of floats; of integers it is refused, since it would have to drop what is left in silence."""
    like = element_type("div", (a, b))
    if like is not None and like.kind in ("signed", "unsigned"):
        raise LanguageError(
            "TYPE_MISMATCH",
            "the quotient of integers is no integer",
            site=here(),
            expected="a float type",
            found=str(like),
            hint="a // b rounds down to an integer; op.cast(x, f32) / b is the quotient",
        )
    return emit("div", a, b)


def floor_quotient(a: Operand, b: Operand) -> Tensor:
    """The largest whole number that is not above a / b, so that `floor_quotient(a, b) * b + mod(a, b)` is a.

    Integers by zero are zero, as `mod` of them is. Of floats it is that of the exact quotient, as numpy's is, and a / b
    where b is zero. Derivatives are zero.
    """
    trace, site = trace_of((a, b)), here()
    like = element_type("floor_divide", (a, b))
    left, right = (x if isinstance(x, Value) else Tensor(trace, lift(trace, x, like, site)) for x in (a, b))
    if left.dtype.is_float:
        return _whole_quotient(left, right)
    found = emit("div", left, right)
    if left.dtype.kind == "signed":
        found = emit("sub", found, emit("cast", _below(left, right, emit("mod", left, right)), dtype=left.dtype))
    # What the machine gives of a quotient by zero is its own affair.
    return found if isinstance(b, int) and b else emit("select", emit("eq", right, 0), 0, found)


def _whole_quotient(left: Value, right: Value) -> Tensor:
    rest = emit("rem", left, right)
    # The dividend without its rest is a multiple of the divisor: their quotient is whole but for its rounding.
    towards_zero = emit("round", emit("div", emit("sub", left, rest), right))
    found = emit("sub", towards_zero, emit("cast", _below(left, right, rest), dtype=left.dtype))
    return emit("select", emit("eq", right, 0), emit("floor", emit("div", left, right)), found)


def _below(left: Value, right: Value, rest: Value) -> Tensor:
    """Where a quotient is less than what it is towards zero: of two signs, and not exact."""
    return emit("and", emit("ne", rest, 0), emit("ne", emit("lt", left, 0), emit("lt", right, 0)))


def trace_of(operands: Sequence[object]) -> Trace:
    """The trace in which something of these operands is computed: the one that grows now."""
    trace = current()
    if trace is not None:
        return trace
    for operand in operands:
        if isinstance(operand, Tensor):
            raise LanguageError(
                "TENSOR_OUT_OF_SCOPE",
                "a tensor is used after the trace that it belongs to has ended",
                site=here(),
                found=described(operand),
            )
    return needed()


def lift(trace: Trace, operand: object, like: DType | None, site: Site | None) -> int:
    """An operand as a value of the trace."""
    match operand:
        case Value():
            return operand.value_in(trace)
        case bool() | int() | float():
            dtype = wanted_type(like, operand, site)
            with trace.at(site):
                return trace.note(trace.builder.scalar(element_number(operand, dtype, site), dtype), site)
        case Dim():
            wanted = wanted_type(like, operand, site)
            expect_extent(trace, operand, wanted)
            with trace.at(site):
                return trace.note(trace.builder.op("dimension", value=trace.extent(operand), dtype=wanted), site)
        case np.ndarray() | np.generic():
            return constant_of(trace, np.asarray(cast(Array, operand)), site)
        case _:
            raise LanguageError(
                "NOT_A_TENSOR",
                "an operand is no tensor",
                site=site,
                expected="a tensor, a parameter, a number or a numpy array",
                found=f"{type(operand).__name__}: {operand!r}"[:200],
            )


def element_type(op: str, operands: Sequence[object]) -> DType | None:
    """What numbers among the operands become: the type of the first tensor, where that is no condition.

    Numbers and extents without a tensor are f32, but i64 where whole ones alone meet in arithmetic that keeps them
    whole: an extent counts as the number that `--dims` may make of it.
    """
    if op == "select":
        operands = operands[1:]
    for operand in operands:
        if isinstance(operand, Value):
            return operand.dtype
        if isinstance(operand, np.ndarray | np.generic):
            return numeric_of(str(cast(Array, operand).dtype)).dtype
    if any(isinstance(operand, bool) or not isinstance(operand, int | float | Dim) for operand in operands):
        return None
    whole = all(isinstance(operand, int | Dim) for operand in operands) and op not in _OF_FLOATS
    return I64 if whole else F32


def indexed(source: Value, key: object) -> Tensor:
    """`x[key]`: numbers, slices, None and ... as in numpy; one tensor of integers gathers along its axis."""
    trace, site = trace_of((source,)), here()
    plan = index_plan(key, source.shape, trace, site)
    result: Value = source
    if plan.slices is not None:
        starts, stops, steps = plan.slices
        result = emit("slice", result, starts=starts, stops=stops, steps=steps)
    if plan.gathered is not None:
        axis, indices = plan.gathered
        found = indices if isinstance(indices, Value) else Tensor(trace, lift(trace, indices, None, site))
        result = emit("gather", result, found, axis=axis)
    if isinstance(result, Tensor) and result.shape == plan.shape:
        return result
    return emit("reshape", result, shape=plan.shape)
