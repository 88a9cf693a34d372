"""Loads and runs as lines of Python's logging, with fields that a JSON formatter can print.

    model = tessera_runtime.load(path, observers=(tessera_runtime.logs.Logs(),))

Takes: records of `tessera_runtime.observe`. Gives: log records of the logger `tessera_runtime`.
Invariant: silent until the process sets handlers and levels (answers are DEBUG, loads INFO, failures WARNING); the
values of tensors are never logged.
"""

import json
import logging
import time
from collections.abc import Mapping
from typing import Final, final

from tessera_runtime.observe import LoadRecord, RunRecord

LOGGER_NAME: Final = "tessera_runtime"
# What every log record has, from Python's own documentation of it; the rest came through `extra`.
_PLAIN: Final = frozenset(vars(logging.makeLogRecord({})).keys() | {"message", "asctime"})

logging.getLogger(LOGGER_NAME).addHandler(logging.NullHandler())


@final
class Logs:
    """An observer that logs."""

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger(LOGGER_NAME)

    def loaded(self, record: LoadRecord) -> None:
        """A bundle was loaded."""
        fields = {
            "event": "load",
            "model_digest": record.identity,
            "variant": record.variant,
            "path": record.path,
            "threads": record.threads,
            "duration_ms": _milliseconds(record.seconds),
        }
        self._logger.info("loaded %s for %s", record.path, record.variant, extra=fields)

    def ran(self, record: RunRecord) -> None:
        """A run has ended."""
        level = logging.DEBUG if record.code is None else logging.WARNING
        if not self._logger.isEnabledFor(level):
            return
        fields = {
            "event": "run",
            "model_digest": record.identity,
            "variant": record.variant,
            "entry": record.entry,
            "duration_ms": _milliseconds(record.seconds),
            "code": record.code or "OK",
            "input_bytes": record.input_bytes,
            "output_bytes": record.output_bytes,
            "workspace_bytes": record.workspace_bytes,
        }
        self._logger.log(level, "ran %s: %s", record.entry, fields["code"], extra=fields)


@final
class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message and whatever the call gave as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{moment}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(_extra(record))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _extra(record: logging.LogRecord) -> Mapping[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _PLAIN}


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1e3, 3)
