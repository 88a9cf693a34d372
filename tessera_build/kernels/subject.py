"""What a kernel of the standard library is made for: types, compile-time attributes, lanes of the machine.

Takes one call of a kernel; gives typed readers of its attributes. Invariant: a kernel is a function of its subject
alone, so equal subjects give equal code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tessera_build.ir.core.attributes import Attr
from tessera_build.ir.core.types import Type, memref


@dataclass(frozen=True, slots=True)
class KernelSubject:
    """Tensor types of the operands and of the results, the graph node's attributes, and the machine's vector lanes."""

    operands: tuple[Type, ...]
    results: tuple[Type, ...]
    parameters: Mapping[str, Attr]
    lanes: int

    def buffer(self, operand: int) -> Type:
        """The buffer that holds an operand."""
        return memref(self.operands[operand].dtype, *self.operands[operand].shape)

    def target(self, result: int) -> Type:
        """The buffer that takes a result."""
        return memref(self.results[result].dtype, *self.results[result].shape)

    def integer(self, name: str) -> int:
        """An integer attribute."""
        value = self.parameters[name]
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} is {value!r}, not an integer")
        return value

    def flag(self, name: str) -> bool:
        """An attribute that is true or false."""
        value = self.parameters[name]
        if not isinstance(value, bool):
            raise TypeError(f"{name} is {value!r}, not a truth value")
        return value

    def word(self, name: str) -> str:
        """An attribute that is a word."""
        value = self.parameters[name]
        if not isinstance(value, str):
            raise TypeError(f"{name} is {value!r}, not a word")
        return value

    def number(self, name: str) -> float:
        """An attribute that is a number."""
        value = self.parameters[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name} is {value!r}, not a number")
        return float(value)
