"""onnxruntime's exception classes, raised with our messages.

Takes: errors of the runtime. Gives: the class that onnxruntime raises in such a case.
Invariant: each is a `RunError` as well, with code, place, what was expected and what was found.
"""

from typing import Final

from bundle_format.errors import BundleError, TesseraError
from tessera_runtime.errors import CancelledError, RunError

# The names are onnxruntime's: programs catch them by name.
# ruff: noqa: N818


class Fail(RunError):
    """Something failed, or the run was terminated."""


class InvalidArgument(RunError):
    """An input or an option does not fit."""


class NoSuchFile(RunError):
    """There is no file at the path."""


class NoModel(RunError):
    """There is no model that could be loaded."""


class EngineError(RunError):
    """Never raised; programs name it."""


class RuntimeException(RunError):
    """The system refused memory or threads."""


class InvalidProtobuf(RunError):
    """The file is not a sound bundle."""


class ModelLoaded(RunError):
    """Never raised; programs name it."""


class NotImplemented(RunError):  # noqa: A001  onnxruntime's name
    """An option of onnxruntime that has no meaning here and cannot be ignored."""


class InvalidGraph(RunError):
    """Never raised: graphs are checked when they are built."""


class EPFail(RunError):
    """No variant of the bundle fits this machine."""


class MissingInput(InvalidArgument, ValueError):
    """An input was not given. onnxruntime raises a plain ValueError."""


_KINDS: Final[dict[str, type[RunError]]] = {
    "INPUT_MISSING": MissingInput,
    "DIM_RANGE": InvalidArgument,
    "GUARD_FAILED": InvalidArgument,
    "INDEX_OUT_OF_RANGE": InvalidArgument,
    "DIVISION_BY_ZERO": InvalidArgument,
    "SIZE_BEYOND_BOUND": InvalidArgument,
    "ARGUMENT": InvalidArgument,
    "OUT_OF_MEMORY": RuntimeException,
    "POOL_FAILED": RuntimeException,
    "MACHINE_UNSUITABLE": EPFail,
}


def translated(error: TesseraError) -> RunError:
    """The same error as onnxruntime's class for it."""
    kind = _KINDS.get(error.code)
    if kind is None:
        if isinstance(error, CancelledError):
            kind = Fail
        elif isinstance(error, BundleError):
            kind = InvalidProtobuf
        else:
            kind = InvalidArgument if error.code.startswith(("INPUT_", "OUTPUT_", "DTYPE_")) else Fail
    facts = {"where": error.where, "expected": error.expected, "found": error.found, "hint": error.hint}
    return kind(error.code, error.message, **facts)
