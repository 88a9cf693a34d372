"""The config blob of a variant: everything a loader must know besides the bytes of code and weights.

Takes: canonical JSON bytes.
Gives: `Config`, a tree of frozen records, and back (`config_bytes`).
Invariant: `parse_config(config_bytes(c)) == c`; a field that is missing, of the wrong type, inconsistent with another
or unknown (and not listed in `ignorable`) is a `BundleError` that names the JSON path.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bundle_format.digest import Digest
from bundle_format.dims import DimExpression

FORMAT_MAJOR: Final = 1
FORMAT_MINOR: Final = 0
ABI_VERSION: Final = 1
_FLOATS: Final = ("f64", "f32", "bf16", "f16", "f8e4m3", "f8e5m2")
_INTEGERS: Final = ("i64", "i32", "i16", "i8", "i4", "u64", "u32", "u16", "u8", "u4")
DTYPES: Final = frozenset((*_FLOATS, *_INTEGERS, "bool"))
RELATIONS: Final = frozenset(("==", "!=", "<", "<=", ">", ">=", "multiple_of"))
WEIGHT_ALIGNMENT: Final = 64

Extent = int | DimExpression
Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Version:
    """A format version: a reader refuses another major; a higher minor only adds ignorable fields."""

    major: int = FORMAT_MAJOR
    minor: int = FORMAT_MINOR


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that took part in the build, with its version."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Value:
    """One input or output: dense, row-major, at the address that the caller passes."""

    name: str
    dtype: str
    shape: tuple[Extent, ...]


@dataclass(frozen=True, slots=True)
class DimRange:
    """A symbol that occurs in shapes, with the values it may take (`max` None: no bound)."""

    name: str
    min: int = 0
    max: int | None = None


@dataclass(frozen=True, slots=True)
class StateAlias:
    """The output that becomes the named input of the next call."""

    input: str
    output: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One function of the module. `dims` are in the order in which the ABI wants their values."""

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    dims: tuple[DimRange, ...] = ()
    states: tuple[StateAlias, ...] = ()


@dataclass(frozen=True, slots=True)
class Weight:
    """Where one weight lies (`bytes` from `offset` within blob `digest`) and what it was made from."""

    name: str
    digest: Digest
    offset: int
    bytes: int
    dtype: str
    shape: tuple[int, ...]
    layout: str
    source: Digest


@dataclass(frozen=True, slots=True)
class Guard:
    """Something the build assumed about dims: `left relation right`, two dimension expressions."""

    left: DimExpression
    relation: str
    right: DimExpression
    message: str


@dataclass(frozen=True, slots=True)
class Target:
    """What a variant runs on: `kind` chooses the loader, `arch` and `features` what the machine must have."""

    name: str
    kind: str
    arch: str
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Config:
    """The config blob. `weights`, `nodes` and `guards` are in ABI order; `ignorable` names optional fields."""

    producer: Tool
    target: Target
    entries: tuple[Entry, ...]
    weights: tuple[Weight, ...] = ()
    nodes: tuple[str, ...] = ()
    guards: tuple[Guard, ...] = ()
    tools: tuple[Tool, ...] = ()
    numerics: Mapping[str, Scalar] = field(default_factory=dict[str, Scalar])
    sources: Mapping[str, Digest] = field(default_factory=dict[str, Digest])
    format: Version = Version()
    abi: int = ABI_VERSION
    ignorable: tuple[str, ...] = ()
