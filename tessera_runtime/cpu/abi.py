"""The structures of `tessera_model.h`, as ctypes sees them.

Takes nothing; gives one `ctypes.Structure` for each struct of the header.
Invariant: sizes and offsets equal those of the C compiler; the tests compare them.
"""

import ctypes

POINTER = ctypes.c_void_p


class Services(ctypes.Structure):
    """tessera_services."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("version", ctypes.c_uint32),
        ("context", POINTER),
        ("allocate", POINTER),
        ("release", POINTER),
        ("parallel_for", POINTER),
        ("thread_create", POINTER),
        ("thread_join", POINTER),
        ("semaphore_init", POINTER),
        ("semaphore_wait", POINTER),
        ("semaphore_post", POINTER),
        ("profile", POINTER),
        ("cancel", POINTER),
        ("thread_yield", POINTER),
        ("current_cpu", POINTER),
        ("get_affinity", POINTER),
        ("set_affinity", POINTER),
    )


class ErrorRecord(ctypes.Structure):
    """tessera_error."""

    _fields_ = (("status", ctypes.c_int32), ("node", ctypes.c_int32), ("detail", ctypes.c_int64 * 4))


class Call(ctypes.Structure):
    """tessera_call."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("entry", ctypes.c_uint32),
        ("dims", POINTER),
        ("inputs", POINTER),
        ("weights", POINTER),
        ("outputs", POINTER),
        ("workspace", POINTER),
        ("services", POINTER),
        ("error", POINTER),
        ("output_shapes", POINTER),
    )


class Plan(ctypes.Structure):
    """tessera_plan."""

    _fields_ = (("workspace_bytes", ctypes.c_uint64), ("output_shapes", POINTER))
