"""An `Emitter` that computes at once with numpy: constants at build time, and sweeps over millions of points.

Takes and gives ids of arrays. Invariant: every operation rounds as Target IR says: once, in its own precision, with
an exactly emulated fma.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tessera_build.ir.core.math.expand import expand
from tessera_build.ir.core.rounding import fma
from tessera_build.ir.core.types import F32, F64, DType, dtype_of

Array = NDArray[np.generic]


def _shifted(a: Array, b: Array) -> Array:
    return np.right_shift(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}")).view(a.dtype)


_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "rem": np.fmod,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "shl": np.left_shift,
    "ashr": np.right_shift,
    "lshr": _shifted,
}
_UNARY = {"neg": np.negative, "abs": np.abs, "sqrt": np.sqrt, "floor": np.floor, "ceil": np.ceil, "round": np.rint}


class NumpyEmitter:
    """Values are arrays, kept by id."""

    def __init__(self, fused: bool = True, scaling: bool = False) -> None:
        self.fused = fused
        self.scaling = scaling
        self.values: list[Array] = []
        self.operations = 0

    def add(self, array: Array) -> int:
        """Register an input."""
        self.values.append(array)
        return len(self.values) - 1

    def dtype(self, value: int) -> DType:
        """Element type of a value."""
        return dtype_of(self.values[value].dtype)

    def const(self, value: float | int, like: int) -> int:
        """A constant of the element type of `like`."""
        return self.add(np.asarray(value, self.values[like].dtype))

    def op(self, name: str, *operands: int) -> int:
        """A row of `OPS`, rounded once."""
        self.operations += 1
        arrays = [self.values[operand] for operand in operands]
        with np.errstate(all="ignore"):
            if name == "fma" and not self.fused:
                return self.add(np.add(np.multiply(arrays[0], arrays[1]), arrays[2]))
            return self.add(np.asarray(_compute(name, arrays)))

    def scales(self, like: int) -> bool:  # noqa: ARG002 - numpy has no registers
        """Whether `scale` is written as one operation."""
        return self.scaling

    def cast(self, value: int, dtype: DType) -> int:
        """Numeric conversion."""
        self.operations += 1
        with np.errstate(all="ignore"):
            return self.add(self.values[value].astype(dtype.numpy))

    def bitcast(self, value: int, dtype: DType) -> int:
        """The same bits as another element type of the same width."""
        return self.add(self.values[value].view(dtype.numpy))

    def rarely(self, mask: int, compute: Callable[[], Sequence[int]], otherwise: Sequence[int]) -> Sequence[int]:
        """What `compute` gives where `mask` holds, else the values given."""
        return [self.op("select", mask, new, old) for new, old in zip(compute(), otherwise, strict=True)]


def _compute(name: str, arrays: list[Array]) -> Array:
    if name == "fma":
        return _fma(arrays[0], arrays[1], arrays[2])
    if name == "scale":
        whole = np.nan_to_num(arrays[1].astype(np.float64), nan=0.0)
        scaled = np.ldexp(arrays[0], np.clip(whole, -5000, 5000).astype(np.int32))
        return np.where(np.isnan(arrays[0]) & np.isinf(arrays[1]), np.exp2(arrays[1]), scaled)
    if name == "select":
        return np.where(arrays[0], arrays[1], arrays[2])
    if name == "min":
        return np.where(np.less(arrays[1], arrays[0]), arrays[1], arrays[0])
    if name == "max":
        return np.where(np.greater(arrays[1], arrays[0]), arrays[1], arrays[0])
    if name == "not":
        return np.logical_not(arrays[0]) if arrays[0].dtype == np.bool_ else np.invert(arrays[0])
    if name in _UNARY:
        return _UNARY[name](arrays[0])
    return _BINARY[name](arrays[0], arrays[1])


def _fma(a: Array, b: Array, c: Array) -> Array:
    if dtype_of(a.dtype) != F32:
        return fma(a, b, c, F64)
    product = np.multiply(a, b, dtype=np.float64)  # exact
    total = product + c
    # Round to odd where the sum was inexact: rounding that to f32 cannot round twice.
    back = total - product
    error = (product - (total - back)) + (c - back)
    even = np.asarray((total.view(np.int64) & 1) == 0) & (error != 0) & np.isfinite(total)
    nudged = np.nextafter(total, np.where(error > 0, np.inf, -np.inf))
    return np.where(even, nudged, total).astype(np.float32)


def computed(name: str, operands: Sequence[Array]) -> Array:
    """An elementary function of arrays of one float type, with the bits that kernels compute, on every machine.

    Operands broadcast. Raises `KeyError` where `can_expand` says no.
    """
    emitter, arrays = NumpyEmitter(), np.broadcast_arrays(*operands)
    result = expand(name, emitter, *(emitter.add(array.reshape(-1)) for array in arrays))
    return np.broadcast_to(emitter.values[result], arrays[0].size).reshape(arrays[0].shape)
