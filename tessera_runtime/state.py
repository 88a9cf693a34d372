"""What an entry remembers from one call to the next, held outside the model.

Takes: an entry's states, and arrays to begin with. Other entries that carry the same may use it, too.
Gives: `State`, which a call reads and, when it succeeds, replaces.
Invariant: a call that fails leaves the state as it was; of a cache that is written in place, what counts of it.
"""

import threading
from collections.abc import Mapping, Set
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

    @property
    def names(self) -> Set[str]:
        """What is carried."""
        return self._current.keys()

    def current(self, name: str) -> Array:
        """What the call reads."""
        return self._current[name]

    def next_array(self, name: str, shape: tuple[int, ...], in_place: bool) -> Array:
        """Where the call writes: what it reads, if the entry can; else the array of the call before last."""
        current, spare = self._current[name], self._spare.get(name)
        if in_place and current.shape == shape:
            return current
        if spare is None or spare is current or spare.shape != shape:
            spare = np.empty(shape, current.dtype)
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
