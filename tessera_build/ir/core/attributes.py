"""Attributes of nodes as plain data: what text prints, what text parses and what hashes cover.

Takes the values of node fields (numbers, strings, element types, extents, tuples, frozen dataclasses, scalar
programs) with their annotations; gives an `Attr`, and back. Invariant: `decode(encode(value, a), a) == value`; without
an annotation (`object`) that holds for values that are an `Attr` already.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Literal, Union, cast, get_args, get_origin, get_type_hints

from tessera_build.ir.core.dims import Dim
from tessera_build.ir.core.scalar import ScalarProgram, parse_program
from tessera_build.ir.core.types import DType

Attr = bool | int | float | str | DType | Dim | tuple["Attr", ...] | Mapping[str, "Attr"]
_ATOMS = (bool, int, float, str, DType, Dim)


@functools.cache
def field_annotations(cls: type) -> dict[str, object]:
    """Annotation of every field of a dataclass that is an attribute, a plain record or a node."""
    hints = get_type_hints(cls, include_extras=True)
    return {f.name: hints[f.name] for f in fields(cls)}


def without_none(annotation: object) -> object:
    """`X` for `X | None`; a union of several other types says no more than `object`."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation
    rest = [a for a in get_args(annotation) if a is not type(None)]
    return rest[0] if len(rest) == 1 else object


def encode(value: object, annotation: object = object) -> Attr:
    """The attribute that stands for `value`; raises `ValueError` for what has no plain form."""
    annotation = without_none(annotation)
    if annotation is float and isinstance(value, int):
        return float(value)
    if isinstance(value, _ATOMS):
        return value
    if isinstance(value, ScalarProgram):
        return value.lines()
    if isinstance(value, tuple):
        items = cast("tuple[object, ...]", value)
        return tuple(encode(v, a) for v, a in zip(items, _item_annotations(annotation, len(items)), strict=True))
    if isinstance(value, Mapping):
        pairs = sorted(cast("Mapping[str, object]", value).items())
        return {key: encode(item) for key, item in pairs}
    if is_dataclass(value) and not isinstance(value, type):
        return encode_fields(value)
    raise ValueError(f"{value!r} is not an attribute")


def encode_fields(record: object) -> dict[str, Attr]:
    """A frozen dataclass as a dictionary; fields that are None are left out."""
    found: dict[str, Attr] = {}
    for name, annotation in field_annotations(type(record)).items():
        value: object = getattr(record, name)
        if value is not None:
            found[name] = encode(value, annotation)
    return found


def decode(attribute: Attr, annotation: object = object) -> object:
    """The value that `encode` was given, rebuilt by its annotation; raises `ValueError` when it does not fit."""
    kinds = _kinds(annotation)
    if kinds and not any(type(attribute) is k or (k in _CONTAINERS and isinstance(attribute, k)) for k in kinds):
        raise ValueError(f"{attribute!r} is not {' or '.join(k.__name__ for k in kinds)}")
    annotation = without_none(annotation)
    if annotation is ScalarProgram and isinstance(attribute, tuple):
        return parse_program([str(line) for line in attribute])
    if isinstance(attribute, tuple):
        items = zip(attribute, _item_annotations(annotation, len(attribute)), strict=True)
        return tuple(decode(value, inner) for value, inner in items)
    if isinstance(attribute, Mapping) and isinstance(annotation, type) and is_dataclass(annotation):
        return decode_fields(attribute, annotation)
    return attribute


_CONTAINERS = (tuple, Mapping)


@functools.cache
def _kinds(annotation: object) -> tuple[type, ...]:
    """The types that an attribute of this annotation may have in its plain form; none: any."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        inner = [_kinds(a) for a in get_args(annotation) if a is not type(None)]
        return tuple(k for kinds in inner for k in kinds) if all(inner) else ()
    if origin is Literal:
        return (str,)  # every Literal of a grammar is a choice of words
    if origin is tuple or annotation is ScalarProgram:
        return (tuple,)
    if not isinstance(annotation, type):
        return ()
    return (annotation,) if annotation in _ATOMS else (Mapping,) if is_dataclass(annotation) else ()


def decode_fields(attributes: Mapping[str, Attr], cls: type) -> object:
    """The dataclass that `encode_fields` was given."""
    annotations = field_annotations(cls)
    unknown = attributes.keys() - annotations.keys()
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}")
    values = {name: decode(value, annotations[name]) for name, value in attributes.items()}
    return cls(**(missing_fields(cls, attributes) | values))


def missing_fields(cls: type, present: Mapping[str, object]) -> dict[str, None]:
    """None for every field without a default that `present` leaves out; raises `ValueError` where None is no value."""
    found: dict[str, None] = {}
    for f in fields(cls):
        if f.name in present or f.default is not MISSING or f.default_factory is not MISSING:
            continue
        if type(None) not in get_args(field_annotations(cls)[f.name]):
            raise ValueError(f"{cls.__name__} needs a field {f.name}")
        found[f.name] = None
    return found


def _item_annotations(annotation: object, count: int) -> tuple[object, ...]:
    inner = get_args(annotation)
    if get_origin(annotation) is not tuple:
        return (object,) * count
    if len(inner) == 2 and inner[1] is Ellipsis:
        return (inner[0],) * count
    if len(inner) != count:
        raise ValueError(f"{count} items where {len(inner)} belong")
    return inner
