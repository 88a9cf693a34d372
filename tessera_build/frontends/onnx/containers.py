"""What ONNX's sequences and optionals are to the importer: tuples of tensors, or one tensor of as many slices as a run
says.

Takes tensors; gives immutable containers of them. Invariant: a container never becomes a value of the graph; only its
tensors do. As outputs of a model they are called `name[0]`, `name[1]`, ...; the module's results say what they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tessera_build.frontends.onnx.context import Tensor
from tessera_build.frontends.onnx.errors import unsupported
from tessera_build.ir.graph.nodes import Result


@dataclass(frozen=True, slots=True, eq=False)
class TensorSequence:
    """Tensors in order."""

    members: tuple[Tensor, ...] = ()

    def __str__(self) -> str:
        return f"a sequence of {len(self.members)} tensors"


@dataclass(frozen=True, slots=True, eq=False)
class StackedSequence:
    """Tensors of one type in order, as the slices of `stack` along its first axis: only a run may know how many."""

    stack: Tensor

    def __str__(self) -> str:
        return f"a sequence of {self.stack.shape[0]} tensors"


@dataclass(frozen=True, slots=True, eq=False)
class AppendedSequence:
    """The sequence that a Loop carries, as an iteration finds it (`start`; None: this one), and what the iteration has
    appended.
    """

    start: AppendedSequence | None = None
    added: tuple[Tensor, ...] = ()

    def __str__(self) -> str:
        return f"a sequence of the Loop with {len(self.added)} tensors more"


@dataclass(frozen=True, slots=True, eq=False)
class OptionalValue:
    """A tensor, a sequence, or nothing."""

    content: Tensor | TensorSequence | StackedSequence | AppendedSequence | None = None

    def __str__(self) -> str:
        return "an optional without a value" if self.content is None else f"an optional that holds {self.content}"


@dataclass(frozen=True, slots=True, eq=False)
class ScoreMaps:
    """Rows of scores, each a map from labels to scores; only a model's result is one."""

    scores: Tensor
    labels: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"maps from {len(self.labels)} labels"


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """Strings out of a known list, by their places in it; only a model's result is one."""

    places: Tensor
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"strings, of which there are {len(self.words)}"


Container = TensorSequence | StackedSequence | AppendedSequence | OptionalValue | ScoreMaps | Words
Value = Tensor | Container


def flattened(name: str, value: Value) -> tuple[tuple[str, Tensor], ...]:
    """The tensors of a model's output with the names that they have in the signature."""
    if isinstance(value, OptionalValue):
        return () if value.content is None else flattened(name, value.content)
    if isinstance(value, TensorSequence):
        return tuple((f"{name}[{index}]", member) for index, member in enumerate(value.members))
    if isinstance(value, StackedSequence | AppendedSequence):
        raise unsupported(
            f"the model's output {name} is a sequence whose length only a run knows",
            found=str(value),
            hint="join its tensors in the model, for instance by torch.stack",
        )
    if isinstance(value, ScoreMaps):
        return ((name, value.scores),)
    return ((name, value.places if isinstance(value, Words) else value),)


def described(name: str, value: Value) -> Result:
    """What a model's output is made of."""
    if isinstance(value, OptionalValue):
        return Result(name, "nothing", ()) if value.content is None else described(name, value.content)
    outputs = tuple(output for output, _ in flattened(name, value))
    match value:
        case TensorSequence():
            return Result(name, "sequence", outputs)
        case ScoreMaps(labels=labels):
            kind = "word_maps" if isinstance(labels[0], str) else "integer_maps"
            return Result(name, kind, outputs, tuple(map(str, labels)))
        case Words(words=words):
            return Result(name, "words", outputs, words)
        case _:
            return Result(name, "tensor", outputs)


def kinds_of(operands: Sequence[Value | None]) -> str:
    """What the operands are, for a message."""
    return ", ".join(str(t.type if isinstance(t, Tensor) else t) for t in operands if t is not None)
