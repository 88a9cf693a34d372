"""How the compile pool and its workers talk: length-prefixed messages on two pipes.

Takes: a JSON-able head and a body of bytes.
Gives: `write_message` and `read_message`, used by `compile_pool` and `worker`.
Invariant: a message is read whole or, when the other side has gone, not at all (None).
"""

import json
from struct import Struct
from typing import IO

_LENGTHS = Struct("<QQ")


def write_message(stream: IO[bytes], head: dict[str, object], body: bytes) -> None:
    """Write and flush one message. Raises `OSError` when the other side has gone."""
    encoded = json.dumps(head).encode()
    stream.write(_LENGTHS.pack(len(encoded), len(body)) + encoded + body)
    stream.flush()


def read_message(stream: IO[bytes]) -> tuple[dict[str, object], bytes] | None:
    """One message, or None at the end of the stream, even in the middle of a message."""
    prefix = stream.read(_LENGTHS.size)
    if len(prefix) < _LENGTHS.size:
        return None
    head_bytes, body_bytes = _LENGTHS.unpack(prefix)
    content = stream.read(head_bytes + body_bytes)
    if len(content) < head_bytes + body_bytes:
        return None
    return json.loads(content[:head_bytes]), content[head_bytes:]
