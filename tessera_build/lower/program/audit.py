"""Kernels of a debug build: they look at what a task wrote, and refuse to go on when it cannot be right.

Takes shapes, strides and what to look for; gives Target kernels. Invariant: a kernel here changes no value of the
model, so a debug build gives the same bits as any other, or an error that names the node.

A guard zone is 64 bytes behind a value in the arena that hold a pattern; a kernel that writes past the value's end
breaks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bundle_format.abi import Status
from tessera_build.config import ConfigError
from tessera_build.ir.core.dims import Extent, symbols_of
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import I64, DType, memref, scalar
from tessera_build.ir.target import kernel as k
from tessera_build.lower.tile_to_target.builder import TargetBuilder, make_region

ZONE_BYTES = 64
_WORDS = ZONE_BYTES // 8
_PATTERN = 0x5AFE_C0DE_5AFE_C0DE
_NAMES = ("nan", "inf", "bounds")


@dataclass(frozen=True, slots=True)
class Checks:
    """What a build looks for while it runs; all off in a build that serves."""

    nan: bool = False
    inf: bool = False
    bounds: bool = False

    def __str__(self) -> str:
        return ",".join(name for name in _NAMES if getattr(self, name))

    @property
    def values(self) -> bool:
        """Whether written elements are looked at."""
        return self.nan or self.inf


NO_CHECKS = Checks()


def checks_of(text: str) -> Checks:
    """The checks that a list such as `nan,bounds` names; raises `ConfigError` for an unknown one."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = sorted(set(names) - set(_NAMES))
    if unknown:
        raise ConfigError("CHECK_UNKNOWN", f"there is no check {unknown[0]!r}", expected=", ".join(_NAMES), found=text)
    return Checks(**dict.fromkeys(names, True))


def finite_kernel(shape: Sequence[Extent], strides: Sequence[Extent], dtype: DType, checks: Checks) -> Function:
    """Ends with NOT_FINITE at the first element that the checks refuse. Argument: the value's first element."""
    b = TargetBuilder("audit_values")
    pointer = b.arg(memref(dtype, *shape))
    names = sorted({name for extent in (*shape, *strides) for name in symbols_of(extent)})
    for name in names:
        b.symbols[name] = b.arg(scalar(I64))
    b.arg(scalar(I64))
    _walk(b, pointer, list(zip(shape, strides, strict=True)), b.const(0, I64), checks)
    return b.finish({"dims": tuple(names)})


def _walk(b: TargetBuilder, pointer: int, axes: list[tuple[Extent, Extent]], index: int, checks: Checks) -> None:
    if not axes:
        element = b.fresh(scalar(b.type(pointer).dtype))
        b.emit(k.Load(element, pointer, index))
        b.emit(k.Check(_sound(b, element, checks), int(Status.NOT_FINITE)))
        return
    extent, stride = axes[0]
    start, stop, step = b.const(0, I64), b.extent(extent), b.extent(stride)
    position = b.fresh(scalar(I64))
    with b.region() as nodes:
        inner = b.op("add", index, b.op("mul", position, step))
        _walk(b, pointer, axes[1:], inner, checks)
        body = make_region((position,), nodes, ())
    b.emit(k.Loop((), start, stop, 1, (), body))


def _sound(b: TargetBuilder, element: int, checks: Checks) -> int:
    """x - x is NaN for NaN and for infinities, 0 for all others; only NaN differs from itself."""
    itself = b.op("eq", element, element)
    if not checks.inf:
        return itself
    difference = b.op("sub", element, element)
    finite = b.op("eq", difference, difference)
    return finite if checks.nan else b.op("or", finite, b.op("not", itself))


def zone_kernel(fill: bool) -> Function:
    """Writes the pattern of a guard zone, or ends with OUT_OF_BOUNDS where it is broken. Argument: the zone."""
    b = TargetBuilder("audit_zone_fill" if fill else "audit_zone_check")
    pointer = b.arg(memref(I64, _WORDS))
    b.arg(scalar(I64))
    pattern = b.const(_PATTERN, I64)
    for word in range(_WORDS):
        index = b.const(word, I64)
        if fill:
            b.emit(k.Store(pointer, index, pattern))
            continue
        found = b.fresh(scalar(I64))
        b.emit(k.Load(found, pointer, index))
        b.emit(k.Check(b.op("eq", found, pattern), int(Status.OUT_OF_BOUNDS)))
    return b.finish({"dims": ()})
