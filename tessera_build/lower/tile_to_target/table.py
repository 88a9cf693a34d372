"""The values of one tile program while it is being lowered: tiles in the form of one machine, views and buffers.

Takes value ids; gives what they stand for, of the kind asked for. Invariant: asking for the wrong kind is an error
here, never a wrong address later.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from tessera_build.lower.tile_to_target.values import BufferValue, ViewValue

Tile = TypeVar("Tile")


class ValueTable(Generic[Tile]):
    """What each value id stands for; `tile_class` is how this machine holds a tile."""

    def __init__(self, tile_class: type[Tile]) -> None:
        self._tile_class = tile_class
        self._values: dict[int, Tile | ViewValue | BufferValue] = {}

    def __getitem__(self, value: int) -> Tile | ViewValue | BufferValue:
        return self._values[value]

    def __setitem__(self, value: int, found: Tile | ViewValue | BufferValue) -> None:
        self._values[value] = found

    def buffers(self) -> list[tuple[int, BufferValue]]:
        """Every buffer so far with its value id."""
        return [(value, found) for value, found in self._values.items() if isinstance(found, BufferValue)]

    def update(self, pairs: Iterable[tuple[int, Tile | ViewValue | BufferValue]]) -> None:
        """Set several values."""
        self._values.update(pairs)

    def tile(self, value: int) -> Tile:
        """A tile; raises `ValueError` for anything else."""
        found = self._values[value]
        if not isinstance(found, self._tile_class):
            raise ValueError(f"value {value} is not a tile")
        return found

    def view(self, value: int) -> ViewValue:
        """A view; raises `ValueError` for anything else."""
        found = self._values[value]
        if not isinstance(found, ViewValue):
            raise ValueError(f"value {value} is not a view")
        return found

    def buffer(self, value: int) -> BufferValue:
        """A buffer; raises `ValueError` for anything else."""
        found = self._values[value]
        if not isinstance(found, BufferValue):
            raise ValueError(f"value {value} is not a buffer")
        return found

    def operand(self, value: int) -> Tile | ViewValue:
        """A tile or a view; raises `ValueError` for a buffer."""
        found = self._values[value]
        if isinstance(found, BufferValue):
            raise ValueError(f"value {value} is a buffer where a tile or a view is needed")
        return found
