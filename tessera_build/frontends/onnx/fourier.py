"""DFT and STFT: which numbers are transformed, and what is kept of their spectra.

Takes signals; gives core ops. The axis of a transform becomes the last of a matrix of rows, which `transforms.py`
transforms; the frames of STFT are read where they start. Invariant: lengths and steps may come from data.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.frontends.onnx.call import Call, Translator, normalise_axis
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.transforms import (
    LONGEST,
    signal_in_a_run,
    spectrum,
    spectrum_in_a_run,
    whole_spectrum,
)
from tessera_build.ir.core.dims import Extent, floordiv
from tessera_build.ir.core.types import I64
from tessera_build.ir.graph.ops.shapes import count


def _dft(c: Context, n: Call) -> Tensor:
    x, inverse, half = n.input(0), bool(n.integer("inverse", 0)), bool(n.integer("onesided", 0))
    axis = _dft_axis(c, n, x.rank)
    x, parts = _parted(c, n, x)
    if axis == x.rank - 1:
        raise ill_formed("DFT runs along another axis than the last", found=f"{x.type}, axis {axis}")
    extent, stated = x.shape[axis], n.optional(1)
    wanted = None if stated is None else c.extents_of(stated)[0]
    if inverse and half:
        if parts != 2:
            raise ill_formed("an inverse one-sided DFT takes complex numbers", found=str(x.type))
        size = (extent - 1) * 2 if wanted is None else wanted
        given: Extent = floordiv(size, 2) + 1
    else:
        size = given = extent if wanted is None else wanted
    if isinstance(size, int) and not 1 <= size <= LONGEST:
        raise unsupported(f"a DFT of {size} elements", found=str(x.type), hint=f"1 to {LONGEST} are built")
    rows, outer = _as_rows(c, _fitted(c, x, axis, given), axis)
    if not (inverse and half):
        found = _spectrum(c, rows, half, inverse)
    elif isinstance(size, int):
        whole = spectrum(c, whole_spectrum(c, rows, size), inverse=True)
        found = c.slice(whole, (0, 0, 0), (rows.shape[0], size, 1))
    else:
        found = signal_in_a_run(c, rows, size)
    if inverse:
        found = c.op("div", found, c.number(size, x.dtype))
    rest = [i for i in range(x.rank - 1) if i != axis]
    back = [rest.index(i) if i != axis else len(rest) for i in range(x.rank - 1)]
    return c.transpose(c.reshape(found, (*outer, *found.shape[1:])), (*back, x.rank - 1))


def _as_rows(c: Context, x: Tensor, axis: int) -> tuple[Tensor, tuple[Extent, ...]]:
    """[R, n, parts] with the axis as n, and the extents that are one in R."""
    moved = c.transpose(x, (*(i for i in range(x.rank - 1) if i != axis), axis, x.rank - 1))
    return c.reshape(moved, (count(moved.shape[:-2]), *moved.shape[-2:])), moved.shape[:-2]


def _spectrum(c: Context, rows: Tensor, half: bool, inverse: bool = False) -> Tensor:
    """All of the spectrum of each row, or its first half."""
    size = rows.shape[1]
    results = floordiv(size, 2) + 1 if half else size
    if not isinstance(size, int):
        return spectrum_in_a_run(c, rows, results, inverse)
    return c.slice(spectrum(c, rows, inverse), (0, 0, 0), (rows.shape[0], results, 2))


def _parted(c: Context, n: Call, x: Tensor) -> tuple[Tensor, int]:
    """Numbers and what the last axis holds of each: 1 for real, 2 for complex ones, which real ones may pass for."""
    parts = x.shape[-1] if x.rank > 1 else 0
    if isinstance(parts, int):
        if parts not in (1, 2):
            raise ill_formed(f"{n.op} takes real or complex numbers along its last axis", found=str(x.type))
        return x, parts
    c.require(parts, ">=", 1, f"{n.op} takes real or complex numbers along its last axis")
    c.require(2, ">=", parts, f"{n.op} takes real or complex numbers along its last axis")
    zeros = (0,) * (x.rank - 1)
    longer = c.op("pad", x, low=(0,) * x.rank, high=(*zeros, 1))
    return c.slice(longer, (0,) * x.rank, (*x.shape[:-1], 2)), 2


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


def _stft(c: Context, n: Call) -> Tensor:
    """The spectra of frames that overlap, each read where it starts."""
    signal, window, stated = n.input(0), n.optional(2), n.optional(3)
    half = bool(n.integer("onesided", 1))
    if signal.rank == 2:
        signal = c.reshape(signal, (*signal.shape, 1))
    signal, parts = _parted(c, n, signal)
    (step,) = _counts(c, n.input(1), "the step of STFT")
    if signal.rank != 3 or (stated is None and window is None):
        raise ill_formed("STFT needs a signal and a frame length", found=str(signal.type))
    lengths = [] if stated is None else _counts(c, stated, "the frame length of STFT")
    lengths += [] if window is None else [window.shape[0]]
    length = c.unify(lengths[0], lengths[-1], "STFT's window and frame length differ")
    if isinstance(length, int) and not 1 <= length <= LONGEST:
        raise unsupported(f"STFT of frames of {length} elements", hint=f"1 to {LONGEST} are built")
    c.require(signal.shape[1], ">=", length, "a frame of STFT does not fit its signal")
    frames = floordiv(signal.shape[1] - length, step) + 1
    first = c.op("mul", c.op("iota", shape=(frames, 1), axis=0, dtype=I64), c.number(step, I64))
    places = c.op("add", first, c.op("iota", shape=(1, length), axis=1, dtype=I64))
    cut = c.op("gather", signal, places, axis=1)
    if window is not None:
        cut = c.op("mul", cut, c.reshape(c.retyped(window, (length,)), (length, 1)))
    found = _spectrum(c, c.reshape(cut, (signal.shape[0] * frames, length, parts)), half)
    return c.reshape(found, (signal.shape[0], frames, *found.shape[1:]))


def _counts(c: Context, source: Tensor, what: str) -> list[Extent]:
    """The elements of an operand, at least 1 each: those from data are read as what they have above 1."""
    found = [c.size(c.op("sub", e, c.scalar(1, I64))) + 1 if isinstance(e, Tensor) else e for e in c.numbers(source)]
    if len(found) != 1:
        raise ill_formed(f"{what} is one number", found=str(source.type))
    c.require(found[0], ">=", 1, f"{what} is less than 1")
    return found


FOURIER_OPERATORS: Mapping[str, Translator] = {"DFT": _dft, "STFT": _stft}
