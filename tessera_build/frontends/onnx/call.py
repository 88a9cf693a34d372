"""One ONNX node as its translator sees it: operands, attributes with defaults, opset version.

Takes the node's protobuf and its operands; gives typed readers. Invariant: every attribute that a translator does
not read is reported as unsupported, so none is ignored by accident.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tessera_build.frontends.onnx.containers import AppendedSequence, StackedSequence, TensorSequence, Value
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.ir.graph.nodes import Array

AttributeValue = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | Array


class Subgraph(Protocol):
    """A graph that a node holds; it sees the values around the node."""

    @property
    def inputs(self) -> int:
        """How many values it takes."""
        ...

    @property
    def outputs(self) -> int:
        """How many values it gives."""
        ...

    def translate(self, arguments: Sequence[Value]) -> tuple[Value, ...]:
        """Its results, made where the graph under construction stands; raises `ReportedError` if one cannot be made."""
        ...

    def chosen(self, arguments: Sequence[Value], outputs: Sequence[int]) -> tuple[Value, ...]:
        """Some of its results, by number, without what only others need."""
        ...


@dataclass(slots=True)
class Call:
    """A node: `inputs` holds None for an optional operand that is left out; `domain` is "" for ONNX's own."""

    op: str
    opset: int
    inputs: tuple[Value | None, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, AttributeValue]
    domain: str = ""
    graphs: Mapping[str, Subgraph] = field(default_factory=dict[str, Subgraph])
    _read: set[str] = field(default_factory=set[str])

    def input(self, index: int) -> Tensor:
        """An operand that must be there."""
        found = self.optional(index)
        if found is None:
            raise ill_formed(f"{self.op} has no operand {index}", expected=f"at least {index + 1} operands")
        return found

    def optional(self, index: int) -> Tensor | None:
        """An operand that may be left out."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if found is None or isinstance(found, Tensor):
            return found
        raise unsupported(f"{self.op} takes tensors", found=f"{found} as operand {index}")

    def operand(self, index: int) -> Value:
        """An operand of any kind that must be there."""
        found = self.inputs[index] if index < len(self.inputs) else None
        return self.input(index) if found is None else found

    def sequence(self, index: int) -> TensorSequence:
        """An operand that must be a sequence whose length the build knows."""
        found = self.operand(index)
        if isinstance(found, StackedSequence | AppendedSequence):
            raise unsupported(f"{self.op} of a sequence whose length only a run knows", found=str(found))
        if not isinstance(found, TensorSequence):
            raise ill_formed(f"{self.op} takes a sequence", found="a tensor or an optional")
        return found

    def all_inputs(self) -> tuple[Tensor, ...]:
        """Every operand of a variadic operator."""
        return tuple(self.input(i) for i in range(max(len(self.inputs), 1)))

    def wants(self, index: int) -> bool:
        """Whether somebody named this result."""
        return index < len(self.outputs) and self.outputs[index] != ""

    def graph(self, name: str) -> Subgraph:
        """A subgraph."""
        if name not in self.graphs:
            raise ill_formed(f"{self.op} has no subgraph {name}")
        return self.graphs[name]

    def has(self, name: str) -> bool:
        """Whether the node states this attribute."""
        self._read.add(name)
        return name in self.attributes

    def integer(self, name: str, default: int | None = None) -> int:
        """An integer attribute."""
        value = self._get(name, default)
        if not isinstance(value, int):
            raise self._wrong(name, "an integer", value)
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A float attribute."""
        value = self._get(name, default)
        if not isinstance(value, (int, float)):
            raise self._wrong(name, "a float", value)
        return float(value)

    def text(self, name: str, default: str | None = None) -> str:
        """A word."""
        value = self._get(name, default)
        if not isinstance(value, str):
            raise self._wrong(name, "a string", value)
        return value

    def integers(self, name: str, default: Sequence[int] | None = None) -> tuple[int, ...]:
        """A list of integers."""
        value = self._get(name, None if default is None else tuple(default))
        found = tuple(v for v in value if isinstance(v, int)) if isinstance(value, tuple) else None
        if found is None:
            raise self._wrong(name, "a list of integers", value)
        return found

    def numbers(self, name: str, default: Sequence[float] | None = None) -> tuple[float, ...]:
        """A list of floats."""
        value = self._get(name, None if default is None else tuple(default))
        found = tuple(float(v) for v in value if not isinstance(v, str)) if isinstance(value, tuple) else None
        if found is None or (isinstance(value, tuple) and len(found) < len(value)):
            raise self._wrong(name, "a list of floats", value)
        return found

    def words(self, name: str, default: Sequence[str] | None = None) -> tuple[str, ...]:
        """A list of words."""
        value = self._get(name, None if default is None else tuple(default))
        found = tuple(v for v in value if isinstance(v, str)) if isinstance(value, tuple) else None
        if found is None or (isinstance(value, tuple) and len(found) < len(value)):
            raise self._wrong(name, "a list of strings", value)
        return found

    def value(self, name: str) -> AttributeValue:
        """An attribute of any kind."""
        return self._get(name, None)

    def only(self, name: str, allowed: int | str, default: int | str, reason: str) -> None:
        """Refuse every value of an attribute but one."""
        value = self._get(name, default)
        if value != allowed:
            raise unsupported(f"{self.op} with {name}={value} {reason}", hint=f"only {name}={allowed} is built")

    def ignore(self, *names: str) -> None:
        """State that attributes have no effect on inference."""
        self._read.update(names)

    def unread(self) -> list[str]:
        """Attributes that nobody asked for."""
        return sorted(set(self.attributes) - self._read)

    def axis(self, rank: int, default: int | None = None) -> int:
        """The attribute `axis`, counted from the front."""
        return normalise_axis(self.integer("axis", default), rank)

    def _get(self, name: str, default: AttributeValue | None) -> AttributeValue:
        self._read.add(name)
        if name in self.attributes:
            return self.attributes[name]
        if default is None:
            raise ill_formed(f"{self.op} has no attribute {name}")
        return default

    def _wrong(self, name: str, expected: str, value: object) -> Exception:
        return ill_formed(f"{self.op}'s attribute {name} has another type", expected=expected, found=repr(value))


Translator = Callable[[Context, Call], Value | tuple[Value, ...]]


def normalise_axis(axis: int, rank: int) -> int:
    """An axis counted from the front."""
    if not -rank <= axis < max(rank, 1):
        raise ill_formed("axis is out of range", expected=f"{-rank} <= axis < {rank}", found=str(axis))
    return axis % max(rank, 1)


def normalise_axes(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Distinct axes counted from the front."""
    found = tuple(normalise_axis(a, rank) for a in axes)
    if len(set(found)) < len(found):
        raise ill_formed("axes name one axis twice", found=str(list(axes)))
    return found
