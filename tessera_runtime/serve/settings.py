"""What the server may be told.

Takes: values of the command line. Gives: `Settings`, checked.
Invariant: a value that cannot work is refused here, before a socket is opened.
"""

import math
import os
from typing import NamedTuple

from tessera_runtime.errors import RunError

MAX_WORKERS = 256


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
            ("deadline", self.deadline, 1e-6, math.inf),
            ("grace", self.grace, 0, math.inf),
        )
        for name, value, low, high in ranges:
            if not low <= value <= high:
                raise _refused(name, f"{low} to {high}" if high != math.inf else f"{low} or more", str(value))
        if self.batch_delay > 0 and (self.max_batch is None or self.max_batch < 2):
            raise _refused("batch-delay", "--max-batch of 2 or more beside it", str(self.max_batch))
        if not self.model_name or "/" in self.model_name:
            raise _refused("name", "a name without slashes", repr(self.model_name))
        return self


def _refused(option: str, expected: str, found: str) -> RunError:
    message = f"the value of --{option} cannot work"
    return RunError("ARGUMENT", message, where=f"--{option}", expected=expected, found=found)
