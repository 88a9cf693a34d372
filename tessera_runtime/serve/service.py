"""What the server answers, without sockets.

Takes: a method, a path and a body. Gives: `Reply`: status, headers, body.
Invariant: re-entrant; the number of inferences at once, their rows and their time are bounded by the settings.
"""

import contextlib
import json
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Final, NamedTuple, final
from urllib.parse import unquote

from tessera_runtime import metrics as metric
from tessera_runtime.arrays import Array
from tessera_runtime.errors import RunError
from tessera_runtime.limits import CancelHandle
from tessera_runtime.metrics import Family, Metrics
from tessera_runtime.model import Model
from tessera_runtime.serve.batching import Batcher, check_rows, leading_dim
from tessera_runtime.serve.errors import RequestError, malformed
from tessera_runtime.serve.protocol import InferRequest, Signature, parse_infer, render_answer, tensor_metadata
from tessera_runtime.serve.settings import Settings

REQUESTS: Final = Family("tessera_http_requests_total", "counter", "Requests by route and status.")
REQUEST_SECONDS: Final = Family("tessera_http_request_seconds", "histogram", "How long requests took, by route.")
IN_FLIGHT: Final = Family("tessera_inferences_in_flight", "gauge", "Inference requests being served now.")
BATCHES: Final = Family("tessera_combined_requests_total", "counter", "Inference requests that went to the batcher.")
FAMILIES: Final = (REQUESTS, REQUEST_SECONDS, IN_FLIGHT, BATCHES)
JSON: Final = "application/json"


class Reply(NamedTuple):
    """An answer to be sent."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


class Route(NamedTuple):
    """Where a path leads. `name` is one of few words, for counters and logs."""

    name: str
    methods: tuple[str, ...]


_GET: Final = ("GET", "HEAD")
UNKNOWN: Final = Route("unknown", ())
INFER: Final = Route("infer", ("POST",))
_TOP: Final[Mapping[tuple[str, ...], Route]] = {
    ("v2",): Route("server", _GET),
    ("v2", "health", "live"): Route("live", _GET),
    ("v2", "health", "ready"): Route("ready", _GET),
    ("metrics",): Route("metrics", _GET),
}
_OF_MODEL: Final[Mapping[tuple[str, ...], Route]] = {
    (): Route("model", _GET),
    ("ready",): Route("model-ready", _GET),
    ("infer",): INFER,
}


@final
class Service:
    """One model behind the protocol."""

    def __init__(self, model: Model, settings: Settings, metrics: Metrics, others: Sequence[memoryview] = ()) -> None:
        self.entry: Final = model.main
        self.settings: Final = settings
        self.metrics: Final = metrics
        self._others = others
        self._signature = Signature(self.entry.inputs, self.entry.outputs)
        self._slots = threading.Semaphore(settings.max_concurrent)
        self._cancel = CancelHandle()
        self._leading = leading_dim(self.entry)
        self._batcher = self._make_batcher()
        self.draining = False
        metrics.clear(IN_FLIGHT, ())

    def route(self, path: str) -> Route:
        """Where a path leads; a `RequestError` where it names another model than ours."""
        steps = tuple(unquote(step) for step in path.partition("?")[0].strip("/").split("/"))
        known = _TOP.get(steps)
        if known is not None:
            return known
        if steps[:2] != ("v2", "models") or len(steps) < 3:
            return UNKNOWN
        if steps[2] != self.settings.model_name:
            raise RequestError(404, "MODEL_UNKNOWN", "there is no such model", expected=self.settings.model_name)
        rest = steps[3:]
        if rest[:1] == ("versions",) and len(rest) > 1:
            if rest[1] != self.settings.version:
                raise RequestError(404, "VERSION_UNKNOWN", "there is no such version", expected=self.settings.version)
            rest = rest[2:]
        return _OF_MODEL.get(rest, UNKNOWN)

    def show(self, route: Route) -> Reply:
        """Answer a question that needs no body."""
        ready = not self.draining
        answers: dict[str, object] = {
            "server": self._server_metadata(),
            "live": {"live": True},
            "ready": {"ready": ready},
            "model": self._model_metadata(),
            "model-ready": {"name": self.settings.model_name, "ready": ready},
        }
        if route.name == "metrics":
            return Reply(200, self.metrics.text(self._others).encode(), metric.CONTENT_TYPE)
        status = 503 if route.name in ("ready", "model-ready") and not ready else 200
        return Reply(status, json.dumps(answers[route.name]).encode())

    @contextlib.contextmanager
    def slot(self) -> Generator[None]:
        """Room for one inference; a `RequestError` when there is none."""
        if self.draining:
            raise RequestError(503, "SHUTTING_DOWN", "the server is shutting down")
        if not self._slots.acquire(blocking=False):
            limit = f"at most {self.settings.max_concurrent} at once"
            raise RequestError(503, "BUSY", "too many requests are being served", expected=limit)
        self.metrics.add(IN_FLIGHT, ())
        try:
            yield
        finally:
            self.metrics.add(IN_FLIGHT, (), -1)
            self._slots.release()

    def infer(self, body: memoryview, json_bytes: int | None, due: float) -> Reply:
        """Answer one inference request before `due`, a time of `time.monotonic`."""
        request = parse_infer(body, json_bytes, self._signature)
        self._check_rows(request)
        answer = render_answer(request, self._run(request.feeds, due), self.settings.model_name, self.settings.version)
        if answer.json_bytes is None:
            return Reply(200, answer.body)
        headers = (("Inference-Header-Content-Length", str(answer.json_bytes)),)
        return Reply(200, answer.body, "application/octet-stream", headers)

    def cancel(self) -> None:
        """End all runs: the time to wait for them is over."""
        self._cancel.cancel()

    def _run(self, feeds: Mapping[str, Array], due: float) -> Mapping[str, Array]:
        if self._batcher is None:
            return self.entry.run(feeds, timeout=due - time.monotonic(), cancel=self._cancel)
        self.metrics.add(BATCHES, ())
        return self._batcher.run(feeds, due)

    def _check_rows(self, request: InferRequest) -> None:
        limit = self.settings.max_batch
        if limit is None or self._leading is None:
            return
        for name, array in request.feeds.items():
            if array.shape and array.shape[0] > limit:
                raise malformed(
                    "the request has more rows than one may have",
                    where=name,
                    expected=f"at most {limit}",
                    found=array.shape[0],
                )

    def _make_batcher(self) -> Batcher | None:
        settings, leading = self.settings, self._leading
        if settings.batch_delay <= 0 or settings.max_batch is None or leading is None:
            return None
        rows = settings.max_batch if leading.max is None else min(settings.max_batch, leading.max)
        return Batcher(self.entry, rows, settings.batch_delay, self._cancel)

    def _server_metadata(self) -> object:
        return {"name": "tessera", "version": _own_version(), "extensions": ["binary_tensor_data"]}

    def _model_metadata(self) -> object:
        return {
            "name": self.settings.model_name,
            "versions": [self.settings.version],
            "platform": "tessera_bundle",
            "inputs": tensor_metadata(self._signature.inputs),
            "outputs": tensor_metadata(self._signature.outputs),
        }


def check_servable(model: Model, settings: Settings) -> None:
    """Refuse, before a socket is opened, what this server could not serve soundly."""
    entry = model.main
    if entry.states:
        raise RunError("STATE_UNSUPPORTED", "the model keeps a state from run to run, which this protocol cannot carry")
    leading = leading_dim(entry)
    if settings.max_batch is not None and leading is None:
        raise RunError(
            "BATCHING_UNSOUND",
            "--max-batch means nothing here: the model's inputs and outputs do not share one dynamic leading dimension",
            hint="serve it without --max-batch and --batch-delay, or build it with a dynamic batch",
        )
    if settings.batch_delay > 0 and leading is not None:
        check_rows(entry, leading)


def _own_version() -> str:
    try:
        return version("tessera-runtime")
    except PackageNotFoundError:  # run from a source tree
        return "unknown"
