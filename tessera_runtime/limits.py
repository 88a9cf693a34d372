"""Ending a run before it is done: a handle that another thread cancels, a deadline that passes.

Takes: a number of seconds, a `CancelHandle`, or both. Gives: `Stop`, the flag that the code looks at between launches.
Invariant: a flag belongs to one call and is never used again, so raising it late can only be without effect.
"""

import ctypes
import math
import os
import threading
import time
from typing import Final, final

from tessera_runtime.cpu.abi import Services
from tessera_runtime.errors import CancelledError, DeadlineError, RunError

_CANCELLED: Final = 1
_LATE: Final = 2


@final
class Stop:
    """The flag of one call, and the services table through which the code sees it."""

    def __init__(self) -> None:
        self._flag = ctypes.c_int32(0)
        self._services = Services()

    def table(self, services: int) -> int:
        """The address of a copy of the services table at `services`, with this flag. Valid as long as this object."""
        self._services = Services.from_buffer_copy(ctypes.string_at(services, ctypes.sizeof(Services)))
        self._services.cancel = ctypes.addressof(self._flag)
        return ctypes.addressof(self._services)

    def cancel(self) -> None:
        """Somebody does not want the answer any more."""
        self._flag.value = self._flag.value or _CANCELLED

    def expire(self) -> None:
        """The deadline has passed."""
        self._flag.value = self._flag.value or _LATE

    def explain(self, error: RunError) -> RunError:
        """The error of a run that this flag ended, where it did."""
        return deadline_error(error.where) if self._flag.value == _LATE and error.code == "CANCELLED" else error


@final
class CancelHandle:
    """Cancels the runs that it was given to, those under way and those to come. Any thread may call `cancel`.

    A run under way ends between two launches of the model's code; what it wrote into arrays of `out` is unspecified.
    """

    def __init__(self) -> None:
        # No lock: a thread that held it during a fork would leave it locked in the child. Steps on a dict are atomic,
        # and `attach` adds before it looks while `cancel` marks before it walks, so no run slips through.
        self._stops: dict[Stop, None] = {}
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled

    @property
    def runs(self) -> int:
        """How many runs hold it now."""
        return len(self._stops)

    def cancel(self) -> None:
        """End all runs that hold this handle. Cancelling twice is the same as once."""
        self._cancelled = True
        for stop in tuple(self._stops):
            stop.cancel()

    def attach(self, stop: Stop) -> None:
        """A run begins."""
        self._stops[stop] = None
        if self._cancelled:
            raise CancelledError("CANCELLED", "the run was cancelled before it began")

    def detach(self, stop: Stop) -> None:
        """A run has ended."""
        self._stops.pop(stop, None)


@final
class DeadlineWatch:
    """One thread of the process that raises the flags of calls whose time is up; it starts with the first such call."""

    def __init__(self) -> None:
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def add(self, stop: Stop, due: float) -> None:
        """Raise this flag at `due`, a time of `time.monotonic`."""
        with self._condition:
            if self._thread is None:
                self._thread = self._started()
            self._due[stop] = due
            if due < self._wakes_at:
                self._condition.notify()

    def remove(self, stop: Stop) -> None:
        """The call has ended."""
        with self._condition:
            self._due.pop(stop, None)

    def _started(self) -> threading.Thread:
        thread = threading.Thread(target=self._watch, name="tessera-deadlines", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise RunError("POOL_FAILED", "the system refuses the thread that watches deadlines") from error
        return thread

    def _watch(self) -> None:
        with self._condition:
            while True:
                now = time.monotonic()
                for stop in [stop for stop, due in self._due.items() if due <= now]:
                    del self._due[stop]
                    stop.expire()
                self._wakes_at = min(self._due.values(), default=math.inf)
                self._condition.wait(None if self._wakes_at == math.inf else self._wakes_at - now)

    def _forget(self) -> None:
        """In a child after `fork`, threads and whoever held the lock are in the parent."""
        self._condition = threading.Condition()
        self._due: dict[Stop, float] = {}
        self._wakes_at = math.inf
        self._thread: threading.Thread | None = None


def deadline_error(where: str | None = None) -> DeadlineError:
    """The error of a call whose time was up."""
    return DeadlineError("DEADLINE_EXCEEDED", "the run was ended because its deadline passed", where=where)


def begin(timeout: float | None, cancel: CancelHandle | None) -> Stop:
    """Start the clock of a call; `end` must follow."""
    stop = Stop()
    if timeout is not None:
        if math.isnan(timeout):
            raise RunError("ARGUMENT", "the timeout is not a number", expected="seconds", found=str(timeout))
        if timeout <= 0:
            raise deadline_error()
        if timeout < threading.TIMEOUT_MAX:
            DEADLINES.add(stop, time.monotonic() + timeout)
    if cancel is not None:
        try:
            cancel.attach(stop)
        except CancelledError:
            end(stop, cancel)
            raise
    return stop


def end(stop: Stop, cancel: CancelHandle | None) -> None:
    """The call has ended, well or not."""
    DEADLINES.remove(stop)
    if cancel is not None:
        cancel.detach(stop)


# Like the pools, a thread of the process and not of a model.
DEADLINES: Final = DeadlineWatch()
