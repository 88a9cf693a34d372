"""The canonical hash of a function: what it computes, not how it was written down.

Takes a function of any level; gives a `Digest`. Invariant: the digest does not change with value ids, the order of
independent pure nodes, the function's name, names of loop indices or spans; it changes with anything else. One sweep
from arguments to results, so time is linear however values are shared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from bundle_format.digest import Digest
from tessera_build.ir.core.attributes import Attr, encode
from tessera_build.ir.core.dims import Dim, Extent, substitute, symbol
from tessera_build.ir.core.node import Function, Node, Region
from tessera_build.ir.core.structure import symbols_bound_by, to_generic
from tessera_build.ir.core.text.literals import print_dictionary
from tessera_build.ir.core.types import Type

# Part of every digest: raise it when the meaning of what is hashed changes.
VERSION = "tessera-ir-1"


def hash_function(function: Function) -> Digest:
    """The canonical digest of a function."""
    sweep = _Sweep(function.types)
    attributes = print_dictionary({key: encode(value) for key, value in sorted(function.attributes.items())})
    body = sweep.region(Region(function.args, function.nodes, function.results), "function", {})
    return Digest(_combine(VERSION, attributes, body).hex())


def _combine(*parts: str | bytes) -> bytes:
    """A digest of parts, each preceded by its length."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(len(data).to_bytes(8, "little"))
        whole.update(data)
    return whole.digest()


class _Sweep:
    """Digests of values, computed in the order of nodes."""

    def __init__(self, types: Mapping[int, Type]) -> None:
        self._types = types
        self._values: dict[int, bytes] = {}

    def region(self, region: Region, place: str, symbols: Mapping[str, Extent]) -> bytes:
        """Digest of a block: its arguments' types, its nodes as a set, its effects in order, its results."""
        for position, value in enumerate(region.args):
            self._values[value] = _combine("argument", place, str(position), self._type(value, symbols))
        digests: list[bytes] = []
        effects = 0
        for node in region.nodes:
            effects += type(node).effects
            digests.append(self._node(node, effects if type(node).effects else 0, place, symbols))
        args = [self._values[a] for a in region.args]
        return _combine("block", _join(args), _join(sorted(digests)), _join(self._values[r] for r in region.results))

    def _node(self, node: Node, sequence: int, place: str, symbols: Mapping[str, Extent]) -> bytes:
        generic = to_generic(node)
        attributes: Mapping[str, Attr] = generic.attributes
        bound = symbols_bound_by(node)
        inner = symbols
        if bound:
            # A loop's index is named by how many loops are around it.
            canonical = {key: f"__index{len(symbols) + i}" for i, key in enumerate(bound)}
            inner = {**symbols, **{name: symbol(canonical[key]) for key, name in bound.items()}}
            attributes = {**attributes, **canonical}
        if symbols:
            attributes = {key: _renamed(value, symbols) for key, value in attributes.items()}
        text = print_dictionary(dict(sorted(attributes.items())))
        operands = _join(self._values[v] for v in generic.operands)
        regions = [self.region(r, f"{place}/{i}", inner) for i, r in enumerate(generic.regions)]
        results = ";".join(self._type(v, symbols) for v in generic.results)
        digest = _combine(generic.name, text, operands, _join(regions), results, str(sequence))
        for position, value in enumerate(generic.results):
            self._values[value] = _combine(digest, str(position))
        return digest

    def _type(self, value: int, symbols: Mapping[str, Extent]) -> str:
        type_ = self._types[value]
        shape = [str(substitute(extent, symbols)) for extent in type_.shape]
        return f"{type_.container}<{','.join(shape)}>{type_.dtype.mlir}"


def _join(digests: Iterable[bytes]) -> bytes:
    return b"".join(digests)


def _renamed(value: Attr, symbols: Mapping[str, Extent]) -> Attr:
    if isinstance(value, Dim):
        return substitute(value, symbols)
    if isinstance(value, tuple):
        return tuple(_renamed(item, symbols) for item in value)
    if isinstance(value, Mapping):
        return {key: _renamed(item, symbols) for key, item in value.items()}
    return value
