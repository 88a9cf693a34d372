"""PyTorch's eager forward and backward of a model: a module of the recipes, or an ONNX graph run operator by operator.

Takes a recipe or a file, inputs, and the names to differentiate by; gives a function that computes outputs and
gradients. Invariant: sizes are fixed, so what depends on neither inputs nor weights is computed once, outside of what
is timed; gradients begin as None in every run, as a training step's do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import torch
from onnx import GraphProto, NodeProto, numpy_helper
from torch import Tensor

from benchmarks.gradients.layers import LAYERS
from benchmarks.gradients.values import Call, tensor_of
from benchmarks.peers.recipes import Recipe
from tessera_build.ir.graph.nodes import Array

Forward = Callable[[], Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True, eq=False)
class Eager:
    """A forward pass, and the leaves whose gradients are wanted, by name."""

    forward: Forward
    leaves: Mapping[str, Tensor]

    def outputs(self) -> dict[str, Array]:
        """The outputs alone."""
        with torch.no_grad():
            return {name: value.detach().numpy() for name, value in self.forward().items()}

    def run(self, cotangents: Mapping[str, Tensor]) -> None:
        """Forward and backward; gradients are then those of the leaves."""
        for leaf in self.leaves.values():
            leaf.grad = None
        found = self.forward()
        torch.autograd.backward([found[name] for name in cotangents], list(cotangents.values()))

    def gradients(self) -> dict[str, Array]:
        """What the last run left; zeros where a leaf has no part in the outputs."""
        return {
            name: (torch.zeros_like(leaf) if leaf.grad is None else leaf.grad).numpy()
            for name, leaf in self.leaves.items()
        }


def of_recipe(recipe: Recipe, wrt: Sequence[str]) -> Eager:
    """The module of a recipe, by the named inputs and parameters; the others take no part in the backward pass."""
    inputs = {name: value.detach().clone() for name, value in recipe.inputs.items()}
    known = dict(recipe.module.named_parameters()) | inputs
    for name, parameter in recipe.module.named_parameters():
        parameter.requires_grad_(name in wrt)
    leaves = {name: known[name].requires_grad_(True) for name in wrt}

    def forward() -> dict[str, Tensor]:
        found = recipe.module(*inputs.values())
        return dict(zip(recipe.outputs, found if isinstance(found, tuple) else (found,), strict=True))

    return Eager(forward, leaves)


def of_graph(path: Path, feeds: Mapping[str, Array], wrt: Sequence[str]) -> Eager:
    """An ONNX graph, by the named inputs and constants."""
    model = onnx.load(str(path))
    graph = _Graph(next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), set(wrt))
    for name, array in feeds.items():
        graph.given(name, tensor_of(array))
    for initializer in model.graph.initializer:
        if initializer.name not in feeds:
            graph.known(initializer.name, tensor_of(numpy_helper.to_array(initializer)))
    with torch.no_grad():
        graph.prepare(model.graph.node)
    missing = set(wrt) - graph.leaves.keys()
    if missing:
        raise ValueError(f"{path.name} has no input or constant {', '.join(sorted(missing))}")
    names = [output.name for output in model.graph.output]

    def forward() -> dict[str, Tensor]:
        values = dict(graph.fixed)
        graph.run(graph.moving, values)
        return {name: values[name] for name in names}

    return Eager(forward, graph.leaves)


@dataclass(slots=True)
class _Graph:
    """`fixed` are values that are the same in every run; `moving` the nodes that every run computes, in order."""

    opset: int
    wrt: set[str]
    fixed: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    leaves: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    changing: set[str] = field(default_factory=set[str])
    moving: list[NodeProto] = field(default_factory=list[NodeProto])

    def known(self, name: str, value: Tensor) -> None:
        """A constant, which is a leaf if it is differentiated by."""
        self.fixed[name] = value
        if name in self.wrt:
            self.leaves[name] = value.requires_grad_(True)
            self.changing.add(name)

    def given(self, name: str, value: Tensor) -> None:
        """An input."""
        self.known(name, value)
        self.changing.add(name)

    def prepare(self, nodes: Sequence[NodeProto]) -> None:
        """Sort nodes into those that are computed now and those that every run computes; all run once, for shapes."""
        values = dict(self.fixed)
        for node in nodes:
            self.run([node], values)
            reads = {*node.input, *(name for body in _bodies(node) for name in _captured(body))}
            moves = node.op_type not in ("Shape", "Size") and not reads.isdisjoint(self.changing)
            if moves:
                self.moving.append(node)
                self.changing.update(node.output)
            else:
                for name in filter(None, node.output):
                    self.known(name, values[name])

    def run(self, nodes: Sequence[NodeProto], values: dict[str, Tensor]) -> None:
        """Compute nodes in order."""
        for node in nodes:
            if node.op_type == "If":
                taken = "then_branch" if bool(values[node.input[0]].item()) else "else_branch"
                body = next(a.g for a in node.attribute if a.name == taken)
                for initializer in body.initializer:
                    values[initializer.name] = tensor_of(numpy_helper.to_array(initializer))
                self.run(body.node, values)
                found = [values[output.name] for output in body.output]
            else:
                if node.op_type not in LAYERS:
                    raise ValueError(f"{node.op_type} is not in the table of operators")
                made = LAYERS[node.op_type](Call(node, [values.get(n) for n in node.input], self.opset))
                found = [made] if isinstance(made, Tensor) else list(made)
            values.update((name, value) for name, value in zip(node.output, found, strict=False) if name)


def _bodies(node: NodeProto) -> list[GraphProto]:
    return [a.g for a in node.attribute if a.HasField("g")]


def _captured(body: GraphProto) -> set[str]:
    """Every name that a branch mentions; names of its own are none of the outer graph's."""
    inner = {name for node in body.node for name in node.input}
    outputs = {output.name for output in body.output}
    return inner | outputs | {name for node in body.node for deeper in _bodies(node) for name in _captured(deeper)}
