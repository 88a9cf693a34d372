"""Reflection over node classes: which fields are operands, results, regions or attributes.

Takes any `Node`; gives its `Generic` form (name, operands, results, attributes, regions), the one door through which
text, hashing and rewriting see nodes. Invariant: `from_generic(to_generic(node))` rebuilds an equal node.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal, cast, get_args, get_origin, get_type_hints

from tessera_build.ir.core.attributes import Attr, decode, encode
from tessera_build.ir.core.dims import Dim
from tessera_build.ir.core.node import Node, Region, walk
from tessera_build.ir.core.types import Type

Role = Literal[
    "use", "uses", "optional_use", "def", "defs", "region", "regions", "name", "mapping", "symbol", "attribute"
]
_VARIADIC: Mapping[str, Role] = {"use": "uses", "def": "defs", "region": "regions"}
# Group sizes of a node whose operands cannot be told apart by their number; the name is MLIR's.
SEGMENTS = "operandSegmentSizes"


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
    attributes: Mapping[str, Attr]
    regions: tuple[Region, ...]


@functools.cache
def fields_of(cls: type[Node]) -> tuple[Field, ...]:
    """The fields of a node class with their roles, in declaration order."""
    hints = get_type_hints(cls, include_extras=True)
    return tuple(Field(f.name, _role(hints[f.name]), hints[f.name]) for f in fields(cls))


def _role(annotation: object) -> Role:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return inner[1]
    if annotation is Region:
        return "region"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "mapping"
    if origin is tuple and inner[1:] == (Ellipsis,):
        return _VARIADIC.get(_role(inner[0]), "attribute")
    if type(None) in inner and any(get_origin(i) is Annotated for i in inner):
        return "optional_use"
    return "attribute"


@functools.cache
def name_of(cls: type[Node]) -> str:
    """The class's name in text: its dialect and its name in snake case, or `dialect.*` if the node names itself."""
    if any(f.role == "name" for f in fields_of(cls)):
        return f"{cls.dialect}.*"
    return f"{cls.dialect}.{re.sub(r'(?<!^)(?=[A-Z])', '_', cls.__name__).lower()}"


def symbols_bound_by(node: Node) -> dict[str, str]:
    """Index names that the node introduces for the extents inside its regions, by the field that holds them."""
    found = {f.name: str(getattr(node, f.name)) for f in fields_of(type(node)) if f.role == "symbol"}
    for f in fields_of(type(node)) if type(node).binds else ():
        if f.role == "mapping":
            listed = cast("Mapping[str, object]", getattr(node, f.name))
            found |= {name: str(listed[name]) for name in type(node).binds if name in listed}
    return found


def symbols_defined_by(node: Node) -> tuple[str, ...]:
    """Symbols that the extents of later nodes may mention because of this node."""
    cls = type(node)
    found: list[str] = []
    for f in fields_of(cls) if cls.defines else ():
        if f.role == "mapping":
            listed = cast("Mapping[str, object]", getattr(node, f.name))
            for name in cls.defines:
                value = listed.get(name, ())
                found += [str(item) for item in cast("tuple[object, ...]", value)] if isinstance(value, tuple) else []
    return tuple(found)


def symbols_used_by(node: Node, types: Mapping[int, Type]) -> frozenset[str]:
    """Symbols that a node needs from outside: those of its attributes and its results, and of what its regions hold."""
    found = set[str]()
    for f in fields_of(type(node)):
        if f.role in {"mapping", "attribute"}:
            found |= symbols_in(getattr(node, f.name))
    for value in defs_of(node):
        found |= symbols_in(types[value].shape)
    for region in regions_of(node):
        inner = set[str]().union(*(symbols_used_by(n, types) for n in region.nodes))
        inner |= set[str]().union(*(symbols_in(types[a].shape) for a in region.args))
        found |= inner.difference(*(symbols_defined_by(n) for n in region.nodes))
    return frozenset(found - set(symbols_bound_by(node).values()))


def symbols_in(value: object) -> frozenset[str]:
    """Symbols of all extents in an attribute."""
    if isinstance(value, Dim):
        return value.symbols
    if isinstance(value, Mapping):
        return frozenset[str]().union(*(symbols_in(item) for item in cast("Mapping[str, object]", value).values()))
    if isinstance(value, tuple):
        return frozenset[str]().union(*(symbols_in(item) for item in cast("tuple[object, ...]", value)))
    return frozenset()


def _group(node: Node, f: Field) -> tuple[int, ...]:
    """The value ids of one field, whatever its arity."""
    value = cast("int | tuple[int, ...] | None", getattr(node, f.name))
    return () if value is None else (value,) if isinstance(value, int) else value


def uses_of(node: Node) -> tuple[int, ...]:
    """Values that the node itself reads (not those its regions read)."""
    return tuple(v for f in fields_of(type(node)) if f.role in _USES for v in _group(node, f))


def defs_of(node: Node) -> tuple[int, ...]:
    """Values that the node defines."""
    return tuple(v for f in fields_of(type(node)) if f.role in _DEFS for v in _group(node, f))


_USES = frozenset({"use", "uses", "optional_use"})
_DEFS = frozenset({"def", "defs"})


def regions_of(node: Node) -> tuple[Region, ...]:
    """The node's regions in field order."""
    found: list[Region] = []
    for f in fields_of(type(node)):
        if f.role == "region":
            found.append(getattr(node, f.name))
        elif f.role == "regions":
            found.extend(cast("tuple[Region, ...]", getattr(node, f.name)))
    return tuple(found)


def captured(regions: Iterable[Region]) -> tuple[int, ...]:
    """Values that regions read and do not define, in order of first use."""
    found: dict[int, None] = {}
    for region in regions:
        defined = set(region.args)
        for node in walk(region.nodes):
            defined.update(defs_of(node))
            for inner in regions_of(node):
                defined.update(inner.args)
        read = [v for node in walk(region.nodes) for v in (*uses_of(node), *_given(node))]
        found |= dict.fromkeys(v for v in (*read, *region.results) if v not in defined)
    return tuple(found)


def _given(node: Node) -> tuple[int, ...]:
    return tuple(v for region in regions_of(node) for v in region.results)


def to_generic(node: Node) -> Generic:
    """The node as data; raises `ValueError` when an attribute has no plain form."""
    cls = type(node)
    name = name_of(cls)
    attributes: dict[str, Attr] = {}
    for f in fields_of(cls):
        value: object = getattr(node, f.name)
        if f.role == "name":
            name = f"{cls.dialect}.{value}"
        elif f.role == "mapping":
            attributes |= cast("dict[str, Attr]", encode(value))
        elif f.role in {"attribute", "symbol"} and value is not None:
            attributes[f.name] = encode(value, f.annotation)
    groups = [_group(node, f) for f in fields_of(cls) if f.role in _USES]
    if _needs_segments(cls):
        attributes[SEGMENTS] = tuple(len(g) for g in groups)
    return Generic(name, uses_of(node), defs_of(node), attributes, regions_of(node))


def _needs_segments(cls: type[Node]) -> bool:
    return sum(f.role in {"uses", "optional_use"} for f in fields_of(cls)) > 1


def class_table(classes: Iterable[type[Node]]) -> dict[str, type[Node]]:
    """The node classes of a level by their name in text."""
    return {name_of(cls): cls for cls in classes}


def from_generic(generic: Generic, classes: Mapping[str, type[Node]]) -> Node:
    """The node that `to_generic` was given; raises `ValueError` when the data do not fit the class."""
    cls = classes.get(generic.name) or classes.get(generic.name.partition(".")[0] + ".*")
    if cls is None:
        raise ValueError(f"{generic.name} is not a node of this level")
    attributes = dict(generic.attributes)
    parts = _Parts(list(generic.operands), list(generic.results), list(generic.regions), attributes)
    values = parts.segments(cls)
    for f in fields_of(cls):
        if f.role == "name":
            values[f.name] = generic.name.partition(".")[2]
        elif f.role in {"attribute", "symbol"} and f.name in attributes:
            inner = get_args(f.annotation)[0] if f.role == "symbol" else f.annotation
            values[f.name] = decode(attributes.pop(f.name), inner)
    for f in fields_of(cls):
        if f.role == "mapping":
            values[f.name] = {key: decode(value) for key, value in attributes.items()}
            attributes.clear()
    if attributes:
        raise ValueError(f"{generic.name} has no attribute {', '.join(sorted(attributes))}")
    return _construct(cls, values, generic.name)


def _construct(cls: type[Node], values: dict[str, object], name: str) -> Node:
    optional = {f.name: None for f in fields_of(cls) if type(None) in get_args(f.annotation)}
    try:
        return cls(**(optional | values))
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error


@dataclass(slots=True)
class _Parts:
    """The flat lists of a generic node, taken apart by the fields of a class."""

    operands: list[int]
    results: list[int]
    regions: list[Region]
    attributes: dict[str, Attr]

    def segments(self, cls: type[Node]) -> dict[str, object]:
        """The values of all fields that are operands, results or regions."""
        operand_fields = [f for f in fields_of(cls) if f.role in _USES]
        sizes = self._operand_sizes(cls, operand_fields)
        found: dict[str, object] = {}
        for f, size in zip(operand_fields, sizes, strict=True):
            found[f.name] = _shaped(_take(self.operands, size), f.role)
        for kind, items in (("def", self.results), ("region", self.regions)):
            group = [f for f in fields_of(cls) if f.role in {kind, kind + "s"}]
            for f in group:
                size = 1 if f.role == kind else len(items) - sum(g.role == kind for g in group)
                found[f.name] = _shaped(_take(items, size), f.role)
        if self.operands or self.results or self.regions:
            raise ValueError(f"{name_of(cls)} has too many operands, results or regions")
        return found

    def _operand_sizes(self, cls: type[Node], operand_fields: Sequence[Field]) -> Sequence[int]:
        if _needs_segments(cls):
            sizes = self.attributes.pop(SEGMENTS, None)
            if not isinstance(sizes, tuple) or len(sizes) != len(operand_fields):
                raise ValueError(f"{name_of(cls)} needs {SEGMENTS} with {len(operand_fields)} entries")
            return [size for size in sizes if isinstance(size, int)]
        single = sum(f.role == "use" for f in operand_fields)
        return [1 if f.role == "use" else len(self.operands) - single for f in operand_fields]


def _take(items: list[object] | list[int] | list[Region], count: int) -> tuple[object, ...]:
    if not 0 <= count <= len(items):
        raise ValueError("too few operands, results or regions")
    taken = tuple(items[:count])
    del items[:count]
    return taken


def _shaped(items: tuple[object, ...], role: Role) -> object:
    if role in {"uses", "defs", "regions"}:
        return items
    if role == "optional_use" and not items:
        return None
    if len(items) != 1:
        raise ValueError(f"{len(items)} operands where one belongs")
    return items[0]


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
    if isinstance(old, int) and (role in {"use", "optional_use"} or (role == "def" and defs)):
        return values.get(old, old)
    if isinstance(old, tuple) and role in {"uses", "defs", "regions"}:
        items = cast("tuple[object, ...]", old)
        inner: Role = "use" if role == "uses" else "def" if role == "defs" else "region"
        new = tuple(_renamed(item, inner, values, defs) for item in items)
        return items if all(a is b for a, b in zip(items, new, strict=True)) else new
    return cast(object, old)


def _rename_region(region: Region, values: Mapping[int, int], defs: bool) -> Region:
    args = tuple(values.get(a, a) for a in region.args) if defs else region.args
    nodes = tuple(rename(n, values, defs=defs) for n in region.nodes)
    results = tuple(values.get(r, r) for r in region.results)
    same = args == region.args and results == region.results
    if same and all(a is b for a, b in zip(nodes, region.nodes, strict=True)):
        return region
    return Region(args, nodes, results)
