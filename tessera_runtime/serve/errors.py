"""Why a request was refused, as HTTP says it.

Takes: errors of the server and of the runtime. Gives: a status code and a JSON object with `error` and `code`.
Invariant: 4xx is the caller's doing and the message says what to change; 5xx is ours or the machine's.
"""

import json
from typing import ClassVar, Final

from bundle_format.errors import TesseraError
from tessera_runtime.errors import CancelledError, DeadlineError

_CALLERS: Final = frozenset(
    ("DIM_RANGE", "GUARD_FAILED", "INDEX_OUT_OF_RANGE", "DIVISION_BY_ZERO", "SIZE_BEYOND_BOUND")
)


class RequestError(TesseraError):
    """A request cannot be served. `status` is the HTTP status that says why."""

    exit_code: ClassVar[int] = 8

    def __init__(  # noqa: PLR0913  every fact is a keyword
        self,
        status: int,
        code: str,
        message: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        found: str | None = None,
    ) -> None:
        super().__init__(code, message, where=where, expected=expected, found=found)
        self.status = status


def malformed(
    message: str, *, where: str | None = None, expected: str | None = None, found: object = None
) -> RequestError:
    """The request is not what the protocol or the model's signature asks for."""
    shown = None if found is None else str(found)[:200]
    return RequestError(400, "REQUEST_MALFORMED", message, where=where, expected=expected, found=shown)


def status_of(error: BaseException) -> int:
    """The HTTP status of an error."""
    if isinstance(error, RequestError):
        return error.status
    if isinstance(error, DeadlineError):
        return 504
    if isinstance(error, CancelledError | MemoryError):
        return 503
    if isinstance(error, TesseraError):
        if error.code.startswith("INPUT_") or error.code in _CALLERS:
            return 400
        return 503 if error.code == "OUT_OF_MEMORY" else 500
    return 500


def error_body(error: BaseException) -> bytes:
    """The JSON object of an error; what no one expected is logged, not told to the world."""
    if isinstance(error, MemoryError):
        return _body("OUT_OF_MEMORY", "there is not enough memory for this request")
    if not isinstance(error, TesseraError):
        return _body("INTERNAL", "the server failed in a way that nobody expected; its log has the details")
    facts = (("at", error.where), ("expected", error.expected), ("found", error.found), ("help", error.hint))
    told = "; ".join(f"{label}: {text}" for label, text in facts if text is not None)
    return _body(error.code, f"{error.message} ({told})" if told else error.message)


def code_of(error: BaseException) -> str:
    """The stable word of an error."""
    return error.code if isinstance(error, TesseraError) else type(error).__name__


def _body(code: str, message: str) -> bytes:
    return json.dumps({"error": message, "code": code}).encode()
