"""The name of a blob: its SHA-256.

Takes: bytes, or the text `sha256:<64 hex digits>`.
Gives: `Digest`, a value that compares, sorts, hashes and prints.
Invariant: a `Digest` always holds exactly 64 lower-case hex digits, so it is safe inside a file name.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Self

from bundle_format.errors import BundleError

_HEX: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A SHA-256, kept as 64 lower-case hex digits."""

    hex: str

    def __post_init__(self) -> None:
        if _HEX.fullmatch(self.hex) is None:
            raise BundleError("DIGEST_MALFORMED", "a digest is not 64 lower-case hex digits", found=repr(self.hex[:80]))

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
