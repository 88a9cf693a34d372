"""Concurrent requests as one run, along the leading dimension.

Takes: a model whose inputs and outputs all begin with one dynamic dimension; requests.
Gives: to each request the rows that are its own.
Invariant: requests share a run only when all their other extents agree, and a failure of the shared run reaches nobody:
each then runs alone. That rows do not influence each other is the model's property; `check_rows` tries it out.
"""

import re
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Final, final

import numpy as np

from bundle_format.schema import DimRange
from tessera_runtime.arrays import Array, TensorSpec
from tessera_runtime.entry import EntryPoint
from tessera_runtime.errors import RunError
from tessera_runtime.limits import CancelHandle, deadline_error

Feeds = Mapping[str, Array]
_WORD: Final = re.compile(r"[^\W\d][\w.]*")
# How far rows may differ that were computed with other rows beside them, of the largest magnitude: another kernel may
# add in another order, but no more.
_TOLERANCE: Final = 1e-3


def leading_dim(entry: EntryPoint) -> DimRange | None:
    """The dynamic dimension with which every input and output begins and which occurs nowhere else, if there is one.

    None where data decide a shape: that of one request would depend on the others beside it.
    """
    values = (*entry.inputs, *entry.outputs)
    leading = {value.shape[0] if value.shape else 0 for value in values}
    name = next(iter(leading)) if len(leading) == 1 and entry.inputs and not entry.states else None
    others = (extent for value in values for extent in value.shape[1:] if isinstance(extent, str))
    if entry.sizes or not isinstance(name, str) or any(name in _WORD.findall(text) for text in others):
        return None
    return next((dim for dim in entry.dims if dim.name == name), None)


@final
class _Group:
    """Requests that will run together. The first that came leads: it waits for others, runs, and hands out."""

    def __init__(self) -> None:
        self.members: list[tuple[Feeds, int]] = []
        self.rows = 0
        self.latest = 0.0
        self.done = threading.Event()
        self.results: Mapping[str, Array] | None = None

    def join(self, feeds: Feeds, rows: int, due: float) -> int:
        """Add a request; its first row."""
        first, self.rows = self.rows, self.rows + rows
        self.latest = max(self.latest, due)
        self.members.append((feeds, rows))
        return first

    def together(self) -> dict[str, Array]:
        """The inputs of all members, one below the other."""
        if len(self.members) == 1:
            return dict(self.members[0][0])
        return {name: np.concatenate([feeds[name] for feeds, _ in self.members]) for name in self.members[0][0]}


@final
class Batcher:
    """Runs requests of one entry, several at once where they come within `delay` seconds of each other."""

    def __init__(self, entry: EntryPoint, max_rows: int, delay: float, cancel: CancelHandle) -> None:
        self._entry, self._max_rows, self._delay, self._cancel = entry, max_rows, delay, cancel
        self._changed = threading.Condition()
        self._open: dict[tuple[tuple[int, ...], ...], _Group] = {}
        self.batches = 0

    def run(self, feeds: Feeds, due: float) -> Mapping[str, Array]:
        """The answer to one request; `due` is a time of `time.monotonic`."""
        shapes = tuple(feeds[spec.name].shape for spec in self._entry.inputs)
        rows = shapes[0][0] if shapes[0] else 0
        if any(not shape or shape[0] != rows for shape in shapes) or not 0 < rows < self._max_rows:
            return self._alone(feeds, due)  # nothing to share, or an error that the model explains
        key = tuple(shape[1:] for shape in shapes)
        with self._changed:
            group = self._open.get(key)
            leads = group is None or group.rows + rows > self._max_rows
            if group is None or leads:
                group = self._open[key] = _Group()
            first = group.join(feeds, rows, due)
            if group.rows == self._max_rows or leads:  # a full group may run, and so may one that was replaced
                self._changed.notify_all()
        if leads:
            self._lead(group, key, due)
        elif not group.done.wait(max(0.0, due - time.monotonic())):
            raise deadline_error()
        if group.results is None:
            return self._alone(feeds, due)
        return {name: array[first : first + rows] for name, array in group.results.items()}

    def _lead(self, group: _Group, key: tuple[tuple[int, ...], ...], due: float) -> None:
        ends = min(time.monotonic() + self._delay, due)
        with self._changed:
            while group.rows < self._max_rows and self._open.get(key) is group and ends > time.monotonic():
                self._changed.wait(ends - time.monotonic())
            if self._open.get(key) is group:
                del self._open[key]
            self.batches += 1
        try:
            left = group.latest - time.monotonic()
            group.results = self._entry.run(group.together(), timeout=left, cancel=self._cancel)
        except (RunError, MemoryError):
            pass  # whose fault it is shows when each runs alone
        finally:
            group.done.set()

    def _alone(self, feeds: Feeds, due: float) -> Mapping[str, Array]:
        return self._entry.run(feeds, timeout=due - time.monotonic(), cancel=self._cancel)


def check_rows(entry: EntryPoint, leading: DimRange) -> None:
    """Try on random inputs whether rows influence each other; a `RunError` when they do or nothing could be tried."""
    for size in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        sizes = {dim.name: _clamped(size, dim) for dim in entry.dims} | {leading.name: max(3, leading.min + 1)}
        feeds = _random_feeds(entry.inputs, sizes)
        cut = sizes[leading.name] - max(1, leading.min)
        try:
            whole = entry.run(feeds)
            parts = [entry.run({name: array[rows] for name, array in feeds.items()}) for rows in _cuts(cut, leading)]
        except RunError:
            continue
        _compare(whole, parts, _cuts(cut, leading))
        return
    raise _no_batching("no random inputs were found on which the model runs, so its rows cannot be compared")


def _cuts(cut: int, leading: DimRange) -> tuple[slice, ...]:
    """Parts of the rows that are large enough to be run: the first and the last ones."""
    least = max(1, leading.min)
    return slice(0, least), slice(cut, cut + least)


def _clamped(size: int, dim: DimRange) -> int:
    return max(dim.min, size if dim.max is None else min(size, dim.max))


def _random_feeds(specs: Sequence[TensorSpec], sizes: Mapping[str, int]) -> dict[str, Array]:
    random = np.random.default_rng(0)
    feeds: dict[str, Array] = {}
    for spec in specs:
        shape = [extent if isinstance(extent, int) else sizes.get(extent, 1) for extent in spec.shape]
        small = random.integers(0, 2, shape)
        values = random.standard_normal(shape) if spec.dtype in ("f64", "f32", "f16") else small
        feeds[spec.name] = values.astype(spec.numpy)
    return feeds


def _compare(whole: Mapping[str, Array], parts: Sequence[Mapping[str, Array]], cuts: Sequence[slice]) -> None:
    for rows, part in zip(cuts, parts, strict=True):
        for name, array in part.items():
            expected, found = whole[name][rows], array
            if expected.dtype.kind == "f":
                bound = _TOLERANCE * float(np.abs(expected.astype(np.float64)).max(initial=1e-30))
                same = np.allclose(expected, found, rtol=0, atol=bound, equal_nan=True)
            else:
                same = np.array_equal(expected, found)
            if not same:
                raise _no_batching(f"rows of the output {name!r} depend on the rows beside them")


def _no_batching(message: str) -> RunError:
    hint = "serve this model without --batch-delay"
    return RunError("BATCHING_UNSOUND", f"requests to this model cannot be combined: {message}", hint=hint)
