"""What an entry remembers from one call to the next, held outside the model.

Takes: an entry's states, and arrays to begin with.
Gives: `State`, which a call reads and, when it succeeds, replaces.
Invariant: a call that fails leaves the state as it was; of a cache that is written in place, what counts of it.
"""

import threading
from collections.abc import Mapping
from typing import final

import numpy as np

from bundle_format.dims import DimExpression
from bundle_format.schema import Entry, Value
from tessera_runtime.arrays import Array, numpy_dtype, to_array
from tessera_runtime.errors import RunError


@final
class State:
    """The state of one stream of calls. One call at a time may use it."""

    def __init__(self, entry: Entry, initial: Mapping[str, object]) -> None:
        inputs = {value.name: value for value in entry.inputs}
        self._lock = threading.Lock()
        self._current: dict[str, Array] = {}
        self._spare: dict[str, Array] = {}
        self._in_place = frozenset(alias.input for alias in entry.states if alias.in_place)
        for alias in entry.states:
            value = inputs[alias.input]
            if value.name in initial:
                given = to_array(initial[value.name], value.dtype, numpy_dtype(value.dtype), value.name)
                self._current[value.name] = given.copy()
            else:
                self._current[value.name] = _zeros(value)
        unknown = sorted(initial.keys() - self._current.keys())
        if unknown:
            raise RunError("STATE_UNKNOWN", "the entry has no such state", where=unknown[0])

    @property
    def arrays(self) -> Mapping[str, Array]:
        """The values now, by the names of the inputs that take them. Copy what must outlive the next call."""
        return dict(self._current)

    def acquire(self) -> None:
        """Take the state for one call."""
        if not self._lock.acquire(blocking=False):
            raise RunError("STATE_BUSY", "another call is using this state", hint="give each stream a state of its own")

    def release(self) -> None:
        """Give the state back."""
        self._lock.release()

    def current(self, name: str) -> Array:
        """What the call reads."""
        return self._current[name]

    def next_array(self, name: str, shape: tuple[int, ...]) -> Array:
        """Where the call writes: what it reads, if that is written in place; else the array of the call before last."""
        if name in self._in_place and self._current[name].shape == shape:
            return self._current[name]
        spare = self._spare.get(name)
        if spare is None or spare.shape != shape:
            spare = np.empty(shape, self._current[name].dtype)
        return spare

    def replace(self, arrays: Mapping[str, Array]) -> None:
        """The call succeeded: what it wrote is the state now."""
        self._spare, self._current = self._current, dict(arrays)


def _zeros(value: Value) -> Array:
    shape: list[int] = []
    for extent in value.shape:
        if isinstance(extent, DimExpression):
            raise RunError(
                "STATE_MISSING",
                f"the state {value.name!r} has the symbolic extent {extent.text!r} and needs a first value",
                where=value.name,
            )
        shape.append(extent)
    return np.zeros(shape, numpy_dtype(value.dtype))
