"""The one way in which a bundle is laid out as a tar file, byte for byte.

Takes: names and sizes of files, and which of them must lie at a multiple of 64 KiB.
Gives: the headers, and the offset of every file's data.
Invariant: headers are a function of (name, size, offset) alone, so a reader compares each with the one it expects.

Alignment: a pax extended header in front of a file may hold a `comment` record, which every tar tool skips. A file that
must be aligned gets one that is exactly as long as the gap.
"""

from typing import Final, NamedTuple

from bundle_format.errors import BundleError

BLOCK: Final = 512
ALIGNMENT: Final = 64 << 10
END: Final = bytes(2 * BLOCK)
MAX_PAX_BYTES: Final = ALIGNMENT
# Sizes beyond what eleven octal digits can say stand in a pax record.
MAX_OCTAL_SIZE: Final = (1 << 33) - 1
_PAX_NAME: Final = "pax"


class TarEntry(NamedTuple):
    """A file within the tar: `header` is everything from the end of the file before to `offset`."""

    name: str
    size: int
    offset: int
    header: bytes

    @property
    def end(self) -> int:
        """Where the next entry's headers begin: data are padded with zeros to whole blocks."""
        return self.offset + padded(self.size)


def place(name: str, size: int, position: int, aligned: bool) -> TarEntry:
    """The entry of a file whose headers begin at `position`."""
    pax_bytes = BLOCK if size > MAX_OCTAL_SIZE else 0
    if aligned and (position + BLOCK + (BLOCK + pax_bytes if pax_bytes else 0)) % ALIGNMENT:
        pax_bytes = -(position + 2 * BLOCK) % ALIGNMENT or ALIGNMENT
    header = entry_header(name, size, pax_bytes)
    return TarEntry(name, size, position + len(header), header)


def entry_header(name: str, size: int, pax_bytes: int) -> bytes:
    """A file's headers: the ustar block and, when `pax_bytes` is not zero, a pax header of that length before it."""
    if not pax_bytes:
        return _ustar(name, size, b"0")
    records = b""
    if size > MAX_OCTAL_SIZE:
        records = _record("size", str(size))
        size = 0
    records += _comment(pax_bytes - len(records))
    return _ustar(_PAX_NAME, pax_bytes, b"x") + records + _ustar(name, size, b"0")


def padded(size: int) -> int:
    """A size rounded up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def octal_size(header: bytes) -> int:
    """The size that a ustar block states."""
    digits = header[124:135]
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise BundleError("TAR_HEADER", "a tar header states a size that is not octal", found=repr(digits))
    return int(digits, 8)


def pax_size(records: bytes) -> int | None:
    """The size that a pax header states in its first record, if it does."""
    length, _, rest = records[:64].partition(b" ")
    key, equals, value = rest.partition(b"\n")[0].partition(b"=")
    if key != b"size" or not equals or not length.isdigit() or not value.isdigit() or len(value) > 18:
        return None
    return int(value)


def _ustar(name: str, size: int, kind: bytes) -> bytes:
    mode, zero, time, device = b"0000644", b"0000000", b"00000000000", b"0000000"
    before = b"\0".join((name.encode("ascii").ljust(99, b"\0"), mode, zero, zero, b"%011o" % size, time, b""))
    link, owners, rest = bytes(100), bytes(64), bytes(155 + 12)
    after = b"".join((kind, link, b"ustar", b"\0", b"00", owners, device, b"\0", device, b"\0", rest))
    checksum = sum(before) + sum(after) + 8 * ord(" ")
    return before + b"%06o" % checksum + b"\0 " + after


def _record(key: str, value: str) -> bytes:
    """A pax record begins with its own length in decimal, which counts its own digits."""
    body = f" {key}={value}\n"
    length = len(body)
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return f"{length}{body}".encode("ascii")


def _comment(length: int) -> bytes:
    start = f"{length} comment="
    return (start + " " * (length - len(start) - 1) + "\n").encode("ascii")
