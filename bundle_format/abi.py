"""The C ABI of a CPU variant, as far as both sides of the contract must agree on it.

Takes nothing.
Gives: the statuses, and the C header that goes into every CPU variant as a layer.
Invariant: numbers and layouts here are those of `tessera_model.h`; the tests compile the header and compare.
"""

from enum import IntEnum
from pathlib import Path
from typing import Final

_HEADER: Final = Path(__file__).with_name("tessera_model.h")


class Status(IntEnum):
    """What a function of the ABI returns."""

    OK = 0
    INDEX_OUT_OF_RANGE = 1
    DIVISION_BY_ZERO = 2
    SIZE_BEYOND_BOUND = 3
    GUARD_FAILED = 4
    OUT_OF_MEMORY = 5
    CANCELLED = 6
    BAD_ARGUMENT = 7
    RESERVED = 8


def header_bytes() -> bytes:
    """The text of `tessera_model.h`, with which a C program can open a variant's shared object."""
    return _HEADER.read_bytes()
