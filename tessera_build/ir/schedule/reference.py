"""What compute definitions mean: every element evaluated in numpy over grids of indices.

Takes a function of Schedule IR, its inputs and the values of its symbolic dims; gives its results. Invariant: sums
and products of floats are formed in f64 and rounded once, so the answer does not depend on an order of elements,
which this level does not have. Whole index grids are held in memory: for small sizes only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bundle_format.errors import TesseraError
from tessera_build.ir.core.attributes import Attr
from tessera_build.ir.core.dims import Atom, Extent, evaluate, symbols_of
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.scalar import evaluate as evaluate_program
from tessera_build.ir.core.types import Type, dtype_of
from tessera_build.ir.schedule.nodes import Access, Axis, Combine, Compute, KernelCall

Array = NDArray[np.generic]
Integers = NDArray[np.int64]
# What a kernel of the tile language does, for functions that call one: operands and parameters in, results out.
Kernel = Callable[[Sequence[Array], Mapping[str, Attr], Sequence[Type]], Sequence[Array]]


class ScheduleError(TesseraError):
    """A task at the schedule level cannot be evaluated."""


def run(
    function: Function,
    inputs: Sequence[Array],
    dims: Mapping[str, int] | None = None,
    kernels: Mapping[str, Kernel] | None = None,
) -> list[Array]:
    """The results of `function`, in order. Dims that are the extent of an input axis need not be given.

    Raises `ScheduleError` for an index outside a buffer that is read without padding.
    """
    symbols = _bind_dims(function, inputs) | dict(dims or {})
    values = dict(zip(function.args, inputs, strict=True))
    for node in function.nodes:
        if isinstance(node, Compute):
            values[node.result] = _compute(node, [values[r] for r in node.reads], function.types[node.result], symbols)
        elif isinstance(node, KernelCall):
            if node.kernel not in (kernels or {}):
                raise ScheduleError("KERNEL_UNKNOWN", f"no reference was given for kernel {node.kernel!r}")
            types = [_static(function.types[r], symbols) for r in node.results]
            results = (kernels or {})[node.kernel]([values[o] for o in node.operands], dict(node.parameters), types)
            values.update(zip(node.results, results, strict=True))
    return [values[r] for r in function.results]


def _bind_dims(function: Function, inputs: Sequence[Array]) -> dict[str, int]:
    """Values of the symbols that are the whole extent of an input's axis."""
    symbols: dict[str, int] = {}
    for value, array in zip(function.args, inputs, strict=True):
        for extent, size in zip(function.types[value].shape, array.shape, strict=True):
            if str(extent) in symbols_of(extent):
                symbols[str(extent)] = size
    return symbols


def _static(type_: Type, symbols: Mapping[str, int]) -> Type:
    return replace(type_, shape=tuple(evaluate(e, symbols) for e in type_.shape))


@dataclass(frozen=True, slots=True)
class _Grid:
    """All points of a definition's axes: one array of indices per axis name, ready to broadcast."""

    shape: tuple[int, ...]
    symbols: Mapping[str, Integers]

    @classmethod
    def over(cls, axes: Sequence[Axis], dims: Mapping[str, int]) -> _Grid:
        shape = tuple(evaluate(axis.extent, dims) for axis in axes)
        symbols = {name: np.asarray(value, np.int64) for name, value in dims.items()}
        for position, (axis, extent) in enumerate(zip(axes, shape, strict=True)):
            symbols[axis.name] = np.arange(extent, dtype=np.int64).reshape((-1,) + (1,) * (len(shape) - 1 - position))
        return cls(shape, symbols)

    def index(self, extent: Extent, reads: Mapping[str, Integers]) -> Integers:
        """The value of an index expression at every point."""
        if isinstance(extent, int):
            return np.asarray(extent, np.int64)
        total = np.zeros((), np.int64)
        for monomial, coefficient in extent.terms:
            term = np.asarray(coefficient, np.int64)
            for atom, power in monomial:
                term = term * self._atom(atom, reads) ** power
            total = total + term
        return total

    def _atom(self, atom: Atom, reads: Mapping[str, Integers]) -> Integers:
        if not atom.function:
            return reads[atom.name] if atom.name in reads else self.symbols[atom.name]
        left, right = self.index(atom.left, reads), self.index(atom.right, reads)
        return _FUNCTIONS[atom.function](left, right)


_FUNCTIONS: dict[str, Callable[[Integers, Integers], Integers]] = {
    "floordiv": np.floor_divide,
    "mod": np.mod,
    "min": np.minimum,
    "max": np.maximum,
}


def _compute(node: Compute, buffers: Sequence[Array], type_: Type, dims: Mapping[str, int]) -> Array:
    grid = _Grid.over([*node.axes, *node.reduction], dims)
    reads: list[Array] = []
    indices: dict[str, Integers] = {}
    for position, (buffer, access) in enumerate(zip(buffers, node.accesses, strict=True)):
        reads.append(_read(buffer, access, grid, indices))
        if not dtype_of(buffer.dtype).is_float:
            indices[f"_r{position}"] = reads[-1].astype(np.int64)
    extra = [grid.index(value, indices) for value in node.index_values]
    (element,) = evaluate_program(node.program, [*reads, *extra])
    elements = np.broadcast_to(element, grid.shape)
    axes = tuple(range(len(node.axes), len(grid.shape)))
    return np.array(_combined(elements, node.combine, axes), dtype=type_.dtype.numpy)


def _read(buffer: Array, access: Access, grid: _Grid, reads: Mapping[str, Integers]) -> Array:
    inside = np.ones((), np.bool_)
    coordinates: list[Integers] = []
    for extent, size in zip(access.indices, buffer.shape, strict=True):
        index = grid.index(extent, reads)
        if symbols_of(extent) & reads.keys():
            index = np.where(index < 0, index + size, index)
        inside = inside & (index >= 0) & (index < size)
        coordinates.append(index)
    if access.pad is None and not inside.all():
        raise ScheduleError("INDEX_OUT_OF_RANGE", "a read leaves its buffer", found=f"indices {access.indices}")
    if buffer.size == 0:
        return np.full(inside.shape, np.asarray(access.pad or 0).astype(buffer.dtype))
    picked = buffer[tuple(np.where(inside, c, 0) for c in coordinates)]
    filler = np.asarray(access.pad if access.pad is not None else 0).astype(buffer.dtype)
    return np.asarray(np.where(inside, picked, filler), dtype=buffer.dtype)


def _combined(elements: Array, combine: Combine, axes: tuple[int, ...]) -> Array:
    if combine == "none":
        return elements
    dtype = dtype_of(elements.dtype)
    wide = elements.astype(np.float64 if dtype.is_float else np.int64)
    result = _REDUCTIONS[combine].reduce(wide, axis=axes, initial=_identity(combine, dtype.is_float))
    return np.asarray(result, dtype=wide.dtype)


_REDUCTIONS = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum, "largest": np.fmax}


def _identity(combine: Combine, is_float: bool) -> float | int:
    if combine in {"sum", "prod"}:
        return 0 if combine == "sum" else 1
    limits = np.iinfo(np.int64)
    low, high = (-np.inf, np.inf) if is_float else (limits.min, limits.max)
    return high if combine == "min" else low
