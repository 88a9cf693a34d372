"""Fourier transforms as products with constant tables.

Takes signals; gives core ops. A transform of n numbers is one product with a table of cosines and sines, computed in
float64 and rounded once, in the run where only that knows n; the frames of STFT are the windows of a convolution with
such a table. Invariant: a table has at most `MOST` elements; longer transforms are refused, not slow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tessera_build.frontends.onnx.call import Call, Translator, normalise_axis
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.contraction import matrix_product
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.ir.core.dims import Extent, floordiv
from tessera_build.ir.core.types import F64, I64
from tessera_build.ir.graph.ops.shapes import count

MOST = 2**24
Table = NDArray[np.float64]


def _turns(size: int, rows: int, columns: int) -> Table:
    """2 pi i j / size; the product is reduced first, so that large angles keep their precision."""
    steps = np.outer(np.arange(rows), np.arange(columns)) % size
    return 2 * np.pi * steps / size


def _table(size: int, parts: tuple[int, int], results: int, inverse: bool) -> Table:
    """[size, parts in, results, parts out]: what each element of the signal adds to each of the spectrum."""
    inside, outside = parts
    if size * inside * results * outside > MOST:
        raise unsupported(f"a Fourier transform of {size} elements", hint="split it, or keep it outside the model")
    angle = _turns(size, size, results)
    cosine, sine = np.cos(angle), np.sin(angle) * (1 if inverse else -1)
    found = np.empty((size, inside, results, outside))
    found[:, 0, :, 0] = cosine
    if outside == 2:
        found[:, 0, :, 1] = sine
    if inside == 2:
        found[:, 1, :, 0] = -sine
        if outside == 2:
            found[:, 1, :, 1] = cosine
    return found / size if inverse else found


def _half_table(size: int, given: int) -> Table:
    """[given, 2, size, 1]: a real signal from the first half of its spectrum; the rest mirrors it."""
    if given * 2 * size > MOST:
        raise unsupported(f"a Fourier transform of {size} elements", hint="split it, or keep it outside the model")
    twice = np.full((given, 1), 2.0)
    twice[0] = 1.0
    if size % 2 == 0 and given > size // 2:
        twice[size // 2] = 1.0
    angle = _turns(size, given, size)
    return (np.stack([np.cos(angle) * twice, -np.sin(angle) * twice], axis=1) / size)[..., None]


def _dft(c: Context, n: Call) -> Tensor:
    x, inverse, half = n.input(0), bool(n.integer("inverse", 0)), bool(n.integer("onesided", 0))
    parts, axis = _parts(n, x), _dft_axis(c, n, x.rank)
    if axis == x.rank - 1:
        raise ill_formed("DFT runs along another axis than the last", found=f"{x.type}, axis {axis}")
    extent, stated = x.shape[axis], n.optional(1)
    wanted = None if stated is None else c.extents_of(stated)[0]
    if inverse and half:
        size = (extent - 1) * 2 if wanted is None else wanted
        given: Extent = floordiv(size, 2) + 1
    else:
        size = given = extent if wanted is None else wanted
    x = _fitted(c, x, axis, given)
    if not isinstance(size, int) or not isinstance(given, int):
        if inverse and half:
            raise unsupported("an inverse one-sided DFT along a dynamic dim", found=str(size), hint="fix the extent")
        return _transformed(c, x, axis, _table_in_a_run(c, size, (parts, half, inverse)))
    if size < 1:
        raise unsupported("a DFT of nothing", found=str(x.type))
    if inverse and half:
        if parts != 2:
            raise ill_formed("an inverse one-sided DFT takes complex numbers", found=str(x.type))
        table = _half_table(size, given)
    else:
        results = size // 2 + 1 if half else size
        table = _table(size, (parts, 2), results, inverse)
    return _transformed(c, x, axis, c.constant(table.astype(x.dtype.numpy)))


def _table_in_a_run(c: Context, size: Extent, kind: tuple[int, bool, bool]) -> Tensor:
    """What `_table` gives, in float64; `kind`: parts of the signal, whether one-sided, whether inverse."""
    parts, half, inverse = kind
    results = floordiv(size, 2) + 1 if half else size
    c.require(size, ">=", 1, "a Fourier transform of nothing is asked for")
    c.require(MOST, ">=", size * results * (2 * parts), "a Fourier transform is longer than Tessera builds")
    row, column = (c.op("iota", shape=e, axis=a, dtype=I64) for a, e in ((0, (size, 1)), (1, (1, results))))
    turns = c.cast(c.op("mod", c.op("mul", row, column), c.number(size, I64)), F64)
    whole = c.number(size, F64)
    angle = c.op("mul", c.op("div", turns, whole), c.scalar(2 * math.pi, F64))
    cosine, sine = c.op("cos", angle), c.op("sin", angle)
    opposite = c.op("neg", sine)
    forward = opposite if not inverse else sine
    backward = sine if not inverse else opposite
    pairs = [(cosine, forward), (backward, cosine)][:parts]
    lines = [c.op("concat", *(c.reshape(e, (size, 1, results, 1)) for e in pair), axis=3) for pair in pairs]
    table = lines[0] if parts == 1 else c.op("concat", *lines, axis=1)
    return c.op("div", table, whole) if inverse else table


def _parts(n: Call, x: Tensor) -> int:
    """1 for real numbers, 2 for complex ones: the extent of the last axis."""
    parts = x.shape[-1] if x.rank > 1 else 0
    if not isinstance(parts, int):
        raise unsupported(f"{n.op} of numbers that may be real or complex", found=str(x.type), hint="fix the last dim")
    if parts not in (1, 2):
        raise ill_formed(f"{n.op} takes real or complex numbers along its last axis", found=str(x.type))
    return parts


def _dft_axis(c: Context, n: Call, rank: int) -> int:
    if n.opset < 20:
        return n.axis(rank, 1)
    stated = n.optional(2)
    return normalise_axis(-2 if stated is None else c.known_ints(stated, "the axis of DFT")[0], rank)


def _fitted(c: Context, x: Tensor, axis: int, extent: Extent) -> Tensor:
    """The axis cut, or filled with zeros."""
    own = x.shape[axis]
    if own == extent:
        return x
    if not isinstance(own, int) or not isinstance(extent, int):
        longer = c.op("pad", x, low=(0,) * x.rank, high=tuple(extent if i == axis else 0 for i in range(x.rank)))
        return c.slice(longer, (0,) * x.rank, [extent if i == axis else e for i, e in enumerate(x.shape)])
    stops = [min(own, extent) if i == axis else e for i, e in enumerate(x.shape)]
    x = c.slice(x, (0,) * x.rank, stops)
    more = tuple(max(extent - own, 0) if i == axis else 0 for i in range(x.rank))
    return c.op("pad", x, low=(0,) * x.rank, high=more) if any(more) else x


def _transformed(c: Context, x: Tensor, axis: int, table: Tensor) -> Tensor:
    """The product along one axis and the parts, which are moved together and back."""
    rest = [i for i in range(x.rank - 1) if i != axis]
    moved = c.transpose(x, (*rest, axis, x.rank - 1))
    outer = moved.shape[:-2]
    size, inside, results, outside = table.shape
    rows = c.reshape(moved, (count(outer), size * inside))
    weights = c.reshape(c.cast(table, x.dtype), (size * inside, results * outside))
    found = c.reshape(matrix_product(c, rows, weights), (*outer, results, outside))
    back = [rest.index(i) if i != axis else len(rest) for i in range(x.rank - 1)]
    return c.transpose(found, (*back, x.rank - 1))


def _stft(c: Context, n: Call) -> Tensor:
    """One convolution: its kernel is the table, its stride the step between frames."""
    signal, window, stated = n.input(0), n.optional(2), n.optional(3)
    step = c.known_ints(n.input(1), "the step of STFT")[0]
    half = bool(n.integer("onesided", 1))
    if signal.rank == 2:
        signal = c.reshape(signal, (*signal.shape, 1))
    length: Extent | None = None if stated is None else c.known_extents(stated, "the frame length of STFT")[0]
    if length is None and window is not None:
        length = window.shape[0]
    parts = _parts(n, signal)
    if length is None or signal.rank != 3 or step < 1:
        raise ill_formed("STFT needs a signal, a step and a frame length", found=f"{signal.type}, {length}, {step}")
    if not isinstance(length, int):
        raise unsupported("STFT whose frames are as long as a dynamic dim", found=str(length))
    results = length // 2 + 1 if half else length
    table = _table(length, (parts, 2), results, inverse=False)
    kernel = c.constant(table.transpose(2, 3, 1, 0).reshape(results * 2, parts, length).astype(signal.dtype.numpy))
    if window is not None:
        c.unify(window.shape[0], length, "STFT's window and frame length differ")
        kernel = c.op("mul", kernel, c.reshape(window, (1, 1, length)))
    c.require(signal.shape[1], ">=", length, "a frame of STFT does not fit its signal")
    frames = c.op(
        "conv", c.transpose(signal, (0, 2, 1)), kernel, strides=(step,), low=(0,), high=(0,), dilations=(1,), groups=1
    )
    moved = c.transpose(frames, (0, 2, 1))
    return c.reshape(moved, (*moved.shape[:2], results, 2))


FOURIER_OPERATORS: Mapping[str, Translator] = {"DFT": _dft, "STFT": _stft}
