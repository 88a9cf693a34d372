"""Discrete Fourier transforms of rows, as products with constant tables.

Takes rows of real or complex numbers [R, n, 1 or 2]; gives their spectra. A short transform is one product with a table
of cosines and sines; a longer one is split into two factors (Cooley and Tukey, 1965), one whose length has no small
factors becomes a convolution with a chirp (Bluestein, 1970), and one whose length only a run knows computes its table
there. Invariant: angles are reduced as integers and tables computed in float64, then rounded once.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.contraction import matrix_product
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import F64, I64

MOST = 2**24  # elements of a table that is computed in a run
LONGEST = 2**22  # elements of a row
_DIRECT = 64  # with one row, tables of longer transforms take longer to read than all steps of a split one
_PRIME = 256  # up to here, a table is no slower than a chirp
Table = NDArray[np.float64]


def spectrum(c: Context, x: Tensor, inverse: bool = False) -> Tensor:
    """[R, n, parts] to [R, n, 2], n known; the inverse is not yet divided by n."""
    rows, size, parts = x.shape
    assert isinstance(size, int)
    assert isinstance(parts, int)
    factor = max(f for f in range(1, _DIRECT + 1) if size % f == 0)
    if size <= _DIRECT or (factor < 4 and size <= _PRIME):
        table = c.constant(_table(size, parts, inverse).astype(x.dtype.numpy))
        flat = matrix_product(c, c.reshape(x, (rows, size * parts)), table)
        return c.reshape(flat, (rows, size, 2))
    return _split(c, x, factor, inverse) if factor >= 4 else _chirped(c, x, inverse)


def _turns(size: int, rows: int, columns: int) -> Table:
    """2 pi i j / size; the product is reduced first, so that large angles keep their precision."""
    return 2 * np.pi * (np.outer(np.arange(rows), np.arange(columns)) % size) / size


def _table(size: int, parts: int, inverse: bool) -> Table:
    """[size * parts in, size * 2]: what each element of a row adds to each of its spectrum."""
    angle = _turns(size, size, size) * (1 if inverse else -1)
    found = np.empty((size, parts, size, 2))
    found[:, 0, :, 0], found[:, 0, :, 1] = np.cos(angle), np.sin(angle)
    if parts == 2:
        found[:, 1, :, 0], found[:, 1, :, 1] = -np.sin(angle), np.cos(angle)
    return found.reshape(size * parts, size * 2)


def _split(c: Context, x: Tensor, factor: int, inverse: bool) -> Tensor:
    """n = a * b: transforms of every b-th element, each turned by its place, then transforms across them."""
    rows, size, parts = x.shape
    assert isinstance(size, int)
    assert isinstance(parts, int)
    other = size // factor
    apart = c.transpose(c.reshape(x, (rows, factor, other, parts)), (0, 2, 1, 3))
    first = spectrum(c, c.reshape(apart, (rows * other, factor, parts)), inverse)
    angle = _turns(size, other, factor) * (1 if inverse else -1)
    turned = _times(c, c.reshape(first, (rows, other, factor, 2)), angle)
    across = c.reshape(c.transpose(turned, (0, 2, 1, 3)), (rows * factor, other, 2))
    second = c.reshape(spectrum(c, across, inverse), (rows, factor, other, 2))
    return c.reshape(c.transpose(second, (0, 2, 1, 3)), (rows, size, 2))


def _chirped(c: Context, x: Tensor, inverse: bool) -> Tensor:
    """2 i j = i² + j² - (i - j)²: a product, a convolution of twice the length, and a product."""
    rows, size, parts = x.shape
    assert isinstance(size, int)
    assert isinstance(parts, int)
    squares = (np.arange(size, dtype=np.int64) ** 2) % (2 * size)
    angle = np.pi * squares / size * (1 if inverse else -1)
    length = 1 << (2 * size - 2).bit_length()
    chirp = np.zeros(length, np.complex128)
    chirp[:size] = np.exp(-1j * angle)
    chirp[length - size + 1 :] = chirp[size - 1 : 0 : -1]
    wide = x if parts == 2 else c.op("pad", x, low=(0, 0, 0), high=(0, 0, 1))
    longer = c.op("pad", _times(c, wide, angle), low=(0, 0, 0), high=(0, length - size, 0))
    answer = np.fft.fft(chirp) / length
    product = _times(c, spectrum(c, longer), np.angle(answer), np.abs(answer))
    back = c.slice(spectrum(c, product, inverse=True), (0, 0, 0), (rows, size, 2))
    return _times(c, back, angle)


def _times(c: Context, x: Tensor, angle: Table, size: Table | None = None) -> Tensor:
    """Complex numbers [..., 2] times those of the given angles and sizes."""
    real, imaginary = (c.slice(x, (*(0,) * (x.rank - 1), i), (*x.shape[:-1], i + 1)) for i in (0, 1))
    sizes = np.ones_like(angle) if size is None else size
    cosine, sine = (c.constant((sizes * f(angle))[..., None].astype(x.dtype.numpy)) for f in (np.cos, np.sin))
    turned = c.op("sub", c.op("mul", real, cosine), c.op("mul", imaginary, sine))
    other = c.op("add", c.op("mul", real, sine), c.op("mul", imaginary, cosine))
    return c.op("concat", turned, other, axis=x.rank - 1)


# -- lengths that only a run knows ------------------------------------------------------------------------------------


def spectrum_in_a_run(c: Context, x: Tensor, results: Extent, inverse: bool) -> Tensor:
    """[R, n, parts] to the first `results` of its spectrum; the inverse is not yet divided by n."""
    rows, size, parts = x.shape
    assert isinstance(parts, int)
    angle = _angles_in_a_run(c, size, (size, results))
    cosine, sine = c.op("cos", angle), c.op("sin", angle)
    opposite = c.op("neg", sine)
    forward, backward = (sine, opposite) if inverse else (opposite, sine)
    pairs = [(cosine, forward), (backward, cosine)][:parts]
    lines = [c.op("concat", *(c.reshape(e, (size, 1, results, 1)) for e in pair), axis=3) for pair in pairs]
    table = lines[0] if parts == 1 else c.op("concat", *lines, axis=1)
    weights = c.reshape(c.cast(table, x.dtype), (size * parts, results * 2))
    return c.reshape(matrix_product(c, c.reshape(x, (rows, size * parts)), weights), (rows, results, 2))


def signal_in_a_run(c: Context, x: Tensor, size: Extent) -> Tensor:
    """Half a spectrum [R, n // 2 + 1, 2] to the real row [R, n, 1], times n: what is not there mirrors what is."""
    rows, given, _ = x.shape
    angle = _angles_in_a_run(c, size, (given, size))
    place = c.op("iota", shape=(given, 1), axis=0, dtype=I64)
    alone = c.op("or", c.op("eq", place, c.scalar(0, I64)), c.op("eq", _twice(c, place), c.number(size, I64)))
    weight = c.op("select", alone, c.scalar(1.0, F64), c.scalar(2.0, F64))
    pair = [c.op("mul", c.op("cos", angle), weight), c.op("neg", c.op("mul", c.op("sin", angle), weight))]
    table = c.op("concat", *(c.reshape(e, (given, 1, size)) for e in pair), axis=1)
    weights = c.reshape(c.cast(table, x.dtype), (given * 2, size))
    return c.reshape(matrix_product(c, c.reshape(x, (rows, given * 2)), weights), (rows, size, 1))


def _twice(c: Context, x: Tensor) -> Tensor:
    return c.op("add", x, x)


def _angles_in_a_run(c: Context, size: Extent, shape: tuple[Extent, Extent]) -> Tensor:
    """2 pi i j / size, in float64."""
    c.require(size, ">=", 1, "a Fourier transform of nothing is asked for")
    c.require(MOST, ">=", shape[0] * shape[1] * 4, "a Fourier transform is longer than Tessera builds")
    row, column = (c.op("iota", shape=e, axis=a, dtype=I64) for a, e in ((0, (shape[0], 1)), (1, (1, shape[1]))))
    turns = c.cast(c.op("mod", c.op("mul", row, column), c.number(size, I64)), F64)
    return c.op("mul", c.op("div", turns, c.number(size, F64)), c.scalar(2 * math.pi, F64))


def whole_spectrum(c: Context, x: Tensor, size: int) -> Tensor:
    """Half a spectrum [R, n // 2 + 1, 2] of a real row, mirrored to all of it."""
    given = x.shape[1]
    places = np.arange(size)
    mirrored = places > size // 2
    index = c.constant(np.where(mirrored, size - places, places).astype(np.int64))
    signs = np.stack([np.ones(size), np.where(mirrored, -1.0, 1.0)], axis=-1)
    # What is its own mirror image is real, whatever stands beside it.
    signs[(places == 0) | (2 * places == size), 1] = 0.0
    c.unify(given, size // 2 + 1, "half a spectrum has another length")
    return c.op("mul", c.op("gather", x, index, axis=1), c.constant(signs.astype(x.dtype.numpy)))
