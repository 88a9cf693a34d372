"""A print-only form of small functions that fits into a docstring.

Takes a module and the names of the attributes worth showing; gives one line a node, constants by name or by value.
Invariant: deterministic, so the text in a pass's docstring can be compared with what the pass does.
"""

from __future__ import annotations

from collections.abc import Collection

from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.nodes import Attribute, GraphNode, Module


def brief(module: Module, shown: Collection[str] = ()) -> list[str]:
    """The lines of `main`: inputs and named constants as %name, scalars by value, other values numbered from 1."""
    function = module.entries["main"]
    names = {arg: f"%{name}" for arg, name in zip(function.args, module.input_names["main"], strict=True)}
    lines: list[str] = []
    for node in graph_nodes(function):
        if node.op == "constant":
            names[node.output] = _constant(module, node)
            continue
        names[node.output] = f"%{len(lines) + 1}"
        attributes = [f"{name} = {_value(v)}" for name, v in sorted(node.attributes.items()) if name in shown]
        suffix = f" <{{{', '.join(attributes)}}}>" if attributes else ""
        operands = ", ".join(names[i] for i in node.inputs)
        lines.append(f'{names[node.output]} = "tgraph.{node.op}"({operands}){suffix}')
    return [*lines, "return " + ", ".join(names[r] for r in function.results)]


def _constant(module: Module, node: GraphNode) -> str:
    digest = str(node.attributes["digest"])
    array = module.constants[digest]
    if array.ndim == 0:
        return f"{array.item():.9g}"
    return f"%{module.constant_names[digest]}"


def _value(value: Attribute) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_value(v) for v in value)}]"
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


def blocks_of(docstring: str) -> tuple[list[str], list[str]]:
    """The lines of a docstring's `before:` and `after:` blocks, which end at an empty line."""
    before, after = docstring.split("    before:")[1].split("    after:")
    return _lines(before), _lines(after.split("\n\n")[0])


def _lines(block: str) -> list[str]:
    return [line.strip() for line in block.strip().splitlines()]
