"""One node of a model by itself, described as data.

Takes an operator, operands that are given or constant, attributes and names of results; gives the node. Invariant: the
operands are in the order that is stated, else the given ones come first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx
from onnx import helper

from tessera_build.ir.graph.nodes import Array


@dataclass(frozen=True, slots=True)
class Case:
    """One node: its operator, operands that are given or constant, attributes, and the names of its results."""

    op: str
    inputs: Mapping[str, Array]
    weights: Mapping[str, Array] = field(default_factory=dict[str, Array])
    attributes: Mapping[str, object] = field(default_factory=dict[str, object])
    results: tuple[str, ...] = ("y",)
    operands: tuple[str, ...] = ()
    domain: str = "com.microsoft"
    opset: int = 17


def node_of(case: Case, domain: str) -> onnx.NodeProto:
    """The node, in a domain."""
    names = case.operands or (*case.inputs, *case.weights)
    node = helper.make_node(case.op, list(names), list(case.results), domain=domain)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in case.attributes.items())
    return node
