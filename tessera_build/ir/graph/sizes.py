"""What passes, lowering and proofs ask about sizes that are read from data.

Takes functions with `sizes` nodes; gives the symbols they define, the ranges of all symbols, and the largest value that
an extent can take as an extent over the dims of the signature. Invariant: a bound holds for every value of every symbol
within its own bounds.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.ir.core.dims import (
    Atom,
    Dim,
    Extent,
    Monomial,
    Range,
    bounds,
    floordiv,
    maximum,
    minimum,
    symbols_of,
    terms_of,
)
from tessera_build.ir.core.node import Function
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.ops.op import extents_of
from tessera_build.ir.graph.ops.sizes import UNBOUNDED, names_of


def entry_dims(module: Module, entry: str) -> tuple[str, ...]:
    """The dims of a module that the inputs of one entry tell: another entry may have others."""
    function = module.entries[entry]
    told = {name for arg in function.args for extent in function.types[arg].shape for name in symbols_of(extent)}
    return tuple(name for name in module.dims if name in told)


def data_sizes(function: Function) -> dict[str, Extent]:
    """The symbols that a function reads from data, in order, each with its upper bound (-1: none)."""
    found: dict[str, Extent] = {}
    for node in graph_nodes(function):
        if node.op == "sizes":
            found |= dict(zip(names_of(node.attributes), extents_of(node.attributes, "uppers"), strict=True))
    return found


def symbol_ranges(module: Module, function: Function) -> dict[str, Range]:
    """The range of every symbol that the function's extents may mention: dims first, then sizes from data."""
    ranges = dict(module.dims)
    for name, upper in data_sizes(function).items():
        ranges[name] = (0, None if upper == UNBOUNDED else bounds(upper, ranges)[1])
    return ranges


def upper_bound(extent: Extent, sizes: Mapping[str, Extent], ranges: Mapping[str, Range]) -> Extent | None:
    """An extent over dims alone that is never smaller; None where a size without a bound decides."""
    if symbols_of(extent).isdisjoint(sizes):
        return extent
    total: Extent = 0
    for monomial, coefficient in terms_of(extent):
        if not _mentions(monomial, sizes):
            total = total + _term(monomial) * coefficient
        elif coefficient > 0:
            product = _product(monomial, sizes, ranges)
            if product is None:
                return None
            total = total + product * coefficient
        else:
            low, _ = bounds(_term(monomial), ranges)
            if low is None:
                return None
            total = total + low * coefficient
    return total


def _term(monomial: Monomial) -> Extent:
    return Dim(((monomial, 1),)) if monomial else 1


def _mentions(monomial: Monomial, sizes: Mapping[str, Extent]) -> bool:
    return not symbols_of(_term(monomial)).isdisjoint(sizes)


def _product(monomial: Monomial, sizes: Mapping[str, Extent], ranges: Mapping[str, Range]) -> Extent | None:
    """The bound of a product whose factors are never negative."""
    product: Extent = 1
    for atom, power in monomial:
        low, _ = bounds(_term(((atom, 1),)), ranges)
        found = _atom(atom, sizes, ranges) if low is not None and low >= 0 else None
        if found is None:
            return None
        for _ in range(power):
            product = product * found
    return product


def _atom(atom: Atom, sizes: Mapping[str, Extent], ranges: Mapping[str, Range]) -> Extent | None:
    if not atom.function:
        upper = sizes.get(atom.name, _term(((atom, 1),)))
        return None if upper == UNBOUNDED else upper_bound(upper, sizes, ranges)
    left, right = upper_bound(atom.left, sizes, ranges), upper_bound(atom.right, sizes, ranges)
    if atom.function == "min":
        return minimum(left, right) if left is not None and right is not None else left if right is None else right
    if atom.function == "max":
        return None if left is None or right is None else maximum(left, right)
    if atom.function == "mod":
        return None if right is None else right - 1
    # The smallest divisor that is sure gives the largest quotient.
    divisor = atom.right if symbols_of(atom.right).isdisjoint(sizes) else max(bounds(atom.right, ranges)[0] or 1, 1)
    return None if left is None else floordiv(left, divisor)
