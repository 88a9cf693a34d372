"""What comes in slowly, or breaks off: waiting has an end, and no rest of a body passes for a request."""

import contextlib
import json
import socket
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest

from tessera_runtime.serve import http as served
from tests.runtime.serve.client import Running, serving, tensor

ROWS = json.dumps({"inputs": [tensor("x", np.ones((1, 3), np.float32), "FP32")]}).encode()
POST = b"POST /v2/models/model/infer HTTP/1.1\r\nHost: x\r\n"
SECONDS = 0.5


@pytest.fixture
def running(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Running]:
    monkeypatch.setattr(served, "_BODY_SECONDS", SECONDS)
    monkeypatch.setattr(served, "_IDLE_SECONDS", SECONDS)
    with serving(bundle) as found:
        yield found


def trickled(port: int, head: bytes, rest: bytes) -> tuple[bytes, float]:
    """What the server says, and when, to one who sends the rest byte by byte, each well before a timeout."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
        link.sendall(head)
        began, link_ends = time.monotonic(), time.monotonic() + 8 * SECONDS
        link.settimeout(SECONDS / 5)
        for place in range(len(rest)):
            try:
                link.sendall(rest[place : place + 1])
                return link.recv(1 << 16), time.monotonic() - began
            except TimeoutError:
                assert time.monotonic() < link_ends, "the server waits for ever"
            except ConnectionError:
                return b"", time.monotonic() - began
    raise AssertionError("all was sent")


@pytest.mark.errors
def test_body_when_it_trickles_in_then_is_given_up(running: Running) -> None:
    reply, seconds = trickled(running.client.port, POST + b"Content-Length: 1000\r\n\r\n", b"{" * 1000)
    assert reply.startswith(b"HTTP/1.1 408 ")
    assert b"BODY_SLOW" in reply
    assert seconds < 4 * SECONDS


@pytest.mark.errors
def test_chunks_when_their_line_trickles_in_then_are_given_up(running: Running) -> None:
    reply, seconds = trickled(running.client.port, POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1" + b" " * 999)
    assert reply.startswith(b"HTTP/1.1 408 ")
    assert seconds < 4 * SECONDS


@pytest.mark.errors
def test_headers_when_they_trickle_in_then_the_connection_ends(running: Running) -> None:
    reply, seconds = trickled(running.client.port, POST, b"A: " + b"b" * 1000)
    assert reply == b""
    assert seconds < 4 * SECONDS


@pytest.mark.errors
@pytest.mark.parametrize("place", ["size", "trailer"])
def test_chunked_body_when_a_line_is_too_long_then_its_rest_is_no_data(running: Running, place: str) -> None:
    extension, trailer = (b";" + b"a" * 1021, b"") if place == "size" else (b"", b"t" * 1024 + b"\r\n")
    size = b"%x" % len(ROWS)
    body = size.rjust(2, b"0") + extension + (b"" if extension else b"\r\n") + ROWS + b"\r\n0\r\n" + trailer + b"\r\n"
    reply = running.client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    assert reply.startswith(b"HTTP/1.1 400 ")
    assert b"too long" in reply


@pytest.mark.errors
def test_body_when_it_breaks_off_then_no_request_is_looked_for_behind_it(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.client.port), timeout=10) as link:
        link.sendall(POST + b"Content-Length: 60\r\n\r\n{")
        pieces: list[bytes] = []
        time.sleep(2 * SECONDS)
        link.sendall(b"{" * 59 + b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while piece := link.recv(1 << 16):
                pieces.append(piece)
    reply = b"".join(pieces)
    assert reply.startswith(b"HTTP/1.1 408 ")
    assert reply.count(b"HTTP/1.1 ") == 1
