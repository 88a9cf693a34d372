"""What Tile IR means: an interpreter in numpy, one function a node.

Takes a function, its buffers as arrays and the values of its symbolic dims; changes the buffers in place. Invariant:
bindings are never read, so deleting them leaves every result bitwise the same; and no index is ever wrapped or
clipped: an unchecked access outside its buffer is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import Extent, evaluate, symbols_of
from tessera_build.ir.core.node import Function, Node, Region
from tessera_build.ir.core.scalar import evaluate as evaluate_program
from tessera_build.ir.core.types import DType, Type, dtype_of, number_in
from tessera_build.ir.tile.contraction import combine_along, contract
from tessera_build.ir.tile.nodes import (
    Alloc,
    Contract,
    Copy,
    For,
    If,
    Iota,
    Let,
    Load,
    Map,
    Permute,
    Reduce,
    Relation,
    Store,
    TileNode,
    View,
    Wait,
)

Array = NDArray[np.generic]
Integers = NDArray[np.int64]


class TileError(TesseraError):
    """A tile program does what its level does not allow."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A view at run time: the buffer, one array of coordinates per buffer axis, and where they are inside."""

    buffer: Array
    coordinates: tuple[Integers, ...]
    inside: NDArray[np.bool_]
    shape: tuple[int, ...]

    def read(self, pad: float) -> Array:
        """The tile, `pad` outside the domain."""
        picked = self.buffer[tuple(np.where(self.inside, c, 0) for c in self.coordinates)]
        filler = np.asarray(number_in(pad, dtype_of(self.buffer.dtype))).astype(self.buffer.dtype)
        return np.broadcast_to(np.where(self.inside, picked, filler).astype(self.buffer.dtype), self.shape)

    def write(self, tile: Array) -> None:
        """Put a tile into the buffer, inside the domain only."""
        inside = np.broadcast_to(self.inside, self.shape)
        where = tuple(np.broadcast_to(c, self.shape)[inside] for c in self.coordinates)
        self.buffer[where] = np.broadcast_to(tile, self.shape)[inside]


@dataclass(slots=True)
class _Machine:
    """Everything that changes while a function runs."""

    types: Mapping[int, Type]
    symbols: dict[str, int]
    memory: dict[int, Array]
    windows: dict[int, Window]
    tiles: dict[int, Array]

    def extent(self, extent: Extent) -> int:
        return extent if isinstance(extent, int) else evaluate(extent, self.symbols)

    def operand(self, value: int) -> Array:
        """A tile, or the tile that a view shows."""
        return self.tiles[value] if value in self.tiles else self.windows[value].read(0.0)

    def dtype(self, value: int) -> DType:
        return self.types[value].dtype


def run(function: Function, buffers: Sequence[Array], dims: Mapping[str, int]) -> None:
    """Run `function` on `buffers` (its arguments, in order; outputs are written in place).

    Raises `TileError` for a buffer of the wrong shape or type and for an access outside a buffer.
    """
    missing = symbols_of_types(function) - dims.keys()
    if missing:
        raise TileError(
            "DIM_MISSING", f"no value for {', '.join(sorted(missing))}", expected="a value for every symbolic dim"
        )
    machine = _Machine(function.types, dict(dims), {}, {}, {})
    for value, buffer in zip(function.args, buffers, strict=True):
        _check_buffer(machine, value, buffer)
        machine.memory[value] = buffer
    with np.errstate(all="ignore"):
        _run_nodes(machine, function.nodes)


def symbols_of_types(function: Function) -> frozenset[str]:
    """Names of the symbolic dims of the function's arguments."""
    extents = [extent for value in function.args for extent in function.types[value].shape]
    return frozenset(name for extent in extents for name in symbols_of(extent))


def _check_buffer(machine: _Machine, value: int, buffer: Array) -> None:
    type_ = machine.types[value]
    shape = tuple(machine.extent(e) for e in type_.shape)
    if buffer.shape != shape or buffer.dtype != type_.dtype.numpy:
        raise TileError(
            "BUFFER_MISMATCH",
            f"argument %{value} does not fit",
            expected=f"{type_.dtype} {list(shape)}",
            found=f"{buffer.dtype} {list(buffer.shape)}",
        )


def _run_nodes(machine: _Machine, nodes: tuple[Node, ...]) -> None:
    for node in nodes:
        _RULES[type(node)](machine, node)


def _run_region(machine: _Machine, region: Region, args: Sequence[Array]) -> list[Array]:
    machine.tiles.update(zip(region.args, args, strict=True))
    _run_nodes(machine, region.nodes)
    return [machine.tiles[r] for r in region.results]


def _alloc(machine: _Machine, node: Alloc) -> None:
    type_ = machine.types[node.result]
    # Contents are undefined; a NaN, or the most negative integer, makes a read before a write visible.
    filler = np.nan if type_.dtype.is_float else 1 if type_.dtype.kind == "bool" else -(1 << (type_.dtype.bits - 1))
    filler = abs(filler) if type_.dtype.kind == "unsigned" else filler
    machine.memory[node.result] = np.full(type_.static_shape, np.asarray(filler).astype(type_.dtype.numpy))


def _view(machine: _Machine, node: View) -> None:
    buffer = machine.memory[node.buffer]
    shape = machine.types[node.result].static_shape
    coordinates = _coordinates(machine, node, shape)
    inside = np.ones((1,) * len(shape), np.bool_)
    checked = {axis.axis for axis in node.axes if axis.checked}
    checked |= {node.gather_axis} if node.gather_checked else set()
    legal = [(c >= 0) & (c < extent) for c, extent in zip(coordinates, buffer.shape, strict=True)]
    for axis in checked:
        inside = inside & legal[axis]
    for axis in set(range(buffer.ndim)) - checked:
        if not (legal[axis] | ~inside).all():
            _refuse_access(node, axis, coordinates[axis], buffer.shape[axis])
    if buffer.ndim == 0:  # numpy cannot assign an array through the empty index
        buffer, coordinates = buffer.reshape(1), [np.zeros((), np.int64)]
    machine.windows[node.result] = Window(buffer, tuple(coordinates), inside, shape)


def _coordinates(machine: _Machine, node: View, shape: tuple[int, ...]) -> list[Integers]:
    coordinates = [np.asarray(machine.extent(offset), np.int64) for offset in node.offsets]
    for position, axis in enumerate(node.axes):
        if axis.axis >= 0:
            steps = np.arange(shape[position], dtype=np.int64) * axis.step
            coordinates[axis.axis] = coordinates[axis.axis] + steps.reshape((-1,) + (1,) * (len(shape) - 1 - position))
    if node.indices is not None:
        coordinates[node.gather_axis] = coordinates[node.gather_axis] + machine.tiles[node.indices].astype(np.int64)
    return coordinates


def _refuse_access(node: View, axis: int, coordinate: Integers, extent: int) -> None:
    raise TileError(
        "INDEX_OUT_OF_RANGE",
        f"view %{node.result} of %{node.buffer} leaves the buffer on axis {axis}, which it does not check",
        expected=f"coordinates from 0 to {extent - 1}",
        found=f"{int(coordinate.min())} to {int(coordinate.max())}",
        hint="mark the axis as checked, or bound the loops around the view",
    )


def _load(machine: _Machine, node: Load) -> None:
    machine.tiles[node.result] = machine.windows[node.view].read(node.pad)


def _store(machine: _Machine, node: Store) -> None:
    machine.windows[node.view].write(machine.tiles[node.value])


def _copy(machine: _Machine, node: Copy) -> None:
    machine.windows[node.target].write(machine.windows[node.source].read(node.pad))


def _wait(_machine: _Machine, _node: Wait) -> None:
    """Copies are complete at once here."""


def _for(machine: _Machine, node: For) -> None:
    carried = [machine.tiles[c] for c in node.carried]
    for index in range(0, machine.extent(node.extent), node.step):
        machine.symbols[node.index] = index
        carried = _run_region(machine, node.body, carried)
    machine.symbols.pop(node.index, None)
    machine.tiles.update(zip(node.results, carried, strict=True))


_RELATIONS: dict[Relation, Callable[[int, int], bool]] = {
    "lt": int.__lt__,
    "le": int.__le__,
    "eq": int.__eq__,
    "ne": int.__ne__,
}


def _if(machine: _Machine, node: If) -> None:
    holds = _RELATIONS[node.relation](machine.extent(node.left), machine.extent(node.right))
    results = _run_region(machine, node.then if holds else node.otherwise, ())
    machine.tiles.update(zip(node.results, results, strict=True))


def _let(machine: _Machine, node: Let) -> None:
    element, extent = int(machine.tiles[node.value].reshape(())), machine.extent(node.extent)
    if not 0 <= element < extent:
        raise TileError(
            "INDEX_OUT_OF_RANGE",
            f"the element that index {node.index!r} stands for is out of range",
            expected=f"0 to {extent - 1}",
            found=str(element),
        )
    machine.symbols[node.index] = element
    results = _run_region(machine, node.body, ())
    machine.symbols.pop(node.index)
    machine.tiles.update(zip(node.results, results, strict=True))


def _contract(machine: _Machine, node: Contract) -> None:
    acc = machine.tiles[node.acc]
    operands = (machine.operand(node.a), machine.operand(node.b))
    machine.tiles[node.result] = contract(node.spec, acc, operands, machine.dtype(node.acc))


def _map(machine: _Machine, node: Map) -> None:
    type_ = machine.types[node.result]
    (result,) = evaluate_program(node.program, [machine.tiles[o] for o in node.operands])
    machine.tiles[node.result] = np.broadcast_to(result, type_.static_shape)


def _reduce(machine: _Machine, node: Reduce) -> None:
    operands = [machine.tiles[o] for o in node.operands]
    results = combine_along(node, operands)
    machine.tiles.update(zip(node.results, results, strict=True))


def _permute(machine: _Machine, node: Permute) -> None:
    machine.tiles[node.result] = np.transpose(machine.tiles[node.operand], node.permutation)


def _iota(machine: _Machine, node: Iota) -> None:
    type_ = machine.types[node.result]
    shape = type_.static_shape
    steps = np.arange(shape[node.axis], dtype=np.int64) + machine.extent(node.offset)
    along = steps.reshape((-1,) + (1,) * (len(shape) - 1 - node.axis)).astype(type_.dtype.numpy)
    machine.tiles[node.result] = np.broadcast_to(along, shape)


_RULES: dict[type[Node], Callable[..., None]] = {
    Alloc: _alloc,
    View: _view,
    Load: _load,
    Store: _store,
    Copy: _copy,
    Wait: _wait,
    For: _for,
    If: _if,
    Let: _let,
    Contract: _contract,
    Map: _map,
    Reduce: _reduce,
    Permute: _permute,
    Iota: _iota,
}


def interpreted() -> frozenset[type[TileNode]]:
    """The node classes that have a meaning here."""
    return frozenset(cls for cls in _RULES if issubclass(cls, TileNode))
