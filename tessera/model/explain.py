"""Operands in words: what a value is and where it came from, and which Python numbers are elements of a type.

Takes a trace and its values; gives texts and errors. Invariant: an error of a type rule leaves here with the author's
place, and with the type and the origin of every operand.
"""

from __future__ import annotations

from collections.abc import Sequence

from bundle_format.errors import TesseraError
from tessera.errors import LanguageError, Note
from tessera.model.numeric import NO_POLICY
from tessera.model.policies import bounds_of
from tessera.model.site import Site, here
from tessera.model.trace import Trace
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import BOOL, I64, DType
from tessera_build.ir.graph.ops.shapes import shape_text

_TOO_LARGE = 1 << 1023  # for any float
_LARGEST_EXTENT = (1 << 63) - 1
_SIDES = {2: ("left", "right"), 3: ("condition", "left", "right")}


def value_text(trace: Trace, value: int) -> str:
    """Element type, shape, policy and the author's name of a value."""
    type_ = trace.builder.type(value)
    label = trace.labels.get(value)
    text = f"{type_.dtype}{shape_text(type_.shape)}{trace.policies.get(value, NO_POLICY)}"
    return f"{text} {label}" if label else text


def explained(error: TesseraError, trace: Trace, values: Sequence[int], site: Site | None) -> LanguageError:
    """The error of a type rule at the author's place, with every operand's type and origin."""
    sides = _SIDES.get(len(values), tuple(f"operand {i}" for i in range(len(values))))
    notes = tuple(
        Note(side, value_text(trace, value), trace.sites.get(value)) for side, value in zip(sides, values, strict=True)
    )
    return LanguageError(
        error.code,
        error.message,
        site=site,
        expected=error.expected,
        found=error.found,
        hint=error.hint,
        notes=notes,
    )


def wanted_type(like: DType | None, operand: object, site: Site | None) -> DType:
    """The type that a number gets; raises where no tensor beside it says."""
    if like is None:
        raise LanguageError(
            "NOT_A_TENSOR",
            "none of the operands is a tensor, so the element type is unknown",
            site=site,
            found=str(operand),
            hint="op.full((), 0.5, dtype=f32) is a number as a tensor",
        )
    return like


def element_number(number: bool | int | float, like: DType | None, site: Site | None) -> bool | int | float:
    """A Python number as an element of the tensor's type; what would change it is refused."""
    if like is None or (like.is_float and (isinstance(number, float) or abs(number) < _TOO_LARGE)):
        return number
    if like == BOOL:
        exact = isinstance(number, bool)
    else:
        low, high = (0.0, 0.0) if like.is_float else bounds_of(like)
        exact = not isinstance(number, bool) and low <= number <= high and number == int(number)
    if not exact:
        raise LanguageError(
            "NUMBER_CHANGES_TYPE",
            f"the number {number!r} is no element of type {like}",
            site=site,
            expected=f"a number that {like} holds exactly",
            hint="convert the tensor first: op.cast(x, f32)",
        )
    return number if like == BOOL else int(number)


def expect_extent(trace: Trace, extent: Extent, dtype: DType) -> None:
    """Demand that an integer type holds an extent, which only a run may tell; floats round it."""
    if dtype.kind not in ("signed", "unsigned") or dtype == I64:
        return
    if isinstance(extent, int):
        element_number(extent, dtype, here())
        return
    low, high = (int(bound) for bound in bounds_of(dtype))
    message = f"the extent {extent} is no number of type {dtype}"
    trace.require(extent, ">=", low, message)
    if high < _LARGEST_EXTENT:
        trace.require(high, ">=", extent, message)
