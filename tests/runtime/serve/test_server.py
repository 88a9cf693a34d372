"""The server as a client sees it: every path, both kinds of data, every refusal, its limits and its counters."""

import http.client
import json
import socket
import threading
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest

from tessera_runtime import RunError
from tests.runtime.sample import SCALE, SHIFT
from tests.runtime.serve.client import Client, Running, binary, serving, tensor

X = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
Y = X * SCALE + SHIFT


@pytest.fixture(scope="module")
def running(bundle: Path) -> Generator[Running]:
    with serving(bundle, max_request_bytes=100_000) as found:
        yield found


@pytest.fixture
def client(running: Running) -> Client:
    return running.client


@pytest.mark.unit
def test_paths_when_asked_then_answer_as_the_protocol_says(client: Client) -> None:
    server = client.get("/v2").json()
    assert (server["name"], server["extensions"]) == ("tessera", ["binary_tensor_data"])
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/model", "/v2/models/model/versions/1", "/v2/models/m%6fdel/"):
        assert client.get(path).json() == {
            "name": "model",
            "versions": ["1"],
            "platform": "tessera_bundle",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
            "outputs": [
                {"name": "y", "datatype": "FP32", "shape": [-1, 3]},
                {"name": "last", "datatype": "INT64", "shape": [1]},
            ],
        }
    for path in ("/v2/models/model/ready", "/v2/models/model/versions/1/ready"):
        assert client.get(path).json() == {"name": "model", "ready": True}
    head = client.ask("HEAD", "/v2/health/live")
    assert (head.status, head.headers["Content-Length"], head.body) == (200, "14", b"")


@pytest.mark.numerics
def test_infer_when_sent_as_json_then_equals_numpy(client: Client) -> None:
    answer = client.infer({"id": "a", "inputs": [tensor("x", X, "FP32")]})
    found = answer.json()
    assert (answer.status, found["model_name"], found["model_version"], found["id"]) == (200, "model", "1", "a")
    y, last = found["outputs"]
    assert (y["name"], y["shape"], last["data"]) == ("y", [4, 3], [4])
    np.testing.assert_array_equal(np.array(y["data"], np.float32).reshape(4, 3), Y)


@pytest.mark.numerics
def test_infer_when_sent_as_bytes_then_has_the_same_bytes(client: Client) -> None:
    root = {"inputs": [binary("x", X, "FP32")], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}
    answer = client.infer(root, X.tobytes())
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert [output["name"] for output in answer.json()["outputs"]] == ["y"]
    assert answer.raw() == Y.tobytes()
    mixed = {"inputs": [binary("x", X, "FP32")], "outputs": [{"name": "last"}, root["outputs"][0]]}
    answer = client.infer(mixed, X.tobytes())
    assert answer.json()["outputs"][0]["data"] == [4]
    assert answer.raw() == Y.tobytes()


@pytest.mark.numerics
def test_infer_when_the_body_is_chunked_then_is_the_same(client: Client) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)
    pieces = [json.dumps({"inputs": [tensor("x", X, "FP32")]}).encode()[start::1][:50] for start in range(0, 400, 50)]
    connection.request("POST", "/v2/models/model/infer", iter(pieces), encode_chunked=True)
    answer = client.read(connection)
    assert answer.status == 200
    connection.close()


@pytest.mark.unit
def test_connection_when_kept_then_serves_request_after_request_even_after_errors(client: Client) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)
    body = json.dumps({"inputs": [tensor("x", X, "FP32")]}).encode()
    for path, status in (("infer", 200), ("nothing", 404), ("infer", 200), ("ready", 405), ("infer", 200)):
        connection.request("POST", f"/v2/models/model/{path}", body)
        local = connection.sock.getsockname() if connection.sock else None
        assert client.read(connection).status == status
        assert connection.sock is not None
        assert connection.sock.getsockname() == local
    connection.close()


REFUSED: list[tuple[str, str, bytes | None, dict[str, str], int, str]] = [
    ("GET", "/", None, {}, 404, "PATH_UNKNOWN"),
    ("GET", "/v2/models", None, {}, 404, "PATH_UNKNOWN"),
    ("GET", "/v2/models/other", None, {}, 404, "MODEL_UNKNOWN"),
    ("POST", "/v2/models/other/infer", b"{}", {}, 404, "MODEL_UNKNOWN"),
    ("GET", "/v2/models/model/versions/2", None, {}, 404, "VERSION_UNKNOWN"),
    ("GET", "/v2/models/model/infer", None, {}, 405, "METHOD"),
    ("POST", "/v2", b"{}", {}, 405, "METHOD"),
    ("PUT", "/v2", b"{}", {}, 501, "HTTP"),
    ("POST", "/v2/models/model/infer", b"{}", {}, 400, "REQUEST_MALFORMED"),
    ("POST", "/v2/models/model/infer", b"x" * 100_001, {}, 413, "BODY_TOO_LARGE"),
    ("POST", "/v2/models/model/infer", b"{}", {"Content-Encoding": "gzip"}, 415, "CODING_UNSUPPORTED"),
    ("POST", "/v2/models/model/infer", b"{}", {"Inference-Header-Content-Length": "-1"}, 400, "REQUEST_MALFORMED"),
    ("POST", "/v2/models/model/infer", b"{}", {"Inference-Header-Content-Length": "9"}, 400, "REQUEST_MALFORMED"),
    ("POST", "/v2/models/model/infer", b"{}", {"Transfer-Encoding": "gzip, chunked"}, 400, "LENGTH_UNCLEAR"),
]


@pytest.mark.errors
@pytest.mark.parametrize(("method", "path", "body", "headers", "status", "code"), REFUSED)
def test_request_when_wrong_then_has_a_status_and_says_why(
    client: Client, method: str, path: str, body: bytes | None, headers: dict[str, str], status: int, code: str
) -> None:
    answer = client.ask(method, path, body, headers)
    found = answer.json()
    assert (answer.status, found["code"]) == (status, code)
    assert isinstance(found["error"], str)
    assert answer.headers["Content-Type"] == "application/json"
    if status == 405:
        assert answer.headers["Allow"] in ("POST", "GET, HEAD")


@pytest.mark.errors
def test_body_when_far_too_large_then_the_client_reads_why(client: Client) -> None:
    for _ in range(10):
        answer = client.ask("POST", "/v2/models/model/infer", bytes(8 << 20))
        assert (answer.status, answer.json()["code"]) == (413, "BODY_TOO_LARGE")


@pytest.mark.errors
def test_length_when_missing_or_unclear_then_is_refused(client: Client) -> None:
    line = b"POST /v2/models/model/infer HTTP/1.1\r\nHost: x\r\n"
    assert client.send(line + b"\r\n{}").startswith(b"HTTP/1.1 411 ")
    for lengths in (
        b"Content-Length: 2\r\nContent-Length: 3\r\n",
        b"Content-Length: +2\r\n",
        b"Content-Length: -2\r\n",
    ):
        assert client.send(line + lengths + b"\r\n{}").startswith(b"HTTP/1.1 400 ")
    assert client.send(line + b"Content-Length: 9\r\n\r\n{}").startswith(b"HTTP/1.1 400 ")
    both = b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    assert client.send(line + both).startswith(b"HTTP/1.1 400 ")


@pytest.mark.errors
@pytest.mark.parametrize(
    ("values", "code"),
    [
        (X[:, :2], "INPUT_SHAPE"),
        (X[0], "INPUT_RANK"),
        (X[:0], "DIM_RANGE"),
        (np.ones((1001, 3), np.float32), "GUARD_FAILED"),
        (-np.ones((1, 3), np.float32), "INDEX_OUT_OF_RANGE"),
    ],
)
def test_values_when_the_model_refuses_them_then_the_answer_is_400_with_its_words(
    client: Client, values: np.ndarray, code: str
) -> None:
    answer = client.infer({"inputs": [tensor("x", values, "FP32")]})
    assert (answer.status, answer.json()["code"]) == (400, code)


@pytest.mark.errors
def test_batch_limit_when_the_model_has_no_leading_dimension_then_is_refused(bundle: Path) -> None:
    with pytest.raises(RunError, match="BATCHING_UNSOUND"), serving(bundle, max_batch=3):
        pass


@pytest.mark.unit
def test_deadline_when_it_passes_then_the_answer_is_504(bundle: Path) -> None:
    with serving(bundle, deadline=1e-6) as running:
        answer = running.client.infer({"inputs": [tensor("x", X, "FP32")]})
        assert (answer.status, answer.json()["code"]) == (504, "DEADLINE_EXCEEDED")
        assert running.client.get("/v2/health/ready").status == 200


@pytest.mark.unit
def test_inferences_when_too_many_at_once_then_the_rest_get_503_and_are_served_later(bundle: Path) -> None:
    with serving(bundle, max_concurrent=1) as running:
        client = running.client
        body = json.dumps({"inputs": [tensor("x", X, "FP32")]}).encode()
        line = b"POST /v2/models/model/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        with socket.create_connection(("127.0.0.1", client.port), timeout=10) as slow:
            slow.sendall(line + body[:10])
            client.wait_until(lambda client: client.in_flight(1))
            refused = client.ask("POST", "/v2/models/model/infer", body)
            assert (refused.status, refused.json()["code"], refused.headers["Retry-After"]) == (503, "BUSY", "1")
            assert client.get("/v2/health/live").status == 200
            slow.sendall(body[10:])
            assert slow.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        assert client.ask("POST", "/v2/models/model/infer", body).status == 200


@pytest.mark.unit
def test_connections_when_too_many_then_the_rest_get_503(bundle: Path) -> None:
    with serving(bundle, max_connections=2) as running:
        port = running.client.port
        held = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(2)]
        assert running.client.send(b"").startswith(b"HTTP/1.1 503 ")
        for link in held:
            link.close()
        running.client.wait_until(lambda client: client.get("/v2/health/live").status == 200)


@pytest.mark.unit
def test_server_when_draining_then_is_not_ready_and_refuses_inferences(bundle: Path) -> None:
    with serving(bundle) as running:
        running.service.draining = True
        ready = running.client.get("/v2/health/ready")
        assert (ready.status, ready.json(), ready.headers["Connection"]) == (503, {"ready": False}, "close")
        assert running.client.get("/v2/health/live").status == 200
        answer = running.client.infer({"inputs": [tensor("x", X, "FP32")]})
        assert (answer.status, answer.json()["code"]) == (503, "SHUTTING_DOWN")


@pytest.mark.numerics
def test_infer_when_many_clients_ask_at_once_then_each_gets_its_own_answer(running: Running) -> None:
    wrong: list[object] = []

    def ask(seed: int) -> None:
        for count in range(1, 20):
            x = np.full((count % 5 + 1, 3), seed * 100 + count, np.float32)
            answer = running.client.infer({"inputs": [binary("x", x, "FP32")], "parameters": WANT_BYTES}, x.tobytes())
            expected = (x * SCALE + SHIFT).tobytes() + np.int64(len(x)).tobytes()
            if answer.status != 200 or answer.raw() != expected:
                wrong.append(answer)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


WANT_BYTES = {"binary_data_output": True}


@pytest.mark.unit
def test_metrics_when_scraped_then_count_requests_and_runs(bundle: Path) -> None:
    with serving(bundle) as running:
        client = running.client
        for values in (X, X, X[:, :2]):
            client.infer({"inputs": [tensor("x", values, "FP32")]})
        answer = client.get("/metrics")
    text = answer.body.decode()
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert 'tessera_http_requests_total{route="infer",status="200"} 2\n' in text
    assert 'tessera_http_requests_total{route="infer",status="400"} 1\n' in text
    assert 'entry="main",code="OK"} 2\n' in text
    assert 'entry="main",code="INPUT_SHAPE"} 1\n' in text
    assert "tessera_inferences_in_flight 0\n" in text


@pytest.mark.errors
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_request_when_our_own_code_fails_then_is_500_without_details_and_the_server_goes_on(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret")

    with serving(bundle) as running:
        monkeypatch.setattr("tessera_runtime.serve.service.parse_infer", fail)
        answer = running.client.infer({})
        assert (answer.status, answer.json()["code"]) == (500, "INTERNAL")
        assert b"secret" not in answer.body
        monkeypatch.undo()
        assert running.client.infer({"inputs": [tensor("x", X, "FP32")]}).status == 200
