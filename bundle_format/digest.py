"""The name of a blob: its SHA-256.

Takes: bytes, or the text `sha256:<64 hex digits>`.
Gives: `Digest`, a value that compares, sorts, hashes and prints.
Invariant: a `Digest` always holds exactly 64 lower-case hex digits, so it is safe inside a file name.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Final, NamedTuple, Protocol, Self, cast

from bundle_format.errors import BundleError


class _Hash(Protocol):
    def hexdigest(self) -> str: ...


_Sha256 = Callable[[bytes | bytearray | memoryview], _Hash]

# Up to this size the interpreter's own SHA-256 is used where there is one: hashlib would bring OpenSSL's libcrypto into
# every serving process, 3 MiB resident and 5 ms, to hash a few hundred kilobytes of manifests and code.
_SMALL_BYTES: Final = 1 << 22


def _own_sha256() -> _Sha256 | None:
    """CPython's SHA-256 without OpenSSL: `_sha2` since 3.12, `_sha256` before."""
    for name in ("_sha2", "_sha256"):
        try:
            return cast(_Sha256, import_module(name).sha256)
        except ImportError:
            continue
    return None


_OWN: Final = _own_sha256()


def _sha256(data: bytes | bytearray | memoryview) -> str:
    size = data.nbytes if isinstance(data, memoryview) else len(data)
    if _OWN is not None and size <= _SMALL_BYTES:
        return _OWN(data).hexdigest()
    import hashlib  # noqa: PLC0415  heavy: see _SMALL_BYTES

    return hashlib.sha256(data).hexdigest()


class _Fields(NamedTuple):
    hex: str


class Digest(_Fields):
    """A SHA-256, kept as 64 lower-case hex digits."""

    __slots__ = ()

    def __new__(cls, hex: str) -> Self:  # noqa: A002, D102  the field's name
        if len(hex) != 64 or hex.strip("0123456789abcdef"):
            raise BundleError("DIGEST_MALFORMED", "a digest is not 64 lower-case hex digits", found=repr(hex[:80]))
        return super().__new__(cls, hex)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Self:
        """The digest of these bytes."""
        return cls(_sha256(data))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `sha256:<hex>`; any other algorithm or spelling is a `BundleError`."""
        algorithm, colon, digits = text.partition(":")
        if algorithm != "sha256" or not colon:
            raise BundleError(
                "DIGEST_MALFORMED",
                "a digest is not written as sha256:<hex>",
                expected="sha256:<64 hex digits>",
                found=repr(text[:80]),
            )
        return cls(digits)

    def __str__(self) -> str:
        return f"sha256:{self.hex}"
