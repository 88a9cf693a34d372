"""Strict reading of JSON objects, field by field, with errors that name the JSON path.

Takes: a JSON value and the names of fields that a reader may skip.
Gives: typed values; every wrong type, missing field or unknown field is a `BundleError`.
Invariant: `close()` fails when the object holds a field that nobody asked for and that is not declared ignorable.

Paths are put together while an error travels outwards, each level adding its own step, so that reading a sound
config with thousands of weights never formats one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar, final

from bundle_format.canonical import Json
from bundle_format.digest import Digest
from bundle_format.errors import BundleError

MAX_ITEMS: Final = 1_000_000
MAX_INTEGER: Final = (1 << 63) - 1

_Item = TypeVar("_Item")


@final
class Fields:
    """A cursor over one JSON object."""

    __slots__ = ("_ignorable", "_left", "_values")

    def __init__(self, value: Json, ignorable: frozenset[str] = frozenset()) -> None:
        if not isinstance(value, Mapping):
            raise wrong_type("an object", value)
        self._values = value
        self._left = set(value)
        self._ignorable = ignorable

    def read(self, name: str, reader: Callable[[Json], _Item]) -> _Item:
        """The field `name`, which must be there, read by `reader`."""
        if name not in self._values:
            raise BundleError("FIELD_MISSING", f"the field {name!r} is missing", where=f".{name}")
        self._left.discard(name)
        try:
            return reader(self._values[name])
        except BundleError as error:
            raise add_step(error, f".{name}") from None

    def optional(self, name: str, reader: Callable[[Json], _Item]) -> _Item | None:
        """The field `name` read by `reader`, or None when it is not there."""
        return self.read(name, reader) if name in self._values else None

    def text(self, name: str) -> str:
        """A string."""
        return self.read(name, as_text)

    def integer(self, name: str) -> int:
        """An integer of at most 63 bits, not negative."""
        return self.read(name, as_integer)

    def digest(self, name: str) -> Digest:
        """A digest."""
        return self.read(name, as_digest)

    def exactly(self, name: str, expected: str | int) -> None:
        """A field whose value is fixed by the format."""
        found = self.read(name, lambda value: value)
        if type(found) is not type(expected) or found != expected:
            raise BundleError(
                "FIELD_UNSUPPORTED",
                f"the field {name!r} has a value this reader does not know",
                where=f".{name}",
                expected=repr(expected),
                found=repr(found)[:200],
            )

    def sequence(self, name: str, reader: Callable[[Json], _Item]) -> tuple[_Item, ...]:
        """A list, each item read by `reader`."""
        return self.read(name, lambda value: as_sequence(value, reader))

    def mapping(self, name: str, reader: Callable[[Json], _Item]) -> dict[str, _Item]:
        """An object with free keys, each value read by `reader`."""
        return self.read(name, lambda value: as_mapping(value, reader))

    def close(self) -> None:
        """Refuse what is left over."""
        unknown = sorted(self._left - self._ignorable)
        if unknown:
            raise BundleError(
                "FIELD_UNKNOWN",
                f"the field {unknown[0]!r} is not known to this reader and is not declared ignorable",
                where=f".{unknown[0]}",
                hint="the bundle may be newer than this tessera-runtime; update it",
            )


def as_text(value: Json) -> str:
    """A string."""
    if not isinstance(value, str):
        raise wrong_type("a string", value)
    return value


def as_integer(value: Json) -> int:
    """An integer from 0 to 2^63-1."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_INTEGER:
        raise wrong_type("an integer from 0 to 2^63-1", value)
    return value


def as_digest(value: Json) -> Digest:
    """A digest."""
    return Digest.parse(as_text(value))


def as_sequence(value: Json, reader: Callable[[Json], _Item]) -> tuple[_Item, ...]:
    """A list of bounded length, each item read by `reader`."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise wrong_type("a list", value)
    if len(value) > MAX_ITEMS:
        raise BundleError("FIELD_OVERSIZE", "a list is too long", expected=f"at most {MAX_ITEMS} items")
    items: list[_Item] = []
    try:
        for item in value:
            items.append(reader(item))  # in a comprehension the index of a bad item would be lost
    except BundleError as error:
        raise add_step(error, f"[{len(items)}]") from None
    return tuple(items)


def as_mapping(value: Json, reader: Callable[[Json], _Item]) -> dict[str, _Item]:
    """An object with free keys, each value read by `reader`."""
    if not isinstance(value, Mapping):
        raise wrong_type("an object", value)
    result: dict[str, _Item] = {}
    for key, item in value.items():
        try:
            result[key] = reader(item)
        except BundleError as error:
            raise add_step(error, f".{key}") from None
    return result


def add_step(error: BundleError, step: str) -> BundleError:
    """Put one more step in front of the path that the error names."""
    error.where = step + (error.where or "")
    return error


def wrong_type(expected: str, value: Json) -> BundleError:
    """The error of a field that holds another kind of value."""
    return BundleError("FIELD_TYPE", "a field has the wrong type", expected=expected, found=repr(value)[:200])
