"""What one op of Graph IR is: a record of its signature, type rule and numpy reference.

Takes nothing; gives `Op`, the typed readers of attributes and `mismatch`, the one way in which a type rule explains
itself. Invariant: an op's meaning is wholly in its record; no pass or bridge knows more about it. Its derivative, which
is written in ops, stands in the table of `autodiff/rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import Dim, Extent, evaluate
from tessera_build.ir.core.types import DType, Type
from tessera_build.ir.graph.nodes import Array, Attribute

Attributes = Mapping[str, Attribute]
DimValues = Mapping[str, int]
Infer = Callable[[Sequence[Type], Attributes], tuple[Type, ...]]
Evaluate = Callable[[Sequence[Array], Attributes, DimValues], tuple[Array, ...]]
# One region at run time: its arguments and the values of all symbols in, its results out.
Body = Callable[[Sequence[Array], DimValues], tuple[Array, ...]]


@dataclass(frozen=True, slots=True)
class RegionType:
    """What a type rule sees of a region."""

    args: tuple[Type, ...]
    results: tuple[Type, ...]


@dataclass(frozen=True, slots=True)
class Control:
    """Type rule and meaning of an op with regions, whose names are `regions`.

    `run` takes operands, attributes, values of the symbols, the regions, and zeros of the results' types to fill in.
    """

    regions: tuple[str, ...]
    infer: Callable[[Sequence[Type], Attributes, Sequence[RegionType]], tuple[Type, ...]]
    run: Callable[[Sequence[Array], Attributes, DimValues, Sequence[Body], Sequence[Array]], tuple[Array, ...]]


@dataclass(frozen=True, slots=True)
class Op:
    """One op. `attributes` names every attribute it must have; `defaults` gives those a caller may leave out.

    `infer` explains a mismatch by raising `TesseraError`; `evaluate` is the definition of the op's values, given the
    value of every symbolic dim. `ordered` says that the reference gives the same bits on every machine (elementary
    IEEE operations in a fixed order; no BLAS, no vectorised libm), so constants may be folded with it. An op with
    regions has `control` in place of `infer` and `evaluate`, which are then None; every op has the one or the two.
    """

    name: str
    signature: str
    infer: Infer | None
    evaluate: Evaluate | None
    attributes: tuple[str, ...] = ()
    defaults: Mapping[str, Attribute] = field(default_factory=dict[str, Attribute])
    elementwise: bool = False
    ordered: bool = False
    control: Control | None = None

    def __post_init__(self) -> None:
        given = (self.infer is not None, self.evaluate is not None, self.control is None)
        if len(set(given)) > 1:
            raise ValueError(f"{self.name} needs either infer and evaluate, or control")


def mismatch(message: str, expected: str, found: object, hint: str | None = None) -> TesseraError:
    """The error of a type rule: what was expected and what was found."""
    return TesseraError("TYPE_MISMATCH", message, expected=expected, found=str(found), hint=hint)


def expect_count(op: str, types: Sequence[Type], low: int, high: int | None = None) -> None:
    """Raise unless there are `low` to `high` operands."""
    high = low if high is None else high
    if not low <= len(types) <= high:
        wanted = str(low) if low == high else f"{low} to {high}"
        raise mismatch(f"{op} takes another number of operands", f"{wanted} operands", f"{len(types)}: {texts(types)}")


def expect_same_dtype(op: str, types: Sequence[Type]) -> DType:
    """The element type that all operands share; raises when they differ."""
    if any(t.dtype != types[0].dtype for t in types):
        raise mismatch(f"{op} mixes element types", "one element type", texts(types), "cast the operands to one type")
    return types[0].dtype


def expect_float(op: str, operand: Type) -> None:
    """Raise unless the operand is of a floating-point type."""
    if not operand.dtype.is_float:
        raise mismatch(f"{op} is defined on floating-point elements", "a float element type", operand)


def expect_numbers(op: str, operand: Type) -> None:
    """Raise for truth values."""
    if operand.dtype.kind == "bool":
        raise mismatch(f"{op} is defined on numbers", "a float or integer element type", operand, "cast truth values")


def texts(types: Sequence[Type]) -> str:
    """Types side by side, for messages."""
    return ", ".join(str(t) for t in types)


def extent_of(value: Attribute) -> Extent:
    """An attribute that is an extent."""
    if isinstance(value, (int, Dim)) and not isinstance(value, bool):
        return value
    raise mismatch("attribute is not an extent", "an integer or a dimension expression", repr(value))


def extents_of(attributes: Attributes, name: str) -> tuple[Extent, ...]:
    """An attribute that is a tuple of extents."""
    value = attributes[name]
    if not isinstance(value, tuple):
        raise mismatch(f"attribute {name} is not a tuple", "a tuple of extents", repr(value))
    return tuple(extent_of(v) for v in value)


def int_of(attributes: Attributes, name: str) -> int:
    """An attribute that is an integer."""
    value = attributes[name]
    if isinstance(value, bool) or not isinstance(value, int):
        raise mismatch(f"attribute {name} is not an integer", "an integer", repr(value))
    return value


def ints_of(attributes: Attributes, name: str) -> tuple[int, ...]:
    """An attribute that is a tuple of integers."""
    extents = extents_of(attributes, name)
    found = tuple(e for e in extents if isinstance(e, int))
    if len(found) != len(extents):
        raise mismatch(f"attribute {name} is symbolic", "a tuple of integers", repr(attributes[name]))
    return found


def number_of(attributes: Attributes, name: str) -> float:
    """An attribute that is a number."""
    value = attributes[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise mismatch(f"attribute {name} is not a number", "a number", repr(value))
    return float(value)


def flag_of(attributes: Attributes, name: str) -> bool:
    """An attribute that is true or false."""
    value = attributes[name]
    if not isinstance(value, bool):
        raise mismatch(f"attribute {name} is not a truth value", "True or False", repr(value))
    return value


def word_of(attributes: Attributes, name: str, allowed: Sequence[str]) -> str:
    """An attribute that is one of a few words."""
    value = attributes[name]
    if not isinstance(value, str) or value not in allowed:
        raise mismatch(f"attribute {name} is not one of its words", " | ".join(allowed), repr(value))
    return value


def dtype_attribute(attributes: Attributes, name: str) -> DType:
    """An attribute that is an element type."""
    value = attributes[name]
    if not isinstance(value, DType):
        raise mismatch(f"attribute {name} is not an element type", "an element type", repr(value))
    return value


def axis_of(attributes: Attributes, rank: int) -> int:
    """The attribute `axis`, checked against a rank; negative axes are a frontend's matter."""
    axis = int_of(attributes, "axis")
    if not 0 <= axis < rank:
        raise mismatch("axis is out of range", f"0 <= axis < {rank}", axis)
    return axis


def static(extents: Sequence[Extent], dims: DimValues) -> tuple[int, ...]:
    """Extents at run time."""
    return tuple(evaluate(e, dims) for e in extents)


def wide(array: Array) -> NDArray[np.float64] | NDArray[np.int64]:
    """The array in the type that references accumulate in: float64, or int64 for integers."""
    return array.astype(np.int64) if array.dtype.kind in "iub" else array.astype(np.float64)
