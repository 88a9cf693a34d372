"""The C ABI of a CPU variant, as far as both sides of the contract must agree on it.

Takes nothing.
Gives: the statuses, and the C header that goes into every CPU variant as a layer.
Invariant: numbers and layouts here are those of `tessera_model.h`; the tests compile the header and compare.
"""

# Importing pathlib takes 3.5 ms of the 40 that importing the runtime may take.
# ruff: noqa: PTH118, PTH120, PTH123
import os
from enum import IntEnum
from typing import Final

_HEADER: Final = os.path.join(os.path.dirname(__file__), "tessera_model.h")


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
    NOT_FINITE = 9
    OUT_OF_BOUNDS = 10


def header_bytes() -> bytes:
    """The text of `tessera_model.h`, with which a C program can open a variant's shared object."""
    with open(_HEADER, "rb") as file:
        return file.read()
