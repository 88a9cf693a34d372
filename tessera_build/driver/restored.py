"""The graph of a bundle with its constants, told back from the weights in the order that kernels read them.

Takes: a path. Gives: a `Restored`; raises a `ConfigError` that names the weights which cannot be told.
Invariant: a constant is the one that was built, with the digest that the graph names it by: weights that were
rearranged are put back, and numbers that became part of the code are read off its text. Weights of which the bundle
holds rounded transforms alone are those with the same transforms, and are listed by name.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from bundle_format import media
from bundle_format.errors import BundleError
from bundle_format.reader import Bundle, open_bundle
from bundle_format.schema import Weight
from tessera_build.config import ConfigError
from tessera_build.driver.inverted import turned_back, without_sums
from tessera_build.driver.opened import graph_of, level_text, variant_named
from tessera_build.ir.core.types import DTYPES, DType
from tessera_build.ir.graph.builder import digest_of, graph_nodes
from tessera_build.ir.graph.nodes import Array, GraphNode, Module
from tessera_build.ir.graph.owned import owned_digest
from tessera_build.lower.schedule_to_tile.layouts import Packing
from tessera_build.space.toom_cook import Transform

_ROWS: Final = "v1:row-major"
_PACKED: Final = re.compile(r"v1:(?:group\((\d+),(\d+)\),)?order\(([\d,]+)\),panels\((\d+),(\d+)\)(?:,quads\((\d+)\))?")
_POINTS: Final = re.compile(
    r"v1:winograd\((\d+),(\d+)(?:x(\d+))?(?:/(\d+)x(\d+))?\),order\(([-\d,]+)\),panels\((\d+),(\d+)\)"
)
_QUARTERS: Final = re.compile(r"v1:strassen\((\d+)\),order\(([\d,]+)\),panels\((\d+),(\d+)\)")
_PAIRS: Final = re.compile(r"v1:pairs,order\(([\d,]+)\),panels\(0,(\d+)\)")
_NUMBER: Final = re.compile(r"= const\(([^)]+)\) : (\w+)")


@dataclass(frozen=True, slots=True)
class Restored:
    """The module behind a bundle's first variant, after the graph passes; `rounded` names the weights that are known
    but for a few units in the last place of their largest neighbours."""

    module: Module
    rounded: tuple[str, ...]


def restored(path: str | Path) -> Restored:
    """What a bundle was lowered from."""
    with open_bundle(path) as bundle:
        module = graph_of(bundle, variant_named(bundle, None))
        nodes = {str(n.attributes["digest"]): n for f in module.entries.values() for n in graph_nodes(f) if _held(n)}
        found = dict(_stored(bundle, nodes, module.constant_names))
        if found.keys() != nodes.keys():
            found |= dict(_in_code(bundle, {d: n for d, n in nodes.items() if d not in found}))
        rounded = dict(_transformed(bundle, {d: n for d, n in nodes.items() if d not in found}))
        found |= rounded
    missing = [module.constant_names.get(digest, digest[:19]) for digest in nodes if digest not in found]
    if missing:
        raise ConfigError(
            "WEIGHTS_TRANSFORMED",
            "the bundle holds weights in a form that cannot be turned back",
            where=str(path),
            expected="the model.py or the ONNX file that it was built from; `tessera inspect` shows its digest",
            found=", ".join(missing[:8]),
        )
    names = tuple(sorted(module.constant_names.get(digest, digest[:19]) for digest in rounded))
    return Restored(replace(module, constants=found), names)


def _held(node: GraphNode) -> bool:
    return node.op == "constant"


def _stored(bundle: Bundle, nodes: Mapping[str, GraphNode], names: Mapping[str, str]) -> Iterator[tuple[str, Array]]:
    """Constants that lie among the weights of any variant in an order that can be turned round."""
    for variant in bundle.variants:
        layers = {layer.digest: layer for layer in variant.layers(media.WEIGHTS)}
        for weight in variant.config.weights:
            digest = str(weight.source)
            if digest in nodes:
                data = bundle.weights(layers[weight.digest])[weight.offset : weight.offset + weight.bytes]
                array = _unpacked(weight, np.frombuffer(data, np.uint8), nodes[digest])
                if array is not None and digest in (digest_of(array), owned_digest(array, names.get(digest, ""))):
                    yield digest, array


def _transformed(bundle: Bundle, nodes: Mapping[str, GraphNode]) -> Iterator[tuple[str, Array]]:
    """Constants of which a bundle holds transforms alone."""
    for variant in bundle.variants:
        layers = {layer.digest: layer for layer in variant.layers(media.WEIGHTS)}
        for weight in variant.config.weights:
            digest, packing = str(weight.source), _transform(weight.layout)
            if digest in nodes and packing is not None:
                data = bundle.weights(layers[weight.digest])[weight.offset : weight.offset + weight.bytes]
                packed = np.frombuffer(data, DTYPES[weight.dtype].numpy).reshape(weight.shape)
                array = turned_back(packed, packing, _shape(nodes[digest]))
                if array is not None:
                    yield digest, array


def _transform(layout: str) -> Packing | None:
    """The packing of a layout that is more than an order."""
    points, quarters = _POINTS.fullmatch(layout), _QUARTERS.fullmatch(layout)
    if points is not None:
        tile, rows, columns, above, before, order, outer, width = points.groups()
        transform = Transform.of(int(tile), (int(rows), int(columns or rows)), (int(above or 1), int(before or 1)))
        return Packing(_numbers(order), int(outer), int(width), winograd=transform)
    if quarters is not None:
        piece, order, outer, width = quarters.groups()
        return Packing(_numbers(order), int(outer), int(width), strassen=int(piece))
    return None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


def _unpacked(weight: Weight, data: Array, node: GraphNode) -> Array | None:
    """A weight as the graph has it; None where its layout is more than an order."""
    dtype, shape = DTYPES[weight.dtype], _shape(node)
    packed = np.asarray(data).view(dtype.numpy).reshape(weight.shape)
    if weight.layout == _ROWS:
        return packed.reshape(shape).copy()
    match, pairs = _PACKED.fullmatch(weight.layout), _PAIRS.fullmatch(weight.layout)
    if pairs is not None:
        return without_sums(packed, _numbers(pairs[1]), shape)
    if match is None:
        return None
    axis, size, order, outer, width, quad = match.groups()
    group = None if axis is None else (int(axis), int(size))
    packing = Packing(_numbers(order), int(outer), int(width), group, int(quad or 1))
    # Where each element went: the same packing of the elements' numbers, from 1 on, for 0 fills up.
    array = np.empty(int(np.prod(shape)), dtype.numpy)
    places = packing.apply(np.arange(1, array.size + 1).reshape(shape)).reshape(-1).astype(np.int64)
    held = places > 0
    array[places[held] - 1] = packed.reshape(-1)[held]
    return array.reshape(shape)


def _in_code(bundle: Bundle, nodes: Mapping[str, GraphNode]) -> Iterator[tuple[str, Array]]:
    """Constants of one number that became part of kernels, recognised by their digests."""
    try:
        text = level_text(bundle, variant_named(bundle, None), "tile")
    except BundleError:
        return
    numbers = {(word, DTYPES[name]) for word, name in _NUMBER.findall(text)}
    for digest, node in nodes.items():
        for word, dtype in sorted(numbers, key=str):
            array = np.full(_shape(node), _value(word, dtype)).astype(dtype.numpy)
            if digest_of(array) == digest:
                yield digest, array
                break


def _shape(node: GraphNode) -> tuple[int, ...]:
    shape = node.attributes["shape"]
    assert isinstance(shape, tuple), "a constant has a shape"
    return tuple(int(str(extent)) for extent in shape)


def _value(word: str, dtype: DType) -> float | int | bool:
    if dtype.kind == "bool":
        return word == "True"
    return float.fromhex(word) if dtype.is_float else int(word)
