"""Which names nodes read, subgraphs included, and which nodes are needed.

Takes protobuf nodes; gives names and nodes. Invariant: a name that a subgraph defines itself is none that it reads, and
nodes stand behind those that they read from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx

NamedNode = tuple[onnx.NodeProto, str]


def graphs_of(node: onnx.NodeProto) -> dict[str, onnx.GraphProto]:
    """The subgraphs of a node by attribute."""
    return {a.name: a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH}


def names_read(node: onnx.NodeProto) -> set[str]:
    """The names of values that a node reads from the graph it stands in, itself or in its subgraphs."""
    names = {name for name in node.input if name}
    for graph in graphs_of(node).values():
        names |= captured_by(graph)
    return names


def captured_by(graph: onnx.GraphProto) -> set[str]:
    """The names that a subgraph reads from outside."""
    own = {i.name for i in graph.input} | {i.name for i in graph.initializer}
    own |= {name for node in graph.node for name in node.output}
    read = {name for node in graph.node for name in names_read(node)}
    return (read | {o.name for o in graph.output}) - own


def named_nodes(graph: onnx.GraphProto, prefix: str = "") -> list[NamedNode]:
    """The nodes of a graph with names for reports, each behind those that it reads from.

    ONNX asks for that order in files; onnxruntime does not, and its own converter to half floats does not keep it.
    """
    return _ordered([(n, n.name or f"{prefix}{n.op_type}_{i}") for i, n in enumerate(graph.node)])


def _ordered(nodes: Sequence[NamedNode]) -> list[NamedNode]:
    """The nodes behind what they read, else as they were; of a cycle, one reads what is made after it."""
    makers = {output: i for i, (node, _) in reversed(list(enumerate(nodes))) for output in node.output if output}
    order: dict[int, None] = {}
    begun: set[int] = set()
    for last in range(len(nodes)):
        waiting = [last]
        while waiting:
            at = waiting[-1]
            read = () if at in begun else names_read(nodes[at][0])
            begun.add(at)
            before = sorted({makers[name] for name in read if name in makers} - begun, reverse=True)
            if not before:
                order.setdefault(waiting.pop())
            waiting += before
    return [nodes[i] for i in order]


def needed(nodes: Sequence[NamedNode], wanted: set[str]) -> Iterator[NamedNode]:
    """The nodes that the wanted values depend on, in order."""
    live = set(wanted)
    kept: list[NamedNode] = []
    for node, name in reversed(nodes):
        if live.intersection(node.output):
            live |= names_read(node)
            kept.append((node, name))
    return reversed(kept)


def nodes_in(graph: onnx.GraphProto) -> int:
    """How many nodes a graph holds, those of subgraphs included."""
    return sum(1 + sum(nodes_in(inner) for inner in graphs_of(node).values()) for node in graph.node)
