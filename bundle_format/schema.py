"""The config blob of a variant: everything a loader must know besides the bytes of code and weights.

Takes: canonical JSON bytes.
Gives: `Config`, a tree of frozen records, and back (`config_bytes`).
Invariant: `parse_config(config_bytes(c)) == c`; a field that is missing, of the wrong type, inconsistent with another
or unknown (and not listed in `ignorable`) is a `BundleError` that names the JSON path.

The records that a loader needs are named tuples: making a frozen dataclass takes 0.6 ms, a named tuple 0.07 ms, and two
dozen of them were a third of the time that importing the runtime may take.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from bundle_format.digest import Digest
from bundle_format.dims import DimExpression

FORMAT_MAJOR: Final = 1
FORMAT_MINOR: Final = 4
ABI_VERSION: Final = 1
_FLOATS: Final = ("f64", "f32", "bf16", "f16")
# Kept one to a byte, the narrower ones in its low bits.
_BYTE_FLOATS: Final = ("f8e4m3", "f8e5m2", "f8e4m3fnuz", "f8e5m2fnuz", "f8e8m0", "f6e2m3", "f6e3m2", "f4e2m1")
_INTEGERS: Final = ("i64", "i32", "i16", "i8", "i4", "i2", "u64", "u32", "u16", "u8", "u4", "u2")
DTYPES: Final = frozenset((*_FLOATS, *_BYTE_FLOATS, *_INTEGERS, "bool"))
RELATIONS: Final = frozenset(("==", "!=", "<", "<=", ">", ">=", "multiple_of"))
WEIGHT_ALIGNMENT: Final = 64

RESULT_KINDS: Final = frozenset(("tensor", "sequence", "integer_maps", "word_maps", "words", "nothing"))
Extent = int | DimExpression
Scalar = str | int | float | bool | None
_NO_SCALARS: Final[Mapping[str, Scalar]] = MappingProxyType({})
_NO_DIGESTS: Final[Mapping[str, Digest]] = MappingProxyType({})


class Version(NamedTuple):
    """A format version: a reader refuses another major; a higher minor only adds ignorable fields."""

    major: int = FORMAT_MAJOR
    minor: int = FORMAT_MINOR


class Tool(NamedTuple):
    """A program that took part in the build, with its version."""

    name: str
    version: str


class Value(NamedTuple):
    """One input or output: dense, row-major, at the address that the caller passes."""

    name: str
    dtype: str
    shape: tuple[Extent, ...]


class DimRange(NamedTuple):
    """A symbol that occurs in shapes, with the values it may take (`max` None: no bound)."""

    name: str
    min: int = 0
    max: int | None = None


class StateAlias(NamedTuple):
    """The output that becomes the named input of the next call; `in_place`: both may be one piece of memory."""

    input: str
    output: str
    in_place: bool = False


class DataSize(NamedTuple):
    """A symbol whose value a run reads from data, at most `max` (None: no bound is known)."""

    name: str
    max: Extent | None = None


class Result(NamedTuple):
    """What a result of the source model is made of: outputs by name; `labels` name their columns or elements."""

    name: str
    kind: str
    outputs: tuple[str, ...]
    labels: tuple[str, ...] = ()


class Entry(NamedTuple):
    """One function of the module. `dims` are in the order in which the ABI wants their values.

    Shapes of outputs may be over `sizes` too: such outputs are allocated by the run. `results` is there where the
    source gives more than tensors, and then lists all that it gives. `workspace`: bytes that a run works in, beside its
    inputs, outputs and weights; None where that is not told.
    """

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    dims: tuple[DimRange, ...] = ()
    states: tuple[StateAlias, ...] = ()
    sizes: tuple[DataSize, ...] = ()
    results: tuple[Result, ...] = ()
    workspace: Extent | None = None

    def depends_on_data(self, extent: Extent) -> bool:
        """Whether an extent is known only after a run."""
        return isinstance(extent, DimExpression) and not extent.symbols.isdisjoint(size.name for size in self.sizes)

    @property
    def dynamic_outputs(self) -> tuple[int, ...]:
        """The outputs that a run allocates, because their shapes depend on data."""
        return tuple(index for index, value in enumerate(self.outputs) if any(map(self.depends_on_data, value.shape)))


class Weight(NamedTuple):
    """Where one weight lies (`bytes` from `offset` within blob `digest`) and what it was made from."""

    name: str
    digest: Digest
    offset: int
    bytes: int
    dtype: str
    shape: tuple[int, ...]
    layout: str
    source: Digest


class Guard(NamedTuple):
    """Something the build assumed about dims: `left relation right`, two dimension expressions; asked for `at` a place
    in the source, where that is known.
    """

    left: DimExpression
    relation: str
    right: DimExpression
    message: str
    at: str = ""


class Target(NamedTuple):
    """What a variant runs on: `kind` chooses the loader, `arch` and `features` what the machine must have."""

    name: str
    kind: str
    arch: str
    features: tuple[str, ...] = ()


class Config(NamedTuple):
    """The config blob. `weights`, `nodes` and `guards` are in ABI order; `ignorable` names optional fields."""

    producer: Tool
    target: Target
    entries: tuple[Entry, ...]
    weights: tuple[Weight, ...] = ()
    nodes: tuple[str, ...] = ()
    guards: tuple[Guard, ...] = ()
    tools: tuple[Tool, ...] = ()
    numerics: Mapping[str, Scalar] = _NO_SCALARS
    sources: Mapping[str, Digest] = _NO_DIGESTS
    format: Version = Version()
    abi: int = ABI_VERSION
    ignorable: tuple[str, ...] = ()
