"""What ONNX's sequences and optionals are to the importer: tuples of tensors whose length the build knows.

Takes tensors; gives immutable containers of them. Invariant: a container never becomes a value of the graph; only its
tensors do. As outputs of a model they are called `name[0]`, `name[1]`, ...
"""

from __future__ import annotations

from dataclasses import dataclass

from tessera_build.frontends.onnx.context import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class TensorSequence:
    """Tensors in order."""

    members: tuple[Tensor, ...] = ()

    def __str__(self) -> str:
        return f"a sequence of {len(self.members)} tensors"


@dataclass(frozen=True, slots=True, eq=False)
class OptionalValue:
    """A tensor, a sequence, or nothing."""

    content: Tensor | TensorSequence | None = None

    def __str__(self) -> str:
        return "an optional without a value" if self.content is None else f"an optional that holds {self.content}"


Container = TensorSequence | OptionalValue
Value = Tensor | Container


def flattened(name: str, value: Value) -> tuple[tuple[str, Tensor], ...]:
    """The tensors of a model's output with the names that they have in the signature."""
    if isinstance(value, OptionalValue):
        return () if value.content is None else flattened(name, value.content)
    if isinstance(value, TensorSequence):
        return tuple((f"{name}[{index}]", member) for index, member in enumerate(value.members))
    return ((name, value),)
