"""Malformed requests: whatever a client sends, it gets an answer or a closed connection, and the server goes on.

Takes: seeded mutations of sound requests. Invariant: each status is one that the server means (never 500), and after
every round a sound request is answered with the right bytes.
"""

import json
import random
import socket
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.sample import SCALE, SHIFT
from tests.runtime.serve.client import Client, Running, binary, serving, tensor

X = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
BINARY_HEAD = json.dumps({"inputs": [binary("x", X, "FP32")]}).encode()
SOUND = (
    (json.dumps({"id": "i", "inputs": [tensor("x", X, "FP32")], "outputs": [{"name": "y"}]}).encode(), None),
    (BINARY_HEAD + X.tobytes(), len(BINARY_HEAD)),
)
STATUSES = {200, 400, 404, 405, 408, 411, 413, 414, 415, 431, 501, 503, 505}
VALUES: tuple[object, ...] = (
    None,
    True,
    -1,
    0,
    2**31,
    2**64,
    -(2**80),
    1e308,
    "",
    "x",
    "\ud800",
    [],
    [[]],
    {},
    {"name": "x"},
    ["a", 1],
    [1e39],
    [[1, 2, 3], [4, 5]],
)


@pytest.fixture(scope="module")
def running(bundle: Path) -> Generator[Running]:
    with serving(bundle, max_request_bytes=1 << 16, max_connections=64) as found:
        yield found


def check_alive(client: Client) -> None:
    """A sound request has the right answer."""
    root = {"inputs": [binary("x", X, "FP32")], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}
    assert client.infer(root, X.tobytes()).raw() == (X * SCALE + SHIFT).tobytes()


def flip(source: random.Random, data: bytes) -> bytes:
    """Change, drop, repeat or insert a few bytes."""
    found = bytearray(data)
    for _ in range(source.randint(1, 6)):
        place, kind = source.randrange(len(found) + 1), source.randrange(4)
        if kind == 0 and place < len(found):
            found[place] = source.randrange(256)
        elif kind == 1:
            del found[place : place + source.randint(1, 20)]
        elif kind == 2:
            found[place:place] = found[place : place + source.randint(1, 40)]
        else:
            found[place:place] = source.choice((b'"', b"{", b"]", b"\x00", b"\xff", b"1e999", b"NaN", b"-", b"\r\n"))
    return bytes(found)


def replace_value(source: random.Random, node: object) -> object:
    """A JSON tree with one of its parts replaced."""
    if isinstance(node, dict) and node and source.random() < 0.8:
        key = source.choice(list(node))
        return {**node, key: replace_value(source, node[key])}
    if isinstance(node, list) and node and source.random() < 0.7:
        place = source.randrange(len(node))
        return [*node[:place], replace_value(source, node[place]), *node[place + 1 :]]
    return source.choice(VALUES)


@pytest.mark.errors
@pytest.mark.parametrize("seed", range(4))
def test_bodies_when_bytes_are_mutated_then_are_refused_or_answered(running: Running, seed: int) -> None:
    source, client = random.Random(seed), running.client
    for _ in range(75):
        body, size = source.choice(SOUND)
        headers = {} if size is None else {"Inference-Header-Content-Length": str(max(0, size + source.randint(-3, 3)))}
        answer = client.ask("POST", "/v2/models/model/infer", flip(source, body), headers)
        assert answer.status in (200, 400), answer
        assert answer.status == 200 or answer.json()["error"]
    check_alive(client)


@pytest.mark.errors
@pytest.mark.parametrize("seed", range(4))
def test_bodies_when_values_are_replaced_then_are_refused_or_answered(running: Running, seed: int) -> None:
    source, client = random.Random(100 + seed), running.client
    root = json.loads(SOUND[0][0])
    for _ in range(75):
        answer = client.infer(replace_value(source, root))
        assert answer.status in (200, 400), answer
    check_alive(client)


def request_bytes(source: random.Random) -> bytes:
    """A request whose line, headers and body may each be odd."""
    line = source.choice(
        (
            b"POST /v2/models/model/infer HTTP/1.1",
            b"GET /v2 HTTP/1.1",
            b"POST /v2/models/%ff%00/infer HTTP/1.1",
            b"GET " + b"/" * source.choice((10, 70_000)) + b" HTTP/1.1",
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"PRI * HTTP/2.0",
            b"GET /v2",
            b"POST  HTTP/9.9",
            b"DELETE /v2 HTTP/1.1",
        )
    )
    odd = (
        b"Content-Length: 999999999999999999999",
        b"Content-Length: 1 1",
        b"Content-Length: 5",
        b"Content-Length: 70000",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: xyz",
        b"Inference-Header-Content-Length: 99999999999999999999",
        b"Inference-Header-Content-Length: a",
        b"Expect: 100-continue",
        b"Connection: keep-alive, close",
        b"X-Long: " + b"a" * 70_000,
        b": nothing",
        b"\x00\xff\xfe",
        b"Host",
    )
    count = source.choice((0, 1, 2, 3, 150))
    headers = [source.choice(odd) for _ in range(count)]
    body = source.choice((b"", b"{}", b"5\r\nabc", b"zz\r\n", b"fffffffffffffff\r\n", bytes(200), SOUND[0][0]))
    return b"\r\n".join([line, *headers]) + source.choice((b"\r\n\r\n", b"\r\n", b"")) + body


def send_all(client: Client, data: bytes) -> bytes:
    """Like `Client.send`, for a server that may close before it has read everything."""
    try:
        return client.send(data)
    except OSError:  # among others: it was reset before we said that we are done
        return b""


@pytest.mark.errors
@pytest.mark.parametrize("seed", range(4))
def test_connections_when_fed_with_anything_then_get_a_known_status_or_are_closed(running: Running, seed: int) -> None:
    source, client = random.Random(200 + seed), running.client
    for _ in range(75):
        found = send_all(client, request_bytes(source))
        if found:
            assert found.startswith(b"HTTP/1.1 ")
            assert int(found[9:12]) in STATUSES | {100}, found[:200]
    check_alive(client)


@pytest.mark.errors
def test_connections_when_dropped_in_the_middle_then_leave_nothing_behind(running: Running) -> None:
    body, line = SOUND[0][0], b"POST /v2/models/model/infer HTTP/1.1\r\nContent-Length: %d\r\n\r\n"
    for cut in range(0, len(body), 7):
        with socket.create_connection(("127.0.0.1", running.client.port), timeout=10) as link:
            link.sendall(line % len(body) + body[:cut])
    check_alive(running.client)
    assert running.server.wait_idle(10)
    assert "tessera_inferences_in_flight 0\n" in running.client.get("/metrics").body.decode()


@pytest.mark.errors
def test_server_when_many_send_nonsense_at_once_then_still_answers(running: Running) -> None:
    def nonsense(seed: int) -> None:
        source = random.Random(300 + seed)
        for _ in range(20):
            send_all(running.client, request_bytes(source))

    def many(work: Callable[[int], None]) -> list[threading.Thread]:
        return [threading.Thread(target=work, args=(seed,)) for seed in range(6)]

    threads = many(nonsense)
    for thread in threads:
        thread.start()
    for _ in range(20):
        check_alive(running.client)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    check_alive(running.client)
