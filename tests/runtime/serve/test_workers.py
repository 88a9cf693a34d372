"""The server as a process: ready, several workers, signals, a worker that dies, bundles that cannot be served."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tessera_build.cli.main import main
from tessera_runtime.errors import RunError
from tessera_runtime.serve.__main__ import parser
from tessera_runtime.serve.settings import OPTIONS, Settings
from tests.runtime.sample import SCALE, SHIFT
from tests.runtime.serve.client import Client, binary

ROOT = Path(__file__).parents[3]
X = np.arange(1, 13, dtype=np.float32).reshape(4, 3)


class Process(NamedTuple):
    """A server process, its client, and the lines that it has logged."""

    process: "subprocess.Popen[str]"
    client: Client
    lines: list[dict[str, Any]]

    def events(self, name: str) -> list[dict[str, Any]]:
        """What it has logged of one kind."""
        return [line for line in list(self.lines) if line.get("event") == name]

    def wait_for(self, name: str, count: int) -> None:
        """Until it has logged so many."""
        ends = time.monotonic() + 30
        while len(self.events(name)) < count:
            assert time.monotonic() < ends, self.lines
            time.sleep(0.01)


@contextmanager
def process(bundle: Path, *options: str) -> Generator[Process]:
    """`python -m tessera_runtime.serve`, ready."""
    command = [sys.executable, "-m", "tessera_runtime.serve", str(bundle), "--port", "0", *options]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as started:
        lines: list[dict[str, Any]] = []

        def read() -> None:
            for line in started.stderr or ():
                lines.append(json.loads(line))

        reader = threading.Thread(target=read)
        reader.start()
        found = Process(started, Client(0), lines)
        try:
            found.wait_for("listening", 1)
            found.client.port = found.events("listening")[0]["port"]
            found.wait_for("ready", found.events("listening")[0]["workers"])
            yield found
        finally:
            if started.poll() is None:
                started.terminate()
            started.wait(30)
            reader.join(30)


def is_right(client: Client) -> bool:
    root = {"inputs": [binary("x", X, "FP32")], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}
    return client.infer(root, X.tobytes()).raw() == (X * SCALE + SHIFT).tobytes()


@pytest.mark.unit
def test_server_when_it_gets_sigterm_then_ends_what_is_under_way_and_leaves_with_0(bundle: Path) -> None:
    with process(bundle) as running:
        assert is_right(running.client)
        body = json.dumps({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}).encode()
        line = b"POST /v2/models/model/infer HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
        with socket.create_connection(("127.0.0.1", running.client.port), timeout=10) as link:
            link.sendall(line + body[:20])
            running.client.wait_until(lambda client: client.in_flight(1))
            running.process.send_signal(signal.SIGTERM)
            running.client.wait_until(Client.refuses)
            link.sendall(body[20:])
            answer = link.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"Connection: close" in answer
        assert running.process.wait(10) == 0
    assert len(running.events("stopped")) == 1


@pytest.mark.unit
def test_server_when_a_request_outlasts_the_grace_then_ends_anyway(bundle: Path) -> None:
    with process(bundle, "--grace", "0.2") as running, socket.socket() as link:
        link.connect(("127.0.0.1", running.client.port))
        link.sendall(b"POST /v2/models/model/infer HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
        running.client.wait_until(lambda client: client.in_flight(1))
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(10) == 0


@pytest.mark.unit
def test_workers_when_prefork_then_all_serve_and_their_counters_add_up(bundle: Path) -> None:
    with process(bundle, "--workers", "2", "--threads", "2") as running:
        workers = {event["pid"] for event in running.events("ready")}
        assert len(workers) == 2
        for _ in range(20):
            assert is_right(running.client)
        text = running.client.get("/metrics").body.decode()
        assert 'entry="main",code="OK"} 20\n' in text
        victim = min(workers)
        os.kill(victim, signal.SIGKILL)
        running.wait_for("ready", 3)
        assert [event["pid"] for event in running.events("worker-died")] == [victim]
        for _ in range(20):
            assert is_right(running.client)
        text = running.client.get("/metrics").body.decode()
        assert 'entry="main",code="OK"} 40\n' in text
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0
        for worker in {event["pid"] for event in running.events("ready")}:
            with pytest.raises(ProcessLookupError):
                os.kill(worker, 0)


@pytest.mark.unit
def test_workers_when_the_master_is_killed_then_do_not_outlive_it(bundle: Path) -> None:
    with process(bundle, "--workers", "2") as running:
        workers = {event["pid"] for event in running.events("ready")}
        running.process.kill()
        running.process.wait(10)
        ends = time.monotonic() + 20
        while any(Path(f"/proc/{worker}/cmdline").exists() and is_alive(worker) for worker in workers):
            assert time.monotonic() < ends
            time.sleep(0.05)


@pytest.mark.errors
def test_workers_when_each_new_one_fails_at_once_then_the_server_gives_up(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model.tessera"
    copy.write_bytes(bundle.read_bytes())
    with process(copy, "--workers", "2") as running:
        workers = [event["pid"] for event in running.events("ready")]
        copy.unlink()
        assert is_right(running.client)  # the bundle is mapped, so its name is not needed any more
        os.kill(workers[0], signal.SIGKILL)
        assert running.process.wait(30) == 1
    assert {event["code"] for event in running.events("failed")} == {"BUNDLE_NOT_FOUND"}
    assert not any(is_alive(worker) for worker in workers)


def is_alive(pid: int) -> bool:
    """Whether a process is more than an entry that nobody has collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.errors
def test_server_when_it_cannot_serve_then_leaves_with_the_code_of_the_reason(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.tessera").write_bytes(b"not a bundle")
    taken = socket.create_server(("127.0.0.1", 0))
    cases = (
        ([str(tmp_path / "broken.tessera")], 6),
        ([str(bundle), "--port", "99999"], 8),
        ([str(bundle), "--port", str(taken.getsockname()[1])], 8),
        ([str(bundle), "--port", "0", "--max-batch", "8", "--batch-delay", "0.1"], 8),
        ([str(bundle), "--nonsense"], 2),
    )
    for words, code in cases:
        done = subprocess.run(
            [sys.executable, "-m", "tessera_runtime.serve", *words], cwd=ROOT, capture_output=True, check=False
        )
        assert (done.returncode, b"Traceback" in done.stderr) == (code, False), done.stderr
    taken.close()


@pytest.mark.errors
@pytest.mark.parametrize(
    "changes",
    [
        {"workers": 0},
        {"deadline": 0.0},
        {"deadline": float("nan")},
        {"deadline": float("inf")},
        {"grace": float("inf")},
        {"batch_delay": 1.0},
        {"batch_delay": 1.0, "max_batch": 8, "deadline": 1.0},
        {"name": "a/b"},
        {"name": ""},
    ],
)
def test_settings_when_they_cannot_work_then_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(RunError, match="ARGUMENT"):
        Settings("m.tessera")._replace(**changes).checked()


@pytest.mark.cli
def test_command_when_compared_with_the_runtimes_own_then_has_the_same_options() -> None:
    own = {word for action in parser()._actions for word in action.option_strings} - {"-h", "--help"}
    ours = {word for parameter in main.commands["serve"].params for word in parameter.opts} - {"bundle"}
    assert own == ours == {option.flag for option in OPTIONS}
    assert {option.name for option in OPTIONS} == set(Settings._fields) - {"bundle"}
