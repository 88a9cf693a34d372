"""The body of an HTTP request, read within limits.

Takes: the headers and the stream of one request, which raises `TimeoutError` when its time is up. Gives: its bytes, or
a `RequestError`.
Invariant: never more than the limit is held in memory, and a request whose length can be understood in two ways is
refused, for a proxy in front may have understood it in the other.
"""

from email.message import Message
from typing import Final, Protocol

from tessera_runtime.serve.errors import RequestError, malformed

_PIECE_BYTES: Final = 1 << 20
_LINE_BYTES: Final = 1024


class ByteStream(Protocol):
    """Where the bytes come from."""

    def read(self, size: int, /) -> bytes:
        """That many bytes, fewer at the end."""
        ...

    def readline(self, size: int, /) -> bytes:
        """A line, or that many bytes of it."""
        ...


def declared_bytes(headers: Message) -> int | None:
    """The length that the headers declare; None for a chunked body."""
    lengths = headers.get_all("Content-Length", [])
    codings = [word.strip().lower() for value in headers.get_all("Transfer-Encoding", []) for word in value.split(",")]
    if codings:
        if lengths or codings != ["chunked"]:
            raise RequestError(400, "LENGTH_UNCLEAR", "the length of the body is declared in two ways or coded twice")
        return None
    if not lengths:
        raise RequestError(411, "LENGTH_MISSING", "the request has no Content-Length")
    if len(set(lengths)) > 1 or not _is_number(lengths[0]):
        raise RequestError(400, "LENGTH_UNCLEAR", "Content-Length is not one number", found=str(lengths)[:100])
    return int(lengths[0])


def header_number(headers: Message, name: str) -> int | None:
    """The number in a header, None when there is no such header."""
    value = headers.get(name)
    if value is None:
        return None
    if not _is_number(value):
        raise malformed(f"{name} is not a number", found=value)
    return int(value)


def body_bytes(headers: Message, limit: int) -> int | None:
    """The length of a body that may be read, None for a chunked one; nothing of one that is refused was read."""
    coding = headers.get("Content-Encoding", "identity").strip().lower()
    if coding != "identity":
        raise RequestError(415, "CODING_UNSUPPORTED", "the server takes no compressed bodies", found=coding)
    size = declared_bytes(headers)
    if size is not None and size > limit:
        raise _too_large(limit)
    return size


def read_body(stream: ByteStream, size: int | None, limit: int) -> memoryview:
    """The bytes of the body; of a chunked one (`size` None) at most `limit`."""
    try:
        return _read_chunks(stream, limit) if size is None else memoryview(_read_exactly(stream, size))
    except TimeoutError:
        raise RequestError(408, "BODY_SLOW", "the body did not arrive in time") from None


def _read_exactly(stream: ByteStream, size: int) -> bytearray:
    data = bytearray()
    while len(data) < size:
        # Memory grows with what has come, not with what was declared.
        piece = stream.read(min(_PIECE_BYTES, size - len(data)))
        if not piece:
            raise malformed("the body ended early", expected=f"{size} bytes", found=len(data))
        data += piece
    return data


def _read_chunks(stream: ByteStream, limit: int) -> memoryview:
    data = bytearray()
    while True:
        digits = _line(stream).partition(b";")[0].strip()
        if not digits or len(digits) > 16 or digits.strip(b"0123456789abcdefABCDEF"):
            raise malformed("the size of a chunk is not a number")
        size = int(digits, 16)
        if size == 0:
            break
        if len(data) + size > limit:
            raise _too_large(limit)
        data += _read_exactly(stream, size)
        if _line(stream):
            raise malformed("a chunk is longer than its size")
    for _ in range(100):
        if not _line(stream):
            return memoryview(data)
    raise malformed("the body has too many trailers")


def _line(stream: ByteStream) -> bytes:
    """A line without its end. The rest of a longer one would pass for data, and for the next request in the end."""
    line = stream.readline(_LINE_BYTES)
    if not line.endswith(b"\n"):
        expected = f"at most {_LINE_BYTES} bytes"
        raise malformed("a line of the chunked body is too long, or has no end", expected=expected, found=line)
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _too_large(limit: int) -> RequestError:
    return RequestError(413, "BODY_TOO_LARGE", "the body is too large", expected=f"at most {limit} bytes")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18
