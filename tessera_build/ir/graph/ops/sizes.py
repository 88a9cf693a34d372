"""The op that makes data into extents: from the node on, symbols have the values that a tensor holds at run time.

Takes a vector of i64; gives no tensor but symbols, which types and attributes of later nodes mention. Invariant: a size
is never negative and never above its upper bound; a run that finds one that is ends with an error.
"""

from __future__ import annotations

from collections.abc import Sequence

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import evaluate
from tessera_build.ir.core.types import I64, Type, tensor
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.op import Attributes, DimValues, Op, expect_count, extents_of, mismatch

UNBOUNDED = -1


def names_of(attributes: Attributes) -> tuple[str, ...]:
    """The symbols that the op defines, in the order of the operand's elements."""
    names = attributes["names"]
    if not isinstance(names, tuple) or not all(isinstance(name, str) and name.isidentifier() for name in names):
        raise mismatch("attribute names is no list of symbols", "identifiers", repr(names))
    return tuple(str(name) for name in names)


def _infer_sizes(types: Sequence[Type], attributes: Attributes) -> tuple[Type, ...]:
    expect_count("sizes", types, 1)
    names, uppers = names_of(attributes), extents_of(attributes, "uppers")
    if types[0] != tensor(I64, len(names)) or len(uppers) != len(names):
        found = f"{types[0]}, {len(names)} names and {len(uppers)} bounds"
        raise mismatch("sizes does not fit its operand", "a name and a bound for each element of an i64 vector", found)
    if len(set(names)) < len(names):
        raise mismatch("sizes defines a symbol twice", "distinct names", ", ".join(names))
    return ()


def _evaluate_sizes(arrays: Sequence[Array], attributes: Attributes, dims: DimValues) -> tuple[Array, ...]:
    read_sizes(arrays[0], attributes, dims)
    return ()


def read_sizes(array: Array, attributes: Attributes, dims: DimValues) -> dict[str, int]:
    """The values of the symbols; raises `TesseraError` for one outside its bounds."""
    found: dict[str, int] = {}
    for name, upper, value in zip(names_of(attributes), extents_of(attributes, "uppers"), array.tolist(), strict=True):
        limit = evaluate(upper, dims)
        if value < 0 or (upper != UNBOUNDED and value > limit):
            expected = "0 or more" if upper == UNBOUNDED else f"0 to {limit}"
            raise TesseraError(
                "SIZE_BEYOND_BOUND",
                "a size that is computed from data is out of bounds",
                expected=expected,
                found=str(value),
            )
        found[name] = value
    return found


SIZES: tuple[Op, ...] = (
    Op(
        "sizes",
        "(x: i64[n]) <{names, uppers}> -> nothing; symbol names[i] is x[i] from here on, at most uppers[i] (-1: any)",
        _infer_sizes,
        _evaluate_sizes,
        ("names", "uppers"),
    ),
)
