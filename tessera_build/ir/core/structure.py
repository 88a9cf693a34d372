"""Reflection over node classes: which fields are operands, results, regions or attributes.

Takes any `Node`; gives its `Generic` form (name, operands, results, attributes, regions), the one door through which
text, hashing and rewriting see nodes. Invariant: `from_generic(to_generic(node))` rebuilds an equal node.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

from tessera_build.ir.core.node import Node, Region

Role = Literal["use", "uses", "optional_use", "def", "defs", "region", "regions", "attribute"]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a node class: its name, its role in the generic form and its Python type."""

    name: str
    role: Role
    annotation: object


@dataclass(frozen=True, slots=True, eq=False)
class Generic:
    """A node without its class: MLIR's generic operation."""

    name: str
    operands: tuple[int, ...]
    results: tuple[int, ...]
    attributes: Mapping[str, object]
    regions: tuple[Region, ...]


@functools.cache
def fields_of(cls: type[Node]) -> tuple[Field, ...]:
    """The fields of a node class with their roles, in declaration order."""
    hints = get_type_hints(cls, include_extras=True)
    return tuple(Field(f.name, _role(hints[f.name]), hints[f.name]) for f in fields(cls))


def _role(annotation: object) -> Role:
    if get_origin(annotation) is Annotated:
        role = get_args(annotation)[1]
        return "attribute" if role == "symbol" else role
    if annotation is Region:
        return "region"
    inner = get_args(annotation)
    if get_origin(annotation) is tuple and inner[1:] == (Ellipsis,):
        role = _role(inner[0])
        return {"use": "uses", "def": "defs", "region": "regions"}.get(role, "attribute")  # type: ignore[return-value]
    if type(None) in inner and any(get_origin(i) is Annotated for i in inner):
        return "optional_use"
    return "attribute"


@functools.cache
def name_of(cls: type[Node]) -> str:
    """The node's name in text: its dialect and its class name in snake case."""
    return f"{cls.dialect}.{re.sub(r'(?<!^)(?=[A-Z])', '_', cls.__name__).lower()}"


def uses_of(node: Node) -> tuple[int, ...]:
    """Values that the node itself reads (not those its regions read)."""
    found: list[int] = []
    for f in fields_of(type(node)):
        value = getattr(node, f.name)
        if f.role == "use" or (f.role == "optional_use" and value is not None):
            found.append(value)
        elif f.role == "uses":
            found.extend(value)
    return tuple(found)


def defs_of(node: Node) -> tuple[int, ...]:
    """Values that the node defines."""
    found: list[int] = []
    for f in fields_of(type(node)):
        if f.role == "def":
            found.append(getattr(node, f.name))
        elif f.role == "defs":
            found.extend(getattr(node, f.name))
    return tuple(found)


def regions_of(node: Node) -> tuple[Region, ...]:
    """The node's regions in field order."""
    found: list[Region] = []
    for f in fields_of(type(node)):
        if f.role == "region":
            found.append(getattr(node, f.name))
        elif f.role == "regions":
            found.extend(getattr(node, f.name))
    return tuple(found)


def with_regions(node: Node, regions: Sequence[Region]) -> Node:
    """The node with its regions replaced; the same object when none changed."""
    if all(new is old for new, old in zip(regions, regions_of(node), strict=True)):
        return node
    changes: dict[str, object] = {}
    rest = list(regions)
    for f in fields_of(type(node)):
        if f.role == "region":
            changes[f.name] = rest.pop(0)
        elif f.role == "regions":
            count = len(getattr(node, f.name))
            changes[f.name], rest = tuple(rest[:count]), rest[count:]
    return replace(node, **changes)


def rename(node: Node, values: Mapping[int, int], *, defs: bool = True) -> Node:
    """The node with value ids replaced, inside its regions too; with `defs=False` only uses change.

    The same object comes back when nothing changed.
    """
    changes: dict[str, object] = {}
    for f in fields_of(type(node)):
        old = getattr(node, f.name)
        new = _renamed(old, f.role, values, defs)
        if new is not old:
            changes[f.name] = new
    return replace(node, **changes) if changes else node


def _renamed(old: object, role: Role, values: Mapping[int, int], defs: bool) -> object:
    if isinstance(old, Region):
        return _rename_region(old, values, defs)
    if isinstance(old, tuple) and role in {"uses", "defs", "regions"}:
        inner: Role = "use" if role == "uses" else "def" if role == "defs" else "region"
        new = tuple(_renamed(item, inner, values, defs) for item in old)
        return old if all(a is b for a, b in zip(old, new, strict=True)) else new
    if isinstance(old, int) and (role in {"use", "optional_use"} or (role == "def" and defs)):
        return values.get(old, old)
    return old


def _rename_region(region: Region, values: Mapping[int, int], defs: bool) -> Region:
    args = tuple(values.get(a, a) for a in region.args) if defs else region.args
    nodes = tuple(rename(n, values, defs=defs) for n in region.nodes)
    results = tuple(values.get(r, r) for r in region.results)
    same = args == region.args and results == region.results
    if same and all(a is b for a, b in zip(nodes, region.nodes, strict=True)):
        return region
    return Region(args, nodes, results)
