"""What the server may be told.

Takes: values of the command line. Gives: `Settings`, checked.
Invariant: a value that cannot work is refused here, before a socket is opened.
"""

import math
import os
from typing import Final, NamedTuple

from tessera_runtime.errors import RunError

MAX_WORKERS: Final = 256
_LONGEST_SECONDS: Final = 1e9  # no lock waits for an infinite time
LOG_LEVELS: Final = ("debug", "info", "warning", "error")


class Settings(NamedTuple):
    """Times are in seconds. `max_batch` None: requests of any number of rows; `batch_delay` 0: none are combined."""

    bundle: str
    host: str = "127.0.0.1"
    port: int = 8000
    name: str | None = None
    version: str = "1"
    threads: int | None = None
    workers: int = 1
    max_batch: int | None = None
    batch_delay: float = 0.0
    max_request_bytes: int = 64 << 20
    max_concurrent: int = 64
    max_connections: int = 512
    deadline: float = 60.0
    grace: float = 30.0
    log_level: str = "info"

    @property
    def model_name(self) -> str:
        """The name under which the model is served: by default that of its file."""
        if self.name is not None:
            return self.name
        return os.path.basename(self.bundle.rstrip("/")).removesuffix(".tessera")  # noqa: PTH119  no pathlib needed

    def checked(self) -> "Settings":
        """The same settings, or a `RunError` that says which cannot work."""
        ranges = (
            ("port", self.port, 0, 65535),
            ("workers", self.workers, 1, MAX_WORKERS),
            ("max-batch", 1 if self.max_batch is None else self.max_batch, 1, math.inf),
            ("batch-delay", self.batch_delay, 0, 60),
            ("max-request-bytes", self.max_request_bytes, 1, math.inf),
            ("max-concurrent", self.max_concurrent, 1, 1 << 16),
            ("max-connections", self.max_connections, 1, 1 << 16),
            ("deadline", self.deadline, 1e-6, _LONGEST_SECONDS),
            ("grace", self.grace, 0, _LONGEST_SECONDS),
        )
        for name, value, low, high in ranges:
            if not low <= value <= high:
                raise _refused(name, f"{low} to {high}" if high != math.inf else f"{low} or more", str(value))
        if self.batch_delay > 0 and (self.max_batch is None or self.max_batch < 2):
            raise _refused("batch-delay", "--max-batch of 2 or more beside it", str(self.max_batch))
        if self.batch_delay >= self.deadline:
            raise _refused("batch-delay", f"less than --deadline, which is {self.deadline:g}", str(self.batch_delay))
        if not self.model_name or "/" in self.model_name:
            raise _refused("name", "a name without slashes", repr(self.model_name))
        return self


class Option(NamedTuple):
    """An option of the command line and the setting that it fills."""

    name: str
    kind: type[str] | type[int] | type[float]
    help: str

    @property
    def flag(self) -> str:
        """How it is written."""
        return "--" + self.name.replace("_", "-")

    @property
    def default(self) -> str | int | float | None:
        """What it is when it is not given."""
        return Settings._field_defaults[self.name]


OPTIONS: Final = (
    Option("host", str, "The address to listen on; 0.0.0.0 for all."),
    Option("port", int, "The port to listen on; 0 takes a free one."),
    Option("name", str, "The model's name in paths; by default that of the file."),
    Option("version", str, "The model's version in paths."),
    Option("threads", int, "Threads of one worker; by default the CPUs of the process, divided among the workers."),
    Option("workers", int, "Processes that accept connections."),
    Option("max_batch", int, "The most rows (leading dimension) of a request, and of requests that are combined."),
    Option("batch_delay", float, "Seconds for which a request may wait for others, to be run together; 0: never."),
    Option("max_request_bytes", int, "The largest body of a request."),
    Option("max_concurrent", int, "Inference requests at once in one worker; further ones get 503."),
    Option("max_connections", int, "Open connections of one worker; further ones get 503."),
    Option("deadline", float, "Seconds after which a request is given up with 504."),
    Option("grace", float, "Seconds for requests under way to finish after SIGTERM."),
    Option("log_level", str, "The least severe messages to log: " + ", ".join(LOG_LEVELS) + "."),
)


def _refused(option: str, expected: str, found: str) -> RunError:
    message = f"the value of --{option} cannot work"
    return RunError("ARGUMENT", message, where=f"--{option}", expected=expected, found=found)
