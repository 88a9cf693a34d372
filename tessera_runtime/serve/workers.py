"""The life of the server: one process, or several that accept from one socket.

Takes: settings. Gives: the exit code of the process, after SIGTERM or SIGINT.
Invariant: a signal ends the server in order: no new connections, the answers under way, then the end; a worker that
dies is replaced, and workers do not outlive the process that made them.
"""

import contextlib
import ctypes
import logging
import mmap
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType
from typing import Final, NamedTuple

from bundle_format.errors import TesseraError
from tessera_runtime.cpu.machine import default_threads
from tessera_runtime.errors import RunError
from tessera_runtime.loader import load
from tessera_runtime.logs import JsonFormatter, Logs
from tessera_runtime.metrics import BUFFER_BYTES, Metrics
from tessera_runtime.serve.http import LOGGER, Server
from tessera_runtime.serve.service import FAMILIES, Service, check_servable
from tessera_runtime.serve.settings import Settings

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_PARENT_DEATH_SIGNAL: Final = 1  # PR_SET_PDEATHSIG
# A worker that dies sooner has a cause that a new one will meet as well.
_SHORT_LIFE_SECONDS: Final = 2.0
_MAX_SHORT_LIVES: Final = 5


class Buffers(NamedTuple):
    """Where the counters of this process lie, and those of the other workers."""

    own: memoryview
    others: tuple[memoryview, ...] = ()


def serve(settings: Settings) -> int:
    """Serve until a signal; the exit code. Errors of the settings, the bundle and the socket are raised."""
    settings = settings.checked()
    _log_to_stderr(settings.log_level)
    with load(settings.bundle, threads=1) as model:  # one thread: nothing that a fork would leave behind
        check_servable(model, settings)
        digest = str(model.identity)
    listener = _listen(settings.host, settings.port)
    host, port = listener.getsockname()[:2]
    facts = {
        "event": "listening",
        "host": host,
        "port": port,
        "model": settings.model_name,
        "model_digest": digest,
        "workers": settings.workers,
    }
    LOGGER.info("listening on http://%s:%s", host, port, extra=facts)
    if settings.workers == 1:
        return _work(settings, listener, Buffers(memoryview(bytearray(BUFFER_BYTES))))
    return _Master(settings, listener).run()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        where = f"{host}:{port}"
        raise RunError("SOCKET", "the server cannot listen there", where=where, found=str(error)) from error
    listener.set_inheritable(False)
    return listener


def _work(settings: Settings, listener: socket.socket, buffers: Buffers) -> int:
    """Serve in this process."""
    signals = _watch_signals()
    metrics = Metrics(buffers.own, FAMILIES)
    threads = settings.threads or max(1, default_threads() // settings.workers)
    with load(settings.bundle, threads=threads, observers=(metrics, Logs())) as model:
        service = Service(model, settings, metrics, buffers.others)
        server = Server(listener, service)
        acceptor = threading.Thread(target=server.serve_forever, args=(0.1,), name="tessera-accept", daemon=True)
        acceptor.start()
        LOGGER.info("ready", extra={"event": "ready", "pid": os.getpid(), "threads": threads})
        os.read(signals, 1)
        _drain(server, service, settings.grace)
    return 0


def _watch_signals(*more: signal.Signals) -> int:
    """A descriptor that has the number of each signal that came. A handler that sets an event could meet the waiting
    thread while it holds the event's lock; and a library's thread may get the signal, which wakes nobody else.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (*_SIGNALS, *more):
        signal.signal(number, _ignore)
    return reader


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """The byte in the pipe says it all."""


def _drain(server: Server, service: Service, grace: float) -> None:
    """End in order: accept nothing, finish what is under way, cancel what takes too long."""
    service.draining = True
    server.shutdown()
    server.accept_waiting()
    server.server_close()
    if not server.wait_idle(grace):
        service.cancel()
        server.wait_idle(1.0)
    LOGGER.info("stopped", extra={"event": "stopped", "pid": os.getpid()})


class _Master:
    """Makes the workers, replaces those that die, passes signals on."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._settings, self._listener = settings, listener
        shared = memoryview(mmap.mmap(-1, settings.workers * BUFFER_BYTES))
        size = BUFFER_BYTES
        self._buffers = [shared[index * size : (index + 1) * size] for index in range(settings.workers)]
        self._workers: dict[int, tuple[int, float]] = {}
        self._stopping = False
        self._short_lives = 0

    def run(self) -> int:
        """Until a signal came and all workers have ended."""
        signals = _watch_signals(signal.SIGCHLD)
        for index in range(self._settings.workers):
            self._start(index)
        while self._workers:
            if set(os.read(signals, 4096)) & set(_SIGNALS):
                self._stop()
            for pid in tuple(self._workers):
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    self._bury(pid, status)
        return 1 if self._short_lives >= _MAX_SHORT_LIVES else 0

    def _start(self, index: int) -> None:
        # A signal that comes before the child has handlers of its own must wait for them.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        master, pid = os.getpid(), os.fork()
        if pid == 0:
            self._become_worker(index, master)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        self._workers[pid] = (index, time.monotonic())

    def _become_worker(self, index: int, master: int) -> None:
        code = 1
        try:
            ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, int(signal.SIGTERM), 0, 0, 0)
            signal.set_wakeup_fd(-1)  # the pipe is the master's
            for number in (*_SIGNALS, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            if os.getppid() == master:
                others = tuple(buffer for place, buffer in enumerate(self._buffers) if place != index)
                code = _work(self._settings, self._listener, Buffers(self._buffers[index], others))
        except TesseraError as error:
            LOGGER.error(error.message, extra={"event": "failed", "code": error.code})
        except BaseException:
            LOGGER.exception("a worker failed", extra={"event": "failed"})
        finally:
            logging.shutdown()
            os._exit(code)  # never back into the master's code

    def _bury(self, pid: int, status: int) -> None:
        index, born = self._workers.pop(pid)
        if self._stopping:
            return
        code = os.waitstatus_to_exitcode(status)
        LOGGER.error("a worker died", extra={"event": "worker-died", "pid": pid, "exit_code": code})
        short = time.monotonic() - born < _SHORT_LIFE_SECONDS
        self._short_lives = self._short_lives + 1 if short else 0
        if self._short_lives >= _MAX_SHORT_LIVES:
            self._stop()
        else:
            time.sleep(0.1 * self._short_lives)
            self._start(index)

    def _stop(self) -> None:
        self._stopping = True
        for pid in tuple(self._workers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("tessera_runtime")
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False
