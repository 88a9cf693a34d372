"""The name of a blob: its SHA-256.

Takes: bytes, or the text `sha256:<64 hex digits>`.
Gives: `Digest`, a value that compares, sorts, hashes and prints.
Invariant: a `Digest` always holds exactly 64 lower-case hex digits, so it is safe inside a file name.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Final, NamedTuple, Protocol, Self, cast

from bundle_format.errors import BundleError


class _Hash(Protocol):
    def hexdigest(self) -> str: ...


_Sha256 = Callable[[bytes | bytearray | memoryview], _Hash]

# Up to this size the interpreter's own SHA-256 is used, `_sha2` since 3.12 and `_sha256` before, where there is one.
# hashlib brings OpenSSL's libcrypto: 3 MiB resident, and 3 ms to the 16 that importing the runtime takes (Python 3.11),
# which a serving process need not pay for a few hundred kilobytes of manifests and code. Above it, OpenSSL is worth its
# price: 0.6 s a gigabyte, where the interpreter's own takes 3.6.
_SMALL_BYTES: Final = 1 << 22
_LIGHT: Final = ("_sha2", "_sha256", "hashlib")
_FAST: Final = ("hashlib",)


@cache
def _sha256(modules: tuple[str, ...]) -> _Sha256:
    """SHA-256 of the first of these modules that this interpreter has."""
    for name in modules:
        with suppress(ImportError):
            return cast(_Sha256, import_module(name).sha256)
    raise ImportError(f"this interpreter has none of {modules}")


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
        size = data.nbytes if isinstance(data, memoryview) else len(data)
        return cls(_sha256(_LIGHT if size <= _SMALL_BYTES else _FAST)(data).hexdigest())

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
