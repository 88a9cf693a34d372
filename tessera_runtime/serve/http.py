"""Sockets: connections in, replies out.

Takes: a `Service` and a listening socket. Gives: `Server`, with a thread for each connection.
Invariant: whatever comes in, the connection gets a reply or is closed, and the server goes on; connections, header
lines, bodies and waiting times are bounded.
"""

import contextlib
import io
import logging
import math
import socket
import threading
import time
from collections.abc import Generator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import BaseServer, TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast, final

from tessera_runtime.serve.body import body_bytes, declared_bytes, header_number, read_body
from tessera_runtime.serve.errors import RequestError, code_of, error_body, status_of
from tessera_runtime.serve.service import INFER, REQUEST_SECONDS, REQUESTS, UNKNOWN, Reply, Route, Service

if TYPE_CHECKING:  # the standard library's own stubs alone know it
    from _typeshed import WriteableBuffer

LOGGER: Final = logging.getLogger("tessera_runtime.serve")
_IDLE_SECONDS: Final = 60.0
_BODY_SECONDS: Final = 60.0
# A refused body up to this size is read and dropped, so that the connection can be used again.
_DROPPED_BYTES: Final = 1 << 20
_LINGER_SECONDS: Final = 1.0
_QUIET: Final = frozenset(("live", "ready", "model-ready", "metrics"))


@final
class _Arrivals(io.RawIOBase):
    """What comes in on a connection, until the time is up: a timeout of the socket begins anew with each byte."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._ends = connection, math.inf

    def within(self, seconds: float) -> None:
        """What is read from now on must come within this time."""
        self._ends = time.monotonic() + seconds

    def readable(self) -> bool:
        """What `io` asks for."""
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """What is there, at least one byte before the end."""
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        try:
            self._connection.settimeout(left)
            return self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(_IDLE_SECONDS)  # of the writing side


class Handler(BaseHTTPRequestHandler):
    """One connection: its requests, one after another."""

    protocol_version = "HTTP/1.1"
    server_version = "tessera"
    sys_version = ""
    timeout: ClassVar[float | None] = _IDLE_SECONDS  # pyright: ignore[reportIncompatibleVariableOverride]
    disable_nagle_algorithm = True
    _linger = False

    def setup(self) -> None:
        """The connection begins."""
        super().setup()
        self.rfile.close()
        self._arrivals = _Arrivals(self.connection)
        self.rfile = io.BufferedReader(self._arrivals)

    def handle_one_request(self) -> None:
        """The next request, whose line and headers must be here within the time that a connection may do nothing."""
        self._arrivals.within(_IDLE_SECONDS)
        super().handle_one_request()

    def do_GET(self) -> None:
        """Answer a question."""
        self._answer()

    def do_HEAD(self) -> None:
        """Answer a question without the body."""
        self._answer()

    def do_POST(self) -> None:
        """Answer an inference request."""
        self._answer()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class refuses by itself, as JSON instead of HTML."""
        self.close_connection = self._linger = True
        error = RequestError(code, "HTTP", message or explain or "the request is not HTTP")
        # A request line that was not understood left no method.
        self.command = getattr(self, "command", None) or "GET"
        self._account(UNKNOWN, code, time.monotonic(), error)
        self._send(Reply(code, error_body(error)))

    def finish(self) -> None:
        """End the connection; what is still coming in is read for a moment, or the reset would overtake the reply."""
        if self._linger:
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_WR)
                ends = time.monotonic() + _LINGER_SECONDS
                self.connection.settimeout(_LINGER_SECONDS)
                while time.monotonic() < ends and self.connection.recv(_DROPPED_BYTES):
                    pass
        super().finish()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        """Lines of the base class; requests are logged by `_account`."""
        LOGGER.debug(format, *args)

    def _answer(self) -> None:
        began, route, failure = time.monotonic(), UNKNOWN, None
        service = self._service
        self._arrivals.within(_BODY_SECONDS)
        with self._server.busy():
            self._unread = True
            try:
                route = service.route(self.path)
                reply = self._reply(service, route, began)
            except (ConnectionError, TimeoutError):
                self.close_connection = True
                return
            except Exception as error:
                failure = error
                reply = Reply(status_of(error), error_body(error), headers=_headers_of(error, route))
                self._leave_body()
            if service.draining:
                self.close_connection = True
            # Counted before it is sent: who has the answer finds it in the counters.
            self._account(route, reply.status, began, failure)
            self._send(reply)

    def _reply(self, service: Service, route: Route, began: float) -> Reply:
        if route is UNKNOWN:
            raise RequestError(404, "PATH_UNKNOWN", "there is nothing at this path", found=self.path[:200])
        if self.command not in route.methods:
            wanted = " or ".join(route.methods)
            raise RequestError(405, "METHOD", "this path has another method", expected=wanted, found=self.command)
        if route is not INFER:
            self._leave_body()
            return service.show(route)
        with service.slot():
            body = self._body(service.settings.max_request_bytes)
            json_bytes = header_number(self.headers, "Inference-Header-Content-Length")
            return service.infer(body, json_bytes, began + service.settings.deadline)

    def _body(self, limit: int) -> memoryview:
        """The body. When it breaks off, nobody knows where the next request begins."""
        size = body_bytes(self.headers, limit)
        self._unread = False
        try:
            return read_body(self.rfile, size, limit)
        except RequestError:
            self.close_connection = self._linger = True
            raise

    def _leave_body(self) -> None:
        """Drop a body that nobody will read, or close the connection when that would take long."""
        if not self._unread:
            return
        self._unread = False
        if self.command != "POST" and not {"Content-Length", "Transfer-Encoding"} & set(self.headers):
            return
        try:
            size = declared_bytes(self.headers)
            if size is not None and size <= _DROPPED_BYTES:
                self.rfile.read(size)
                return
        except (RequestError, OSError):
            pass
        self.close_connection = self._linger = True

    def _send(self, reply: Reply) -> None:
        """Headers and body in one piece, so that no packet waits for another."""
        fields = [
            ("Date", self.date_time_string()),
            ("Content-Type", reply.content_type),
            ("Content-Length", str(len(reply.body))),
            *reply.headers,
        ]
        if self.close_connection:
            fields.append(("Connection", "close"))
        lines = [
            f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}",
            *(f"{name}: {text}" for name, text in fields),
        ]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        with contextlib.suppress(OSError):
            self.wfile.write(head if self.command == "HEAD" else head + reply.body)

    def _account(self, route: Route, status: int, began: float, failure: BaseException | None) -> None:
        seconds, metrics = time.monotonic() - began, self._service.metrics
        metrics.add(REQUESTS, (("route", route.name), ("status", str(status))))
        metrics.observe(REQUEST_SECONDS, (("route", route.name),), seconds)
        unexpected = failure is not None and status == 500
        level = logging.ERROR if unexpected else logging.DEBUG if route.name in _QUIET else logging.INFO
        if LOGGER.isEnabledFor(level):
            facts = {
                "event": "request",
                "method": self.command,
                "route": route.name,
                "status": status,
                "duration_ms": round(seconds * 1e3, 3),
                "code": "OK" if failure is None else code_of(failure),
            }
            LOGGER.log(level, "%s %s", route.name, status, extra=facts, exc_info=failure if unexpected else None)

    @property
    def _server(self) -> "Server":
        return cast("Server", self.server)

    @property
    def _service(self) -> Service:
        return self._server.service


@final
class Server(ThreadingMixIn, TCPServer):
    """Accepts connections until `shutdown`; `busy` counts the requests that are being answered."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, listener: socket.socket, service: Service) -> None:
        BaseServer.__init__(self, listener.getsockname(), Handler)
        # Not blocking: with several workers, another may take the connection that woke this one.
        listener.setblocking(False)
        self.socket = listener
        self.service: Final = service
        self._connections = threading.Semaphore(service.settings.max_connections)
        self._idle = threading.Condition()
        self._busy = 0

    @contextlib.contextmanager
    def busy(self) -> Generator[None]:
        """While a request is being answered."""
        with self._idle:
            self._busy += 1
        try:
            yield
        finally:
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()

    def wait_idle(self, seconds: float) -> bool:
        """Whether all requests were answered within this time."""
        with self._idle:
            return self._idle.wait_for(lambda: self._busy == 0, seconds)

    def accept_waiting(self) -> None:
        """Take the connections that wait in the system's queue: closing the socket would reset them without a word."""
        while True:
            try:
                request, client_address = self.get_request()
            except OSError:
                return
            self.process_request(request, client_address)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  the base class's types
        """Serve a connection in a thread of its own, or refuse it when there are too many."""
        if not self._connections.acquire(blocking=False):
            with contextlib.suppress(OSError):
                request.settimeout(1.0)
                request.sendall(_TOO_MANY)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self._connections.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """The life of one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401, ARG002
        """A connection that broke: callers come and go."""
        LOGGER.debug("a connection ended early", exc_info=True)


def _headers_of(error: BaseException, route: Route) -> tuple[tuple[str, str], ...]:
    status = status_of(error)
    if status == 405:
        return (("Allow", ", ".join(route.methods)),)
    return (("Retry-After", "1"),) if status == 503 else ()


_BUSY_BODY: Final = error_body(RequestError(503, "BUSY", "too many connections are open"))
_TOO_MANY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\nRetry-After: 1\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_BUSY_BODY), _BUSY_BODY)
)
