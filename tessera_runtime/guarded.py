"""A call with more around it than the arrays: a deadline, a handle to cancel it, observers.

Takes: the plain call of an entry. Gives: its answer, or the error that says what ended it.
Invariant: whatever happens, the limit is lifted and the observers are told exactly once.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

from tessera_runtime.arrays import Array
from tessera_runtime.limits import CancelHandle, Stop, begin, end
from tessera_runtime.observe import Reporter, Watch


class Guards(NamedTuple):
    """What stands around one call."""

    entry: str
    timeout: float | None
    cancel: CancelHandle | None
    reporter: Reporter | None


def run_guarded(guards: Guards, call: Callable[[Watch], dict[str, Array]]) -> dict[str, Array]:
    """Make the call within its limits and report it."""
    reporter = guards.reporter
    if reporter is None:
        return _run_limited(guards, call, Watch())
    began, watch = time.perf_counter(), Watch()
    try:
        results = _run_limited(guards, call, watch)
    except BaseException as error:
        reporter.ran(guards.entry, began, watch, error)
        raise
    reporter.ran(guards.entry, began, watch, None)
    return results


def _run_limited(guards: Guards, call: Callable[[Watch], dict[str, Array]], watch: Watch) -> dict[str, Array]:
    if guards.timeout is None and guards.cancel is None:
        return call(watch)
    stop: Stop = begin(guards.timeout, guards.cancel)
    watch.stop = stop
    try:
        return call(watch)
    finally:
        end(stop, guards.cancel)
