"""The numbers of Winograd's convolution in strips, and the memory that a strip needs.

Takes extents and a machine; gives bytes. Invariant: what a kernel allocates is what is computed here.
"""

from __future__ import annotations

from typing import Final

from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.space.toom_cook import Transform

# Scratch lies on the stack of the thread that computes a strip: of a kernel at most, and of one that is derived.
STACK_BYTES: Final = 512 << 10
_STRIP_BYTES: Final = 384 << 10
_FLOAT_BYTES: Final = 4
# Rows a multiple of 1 KiB apart share few cache sets.
_ALIASING: Final = 256


def pitch(channels: int, lanes: int) -> int:
    """Floats from one tile's channels to the next's: whole registers, one more where rows would share cache sets."""
    whole = -(-channels // lanes) * lanes
    return whole + lanes if whole % _ALIASING == 0 else whole


def points_pitch(channels: int, kept: int, lanes: int) -> int:
    """Floats of one tile at one point: `kept` times its channels side by side, the last ones in whole registers."""
    return pitch((kept - 1) * channels + -(-channels // lanes) * lanes, lanes)


def scratch_bytes(transform: Transform, tiles: int, row: int, width: int, lanes: int) -> int:
    """What a strip of so many tiles keeps: its inputs and one panel of its sums at all points, and a tile's registers.

    `row`: its inputs' pitch; `width`: of a panel of output channels. A tile with taps along one axis only needs no
    registers beside.
    """
    return transform.size * (tiles * (row + width) + square_floats(transform, lanes)) * _FLOAT_BYTES


def square_floats(transform: Transform, lanes: int) -> int:
    """Floats a point that a tile passes from one of its two transforms to the other."""
    return lanes if transform.rows.size > 1 and transform.columns.size > 1 else 0


def most_scratch(machine: CpuMachine) -> int:
    """Scratch that is left in the second-level cache beside a panel of weights."""
    return min(_STRIP_BYTES, machine.l2_bytes * 3 // 4)
