"""Attributes and operands of an ONNX node as the operators of PyTorch want them.

Takes a node with tensors; gives numbers, lists of numbers and tensors. Invariant: an attribute that is absent has the
default that its caller names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from onnx import AttributeProto, NodeProto, helper, numpy_helper
from torch import Tensor

Operands = Sequence[Tensor | None]


@dataclass(frozen=True, slots=True)
class Call:
    """One node with what it reads; `given` has None where an optional operand is left out."""

    node: NodeProto
    given: Operands
    opset: int

    def tensor(self, index: int) -> Tensor:
        """An operand that must be there."""
        found = self.given[index]
        if found is None:
            raise ValueError(f"{self.node.op_type} {self.node.name} has no operand {index}")
        return found

    def optional(self, index: int) -> Tensor | None:
        """An operand that may be absent."""
        return self.given[index] if index < len(self.given) else None

    def attribute(self, name: str) -> AttributeProto | None:
        """An attribute, if it is there."""
        return next((a for a in self.node.attribute if a.name == name), None)

    def whole(self, name: str, default: int) -> int:
        """An integer."""
        found = self.attribute(name)
        return default if found is None else int(found.i)

    def number(self, name: str, default: float) -> float:
        """A float."""
        found = self.attribute(name)
        return default if found is None else float(found.f)

    def floats(self, name: str) -> list[float]:
        """A list of floats."""
        found = self.attribute(name)
        return [] if found is None else [float(f) for f in found.floats]

    def word(self, name: str, default: str) -> str:
        """A string."""
        found = self.attribute(name)
        return default if found is None else found.s.decode()

    def wholes(self, name: str, default: Sequence[int] = ()) -> list[int]:
        """A list of integers."""
        found = self.attribute(name)
        return list(default) if found is None else [int(i) for i in found.ints]

    def wholes_at(self, index: int, name: str, default: Sequence[int] = ()) -> list[int]:
        """A list that newer opsets take as an operand and older ones as an attribute."""
        operand = self.optional(index)
        return self.wholes(name, default) if operand is None else [int(i) for i in operand.reshape(-1).tolist()]

    def array(self, name: str) -> Tensor | None:
        """A tensor attribute."""
        found = self.attribute(name)
        return None if found is None else tensor_of(numpy_helper.to_array(found.t))

    def dtype(self, name: str) -> torch.dtype:
        """An element type of ONNX as PyTorch's."""
        return tensor_of(np.zeros((), helper.tensor_dtype_to_np_dtype(self.whole(name, 1)))).dtype


def tensor_of(array: np.ndarray) -> Tensor:
    """A tensor of its own memory; types of scalars are kept."""
    return torch.from_numpy(np.array(array, order="C", copy=True))
