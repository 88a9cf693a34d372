"""Config records to JSON and back.

Takes: `Config`, or the bytes of a config blob.
Gives: canonical bytes, or `Config`.
Invariant: what parses is complete, of the right types and consistent within itself (`config_checks`).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeVar, cast

from bundle_format.canonical import Json, canonical_bytes, parse_canonical
from bundle_format.config_checks import check_consistency
from bundle_format.digest import Digest
from bundle_format.dims import DimExpression, parse_dim
from bundle_format.errors import BundleError
from bundle_format.fields import Fields, add_step, as_digest, as_integer, as_sequence, as_text, wrong_type
from bundle_format.schema import (
    ABI_VERSION,
    DTYPES,
    FORMAT_MAJOR,
    RELATIONS,
    RESULT_KINDS,
    WEIGHT_ALIGNMENT,
    Config,
    DataSize,
    DimRange,
    Entry,
    Extent,
    Guard,
    Result,
    Scalar,
    StateAlias,
    Target,
    Tool,
    Value,
    Version,
    Weight,
)

MAX_RANK: Final = 32
_Item = TypeVar("_Item")
# Fields that came after 1.0, with what a reader takes them to be where they are not there.
_LEFT_OUT: Final[Mapping[str, object]] = MappingProxyType(
    {"sizes": (), "results": (), "in_place": False, "workspace": None, "at": ""}
)


def config_bytes(config: Config) -> bytes:
    """The canonical bytes of a config blob; an inconsistent config is a `BundleError`."""
    data = canonical_bytes(cast(Json, _plain(config)))
    parse_config(data)
    return data


def parse_config(data: bytes | memoryview) -> Config:
    """Read a config blob."""
    try:
        return _read_config(parse_canonical(data))
    except BundleError as error:
        raise add_step(error, "$") from None


def _plain(value: object) -> object:
    """A record as JSON values: an object of its fields; a digest or an expression as its text."""
    if isinstance(value, Digest):
        return str(value)
    if isinstance(value, DimExpression):
        return value.text
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in cast(Mapping[str, object], value).items()}
    if isinstance(value, tuple):
        items = cast(tuple[object, ...], value)
        names = cast("tuple[str, ...] | None", getattr(items, "_fields", None))
        if names is None:
            return [_plain(item) for item in items]
        pairs = zip(names, items, strict=True)
        return {name: _plain(item) for name, item in pairs if name not in _LEFT_OUT or item != _LEFT_OUT[name]}
    return value


def _read_config(value: Json) -> Config:
    if not isinstance(value, dict):
        raise wrong_type("an object", value)
    # The version comes first: of a newer major nothing else can be trusted to mean what it says.
    version = Fields(value).read("format", _version)
    # Being ignorable excuses only fields that this reader does not know; known ones stay mandatory and checked.
    ignorable = frozenset(Fields(value).sequence("ignorable", as_text))
    config = _Reader(ignorable).config(value, version)
    check_consistency(config)
    return config


def _version(value: Json) -> Version:
    fields = Fields(value)
    version = Version(fields.integer("major"), fields.integer("minor"))
    fields.close()
    if version.major != FORMAT_MAJOR:
        raise BundleError(
            "VERSION_UNSUPPORTED",
            "the bundle has a format version that this reader does not know",
            where=".major",
            expected=str(FORMAT_MAJOR),
            found=str(version.major),
            hint="update tessera-runtime, or build the bundle again with this version",
        )
    return version


class _Reader:
    """Readers of the records below the config; each closes its object."""

    def __init__(self, ignorable: frozenset[str]) -> None:
        self._ignorable = ignorable

    def _fields(self, value: Json) -> Fields:
        return Fields(value, self._ignorable)

    def config(self, value: Json, version: Version) -> Config:
        fields = self._fields(value)
        fields.read("format", lambda _: None)
        fields.exactly("abi", ABI_VERSION)
        config = Config(
            producer=fields.read("producer", self.tool),
            target=fields.read("target", self.target),
            entries=fields.sequence("entries", self.entry),
            weights=fields.sequence("weights", self.weight),
            nodes=fields.sequence("nodes", as_text),
            guards=fields.sequence("guards", self.guard),
            tools=fields.sequence("tools", self.tool),
            numerics=fields.mapping("numerics", _scalar),
            sources=fields.mapping("sources", as_digest),
            format=version,
            ignorable=fields.sequence("ignorable", as_text),
        )
        fields.close()
        return config

    def tool(self, value: Json) -> Tool:
        fields = self._fields(value)
        tool = Tool(fields.text("name"), fields.text("version"))
        fields.close()
        return tool

    def target(self, value: Json) -> Target:
        fields = self._fields(value)
        target = Target(
            fields.text("name"), fields.text("kind"), fields.text("arch"), fields.sequence("features", as_text)
        )
        fields.close()
        return target

    def entry(self, value: Json) -> Entry:
        fields = self._fields(value)
        entry = Entry(
            name=fields.text("name"),
            inputs=fields.sequence("inputs", self.value),
            outputs=fields.sequence("outputs", self.value),
            dims=fields.sequence("dims", self.dim),
            states=fields.sequence("states", self.state),
            sizes=fields.optional("sizes", lambda items: _some(as_sequence(items, self.size), "sizes")) or (),
            results=fields.optional("results", lambda items: _some(as_sequence(items, self.result), "results")) or (),
            workspace=fields.optional("workspace", _extent),
        )
        fields.close()
        return entry

    def value(self, value: Json) -> Value:
        fields = self._fields(value)
        result = Value(fields.text("name"), fields.read("dtype", _dtype), fields.read("shape", _shape))
        fields.close()
        return result

    def dim(self, value: Json) -> DimRange:
        fields = self._fields(value)
        upper = fields.read("max", lambda bound: None if bound is None else as_integer(bound))
        result = DimRange(fields.text("name"), fields.integer("min"), upper)
        fields.close()
        return result

    def size(self, value: Json) -> DataSize:
        fields = self._fields(value)
        result = DataSize(
            fields.text("name"), fields.read("max", lambda bound: None if bound is None else _extent(bound))
        )
        fields.close()
        return result

    def result(self, value: Json) -> Result:
        fields = self._fields(value)
        result = Result(
            name=fields.text("name"),
            kind=fields.read("kind", _result_kind),
            outputs=fields.sequence("outputs", as_text),
            labels=fields.sequence("labels", as_text),
        )
        fields.close()
        return result

    def state(self, value: Json) -> StateAlias:
        fields = self._fields(value)
        in_place = fields.optional("in_place", _true) or False
        alias = StateAlias(fields.text("input"), fields.text("output"), in_place)
        fields.close()
        return alias

    def weight(self, value: Json) -> Weight:
        fields = self._fields(value)
        weight = Weight(
            name=fields.text("name"),
            digest=fields.digest("digest"),
            offset=fields.read("offset", _aligned),
            bytes=fields.integer("bytes"),
            dtype=fields.read("dtype", _dtype),
            shape=fields.sequence("shape", as_integer),
            layout=fields.text("layout"),
            source=fields.digest("source"),
        )
        fields.close()
        return weight

    def guard(self, value: Json) -> Guard:
        fields = self._fields(value)
        guard = Guard(
            left=fields.read("left", _expression),
            relation=fields.read("relation", _relation),
            right=fields.read("right", _expression),
            message=fields.text("message"),
            at=fields.optional("at", _place) or "",
        )
        fields.close()
        return guard


def _expression(value: Json) -> DimExpression:
    return parse_dim(as_text(value))


def _extent(value: Json) -> Extent:
    return parse_dim(value) if isinstance(value, str) else as_integer(value)


def _shape(value: Json) -> tuple[Extent, ...]:
    shape = as_sequence(value, _extent)
    if len(shape) > MAX_RANK:
        raise BundleError("FIELD_OVERSIZE", "a shape has too many axes", expected=f"at most {MAX_RANK}")
    return shape


def _some(items: tuple[_Item, ...], what: str) -> tuple[_Item, ...]:
    if not items:
        raise BundleError("CONFIG_INCONSISTENT", f"a list of {what} is empty, and must then be left out")
    return items


def _place(value: Json) -> str:
    text = as_text(value)
    if not text:
        raise BundleError("CONFIG_INCONSISTENT", "a place is empty, and must then be left out")
    return text


def _true(value: Json) -> bool:
    if value is not True:
        raise wrong_type("true, or the field left out", value)
    return True


def _one_of(allowed: frozenset[str]) -> Callable[[Json], str]:
    def read(value: Json) -> str:
        text = as_text(value)
        if text not in allowed:
            raise BundleError(
                "FIELD_UNSUPPORTED",
                "a field has a value this reader does not know",
                expected="one of " + " ".join(sorted(allowed)),
                found=repr(text)[:200],
            )
        return text

    return read


_dtype = _one_of(DTYPES)
_relation = _one_of(RELATIONS)
_result_kind = _one_of(RESULT_KINDS)


def _aligned(value: Json) -> int:
    offset = as_integer(value)
    if offset % WEIGHT_ALIGNMENT:
        raise BundleError("WEIGHT_MISALIGNED", f"a weight's offset is not a multiple of {WEIGHT_ALIGNMENT}")
    return offset


def _scalar(value: Json) -> Scalar:
    if value is not None and not isinstance(value, (str, int, float)):
        raise wrong_type("a string, a number, a truth value or null", value)
    return value
