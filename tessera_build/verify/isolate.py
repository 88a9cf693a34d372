"""Runs freshly made machine code in a child process, so that a wrong address ends the child and not the build.

Takes: a function that runs the code and marks how far it came.
Gives: its result, its exception, or a `CrashError` with the last mark.
Invariant: what the child did to memory is gone with it; the parent never maps the code.
"""

import faulthandler
import mmap
import os
import pickle
import signal
import struct
import sys
import warnings
from collections.abc import Callable
from typing import TypeVar, cast, final

from bundle_format.errors import TesseraError

T = TypeVar("T")
_MARK = struct.Struct("<q")


class CrashError(Exception):
    """The child ended without a result: `reason` says how, `mark` is the last one that it made, -1 if none."""

    def __init__(self, reason: str, mark: int) -> None:
        super().__init__(reason)
        self.reason, self.mark = reason, mark


@final
class Mark:
    """A number in memory that parent and child share."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _MARK.size)
        self.set(-1)

    def set(self, value: int) -> None:
        """Say what is done next."""
        _MARK.pack_into(self._memory, 0, value)

    def get(self) -> int:
        """What was said last."""
        return cast(int, _MARK.unpack_from(self._memory)[0])


def in_child(work: Callable[[Mark], T]) -> T:
    """The result of `work`; its exception is raised here, its death becomes a `CrashError`."""
    mark = Mark()
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python warns of threads that a child does not have: the runtime's pool is made anew there, numpy's as well.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(reading)
        _serve(work, mark, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    if status or not data:
        raise CrashError(_ending(status), mark.get())
    good, value = cast("tuple[bool, object]", pickle.loads(data))
    if good:
        return cast(T, value)
    raise cast(Exception, value)


def _serve(work: Callable[[Mark], T], mark: Mark, writing: int) -> None:
    """The child's whole life; it must not return into the parent's code."""
    faulthandler.disable()  # the parent reports, with the operator's name
    try:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(_outcome(work, mark))
        os._exit(0)
    except KeyboardInterrupt:  # the parent has it, too
        os._exit(1)
    except BaseException as error:
        print(repr(error), file=sys.stderr)  # noqa: T201  the parent has no other way to hear of it
        os._exit(1)


def _outcome(work: Callable[[Mark], T], mark: Mark) -> bytes:
    try:
        return pickle.dumps((True, work(mark)))
    except TesseraError as error:
        return pickle.dumps((False, error))
    except MemoryError as error:
        return pickle.dumps((False, MemoryError(str(error))))
    except Exception as error:
        return pickle.dumps((False, RuntimeError(repr(error))))


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"signal {signal.Signals(os.WTERMSIG(status)).name}"
    return f"status {os.waitstatus_to_exitcode(status)}"
