"""The name of a blob: its SHA-256.

Takes: bytes, or the text `sha256:<64 hex digits>`.
Gives: `Digest`, a value that compares, sorts, hashes and prints.
Invariant: a `Digest` always holds exactly 64 lower-case hex digits, so it is safe inside a file name.
"""

import hashlib
from typing import NamedTuple, Self

from bundle_format.errors import BundleError


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
        return cls(hashlib.sha256(data).hexdigest())

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
