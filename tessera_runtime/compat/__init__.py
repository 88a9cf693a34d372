"""onnxruntime's Python interface, for programs that were written for it.

    import tessera_runtime.compat as onnxruntime

Takes: bundles instead of ONNX files. Gives: the names of onnxruntime that inference on a CPU needs.
Invariant: a name that exists here does what onnxruntime's does, or says at once that it cannot.
"""

import logging

from tessera_runtime.compat import capi
from tessera_runtime.compat.binding import IOBinding
from tessera_runtime.compat.options import (
    LOG_LEVELS,
    ExecutionMode,
    ExecutionOrder,
    GraphOptimizationLevel,
    RunOptions,
    SessionOptions,
)
from tessera_runtime.compat.session import PROVIDER, InferenceSession
from tessera_runtime.compat.values import ModelMetadata, NodeArg, OrtValue
from tessera_runtime.logs import LOGGER_NAME

__all__ = [
    "ExecutionMode",
    "ExecutionOrder",
    "GraphOptimizationLevel",
    "IOBinding",
    "InferenceSession",
    "ModelMetadata",
    "NodeArg",
    "OrtValue",
    "RunOptions",
    "SessionOptions",
    "capi",
    "get_all_providers",
    "get_available_providers",
    "get_device",
    "set_default_logger_severity",
]


def get_available_providers() -> list[str]:
    """What can run a model here."""
    return [PROVIDER]


def get_all_providers() -> list[str]:
    """The same: there are no others."""
    return [PROVIDER]


def get_device() -> str:
    """Where models run."""
    return "CPU"


def set_default_logger_severity(severity: int) -> None:
    """Let the runtime's logger pass what is at least this severe: 0 (verbose) to 4 (fatal)."""
    logging.getLogger(LOGGER_NAME).setLevel(LOG_LEVELS[max(0, min(severity, len(LOG_LEVELS) - 1))])
