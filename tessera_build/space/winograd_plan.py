"""The numbers of Winograd's convolution in strips, and the memory that a strip needs.

Takes extents and a machine; gives bytes. Invariant: what a kernel allocates is what is computed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.space.toom_cook import ToomCook

# Scratch lies on the stack of the thread that computes a strip: of a kernel at most, and of one that is derived.
STACK_BYTES: Final = 512 << 10
_STRIP_BYTES: Final = 320 << 10
_FLOAT_BYTES: Final = 4
# Rows a multiple of 1 KiB apart share few cache sets.
_ALIASING: Final = 256


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to compute it: tiles of `tile` outputs, strips of `rows` by `columns` tiles, register tiles.

    `panels` of output channels make a group, which transforms the inputs for itself; 0: all of them.
    """

    tile: int
    rows: int
    columns: int
    block: int
    vectors: int
    panels: int = 0


def pitch(channels: int, lanes: int) -> int:
    """Floats from one tile's channels to the next's: whole registers, one more where rows would share cache sets."""
    whole = -(-channels // lanes) * lanes
    return whole + lanes if whole % _ALIASING == 0 else whole


def scratch_bytes(plan: Plan, channels: int, lanes: int) -> int:
    """What a strip keeps: its inputs and one panel of its sums at all points, and a square of registers."""
    size = ToomCook(plan.tile).size
    row = plan.rows * plan.columns * (pitch(channels, lanes) + plan.vectors * lanes) + lanes
    return size * size * row * _FLOAT_BYTES


def most_scratch(machine: CpuMachine) -> int:
    """Scratch that is left in the second-level cache beside a panel of weights."""
    return min(_STRIP_BYTES, machine.l2_bytes * 3 // 4)
