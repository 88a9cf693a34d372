"""Type inference for one op: completes its attributes and asks its type rule.

Takes an op's name, operand types and attributes; gives the complete attributes and the result types. Invariant: what
passes here has exactly the attributes of its record, in the record's order, and every mismatch says where it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import get_close_matches

from bundle_format.errors import TesseraError
from tessera_build.ir.core.node import Span
from tessera_build.ir.core.types import Type
from tessera_build.ir.graph.ops import OPS
from tessera_build.ir.graph.ops.op import Attributes, Op, RegionType, mismatch

# No machine holds a value of this size, and arithmetic on offsets stays far from 64 bits.
LARGEST_VALUE_BYTES = 1 << 40
LARGEST_RANK = 32


def check_size(type_: Type) -> None:
    """Refuse a value that cannot be, or that no machine can hold, before anything is computed with its extents."""
    if any(isinstance(extent, int) and extent < 0 for extent in type_.shape):
        raise mismatch("an axis has a negative extent", "extents of 0 or more", type_)
    static = [max(extent, 1) for extent in type_.shape if isinstance(extent, int)]  # a stride may be none of nothing
    if math.prod(static) * type_.dtype.bytes > LARGEST_VALUE_BYTES or type_.rank > LARGEST_RANK:
        raise TesseraError(
            "VALUE_TOO_LARGE",
            "a value is larger than any machine can hold",
            expected=f"at most {LARGEST_VALUE_BYTES >> 40} TiB and {LARGEST_RANK} axes",
            found=str(type_) if type_.rank <= LARGEST_RANK else f"{type_.rank} axes",
        )


def check_integers(name: str, attributes: Attributes) -> None:
    """Refuse what no IR can write down: numbers of models are 64-bit, but sums and products of them need not be."""
    for key, value in attributes.items():
        waiting = [value]
        while waiting:
            part = waiting.pop()
            if isinstance(part, tuple):
                waiting += part
            elif isinstance(part, int) and not -(1 << 63) <= part < 1 << 64:
                raise TesseraError(
                    "VALUE_TOO_LARGE", f"{name}'s {key} needs more than 64 bits", expected="64 bits", found=str(part)
                )


def op_named(name: str) -> Op:
    """The record of an op; raises `TesseraError` with the nearest names for an unknown one."""
    if name in OPS:
        return OPS[name]
    near = get_close_matches(name, OPS)
    hint = f"did you mean {' or '.join(near)}?" if near else None
    raise TesseraError("UNKNOWN_OP", f"Graph IR has no op {name!r}", expected="a row of the op table", hint=hint)


def complete(op: Op, attributes: Attributes) -> Attributes:
    """The op's attributes with defaults filled in; raises `TesseraError` for a missing or an unknown one."""
    unknown = sorted(attributes.keys() - set(op.attributes))
    missing = [name for name in op.attributes if name not in attributes and name not in op.defaults]
    if unknown or missing:
        raise TesseraError(
            "BAD_ATTRIBUTES",
            f"{op.name} has other attributes",
            expected=", ".join(op.attributes) or "none",
            found=", ".join(sorted(attributes)) or "none",
        )
    return {name: attributes[name] if name in attributes else op.defaults[name] for name in op.attributes}


def infer(
    name: str,
    types: Sequence[Type],
    attributes: Attributes,
    span: Span | None = None,
    regions: Sequence[RegionType] = (),
) -> tuple[Type, ...]:
    """Result types of an op whose attributes are complete; raises `TesseraError` that names `span`."""
    op = op_named(name)
    try:
        check_integers(name, attributes)
        expected = op.control.regions if op.control else ()
        if len(regions) != len(expected):
            raise mismatch(f"{name} has other regions", ", ".join(expected) or "none", len(regions))
        if op.control is not None:
            found = op.control.infer(types, attributes, regions)
        else:
            assert op.infer is not None, "an op without regions has a type rule"
            found = op.infer(types, attributes)
        for type_ in found:
            check_size(type_)
        return found
    except TesseraError as error:
        error.where = error.where or (str(span) if span else None)
        raise
