"""A server inside the test's process, and a client for it.

Takes: a bundle and settings. Gives: `Running`, which sends requests and shows what came back.
Invariant: the server is the one that processes run, on a port of its own; leaving the context ends it in order.
"""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tessera_runtime import load
from tessera_runtime.metrics import Metrics
from tessera_runtime.serve.http import Server
from tessera_runtime.serve.service import FAMILIES, Service, check_servable
from tessera_runtime.serve.settings import Settings

Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]


class Answer(NamedTuple):
    """What the server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as JSON: all of it, or what stands before the binary data."""
        size = self.headers.get("Inference-Header-Content-Length")
        return json.loads(self.body[: None if size is None else int(size)])

    def raw(self) -> bytes:
        """The binary data behind the JSON."""
        return self.body[int(self.headers["Inference-Header-Content-Length"]) :]


class Client:
    """Sends requests to one port of this machine."""

    def __init__(self, port: int, name: str = "model") -> None:
        self.port, self.name = port, name

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers or {}))
            return self.read(connection)
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        """A question."""
        return self.ask("GET", path)

    def infer(self, root: object, raw: bytes = b"") -> Answer:
        """One inference request; `raw` is the binary data behind the JSON."""
        head = json.dumps(root).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))} if raw else {}
        return self.ask("POST", f"/v2/models/{self.name}/infer", head + raw, headers)

    def send(self, data: bytes) -> bytes:
        """Any bytes at all; what comes back until the server closes or says no more."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as link:
            link.sendall(data)
            link.shutdown(socket.SHUT_WR)
            pieces: list[bytes] = []
            while piece := link.recv(1 << 16):
                pieces.append(piece)
        return b"".join(pieces)

    def wait_until(self, true: Callable[["Client"], bool]) -> None:
        """Until something is so: machines may be slow, never wrong."""
        ends = time.monotonic() + 30
        while not true(self):
            assert time.monotonic() < ends
            time.sleep(0.01)

    def in_flight(self, count: int) -> bool:
        """Whether so many inferences are being served now."""
        return f"tessera_inferences_in_flight {count}\n" in self.get("/metrics").body.decode()

    def refuses(self) -> bool:
        """Whether nobody listens on the port any more."""
        try:
            self.get("/v2/health/live")
        except ConnectionError:
            return True
        return False

    @staticmethod
    def read(connection: http.client.HTTPConnection) -> Answer:
        """The answer that a connection waits for."""
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())


class Running(NamedTuple):
    """A server under way."""

    client: Client
    server: Server
    service: Service


@contextmanager
def serving(bundle: Path, threads: int = 1, **settings: object) -> Generator[Running]:
    """Serve a bundle from this process."""
    metrics = Metrics(families=FAMILIES)
    checked = Settings(str(bundle))._replace(**settings).checked()
    with load(bundle, threads=threads, observers=(metrics,)) as model:
        check_servable(model, checked)
        listener = socket.create_server(("127.0.0.1", 0))
        service = Service(model, checked, metrics)
        server = Server(listener, service)
        acceptor = threading.Thread(target=server.serve_forever, args=(0.01,))
        acceptor.start()
        try:
            yield Running(Client(listener.getsockname()[1], checked.model_name), server, service)
        finally:
            server.shutdown()
            acceptor.join()
            server.server_close()
            assert server.wait_idle(10)


def tensor(name: str, values: Array, datatype: str) -> dict[str, Any]:
    """An input with its numbers in JSON."""
    return {"name": name, "shape": list(values.shape), "datatype": datatype, "data": values.ravel().tolist()}


def binary(name: str, values: Array, datatype: str) -> dict[str, Any]:
    """An input whose bytes follow the JSON."""
    size = {"binary_data_size": values.nbytes}
    return {"name": name, "shape": list(values.shape), "datatype": datatype, "parameters": size}
