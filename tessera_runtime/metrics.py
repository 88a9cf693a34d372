"""Counters of loads, runs and whatever else a server counts, as the text that Prometheus reads.

    metrics = Metrics()
    model = tessera_runtime.load(path, observers=(metrics,))
    print(metrics.text())

Takes: records of `tessera_runtime.observe`; a buffer to count in, which processes may share.
Gives: the text exposition format, version 0.0.4.
Invariant: a counter never falls; a buffer has one writer, and any number of readers may look at any time.
"""

import math
import os
import struct
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, final

from tessera_runtime.observe import LoadRecord, RunRecord

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, math.inf)
_SLOT_BYTES: Final = 256
_NAME_BYTES: Final = _SLOT_BYTES - 10
BUFFER_BYTES: Final = 1024 * _SLOT_BYTES

Labels = tuple[tuple[str, str], ...]


class Family(NamedTuple):
    """A metric. `kind` is counter, gauge (processes add up), peak (the largest counts) or histogram."""

    name: str
    kind: str
    help: str


LOADS: Final = Family("tessera_loads_total", "counter", "Bundles loaded.")
LOAD_SECONDS: Final = Family("tessera_load_seconds_total", "counter", "Time spent on loading bundles.")
RUNS: Final = Family("tessera_runs_total", "counter", "Runs that ended, by the code of their error or OK.")
RUN_SECONDS: Final = Family("tessera_run_seconds", "histogram", "How long runs took.")
INPUT_BYTES: Final = Family("tessera_input_bytes_total", "counter", "Bytes of inputs.")
OUTPUT_BYTES: Final = Family("tessera_output_bytes_total", "counter", "Bytes of outputs.")
WORKSPACE: Final = Family("tessera_workspace_peak_bytes", "peak", "The largest workspace of one run.")
RUN_FAMILIES: Final = (LOADS, LOAD_SECONDS, RUNS, RUN_SECONDS, INPUT_BYTES, OUTPUT_BYTES, WORKSPACE)


@final
class SeriesTable:
    """Numbers by the text of their series, in slots of a buffer: length, text, value."""

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._values = buffer.cast("d")
        self._places: dict[str, int] = {name: place for place, (name, _) in enumerate(_slots(buffer))}

    def place(self, series: str) -> int | None:
        """The slot of a series, taken when there is none yet; None when the table is full or the text too long."""
        found = self._places.get(series)
        if found is not None:
            return found
        text, place = series.encode(), len(self._places)
        if len(text) > _NAME_BYTES or (place + 1) * _SLOT_BYTES > len(self._buffer):
            return None
        start = place * _SLOT_BYTES
        self._buffer[start + 10 : start + 10 + len(text)] = text
        # The length last: a reader in another process sees a slot only when it is whole.
        self._buffer[start + 8 : start + 10] = struct.pack("<H", len(text))
        self._places[series] = place
        return place

    def get(self, place: int) -> float:
        """The value in a slot."""
        return self._values[place * (_SLOT_BYTES // 8)]

    def set(self, place: int, value: float) -> None:
        """Replace the value in a slot; eight aligned bytes, so no reader sees half of it."""
        self._values[place * (_SLOT_BYTES // 8)] = value


@final
class Metrics:
    """An observer that counts. `buffer`: BUFFER_BYTES of zeros, or what an earlier process counted in it."""

    def __init__(self, buffer: memoryview | None = None, families: Sequence[Family] = ()) -> None:
        self._buffer = memoryview(bytearray(BUFFER_BYTES)) if buffer is None else buffer
        self._table = SeriesTable(self._buffer)
        self._families = (*RUN_FAMILIES, *families)
        self._renew_lock()
        reference: weakref.ref[Metrics] = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _renew(reference))

    def loaded(self, record: LoadRecord) -> None:
        """A bundle was loaded."""
        labels = (("model", _short(record.identity)), ("variant", record.variant))
        self.add(LOADS, labels)
        self.add(LOAD_SECONDS, labels, record.seconds)

    def ran(self, record: RunRecord) -> None:
        """A run has ended."""
        labels = (("model", _short(record.identity)), ("variant", record.variant), ("entry", record.entry))
        self.add(RUNS, (*labels, ("code", record.code or "OK")))
        self.observe(RUN_SECONDS, labels, record.seconds)
        self.add(INPUT_BYTES, labels, record.input_bytes)
        self.add(OUTPUT_BYTES, labels, record.output_bytes)
        self.raise_to(WORKSPACE, labels, record.workspace_bytes)

    def add(self, family: Family, labels: Labels, amount: float = 1.0) -> None:
        """Add to a counter or a gauge."""
        self._change(series_text(family.name, labels), amount)

    def raise_to(self, family: Family, labels: Labels, value: float) -> None:
        """Let a peak be at least this."""
        with self._lock:
            place = self._table.place(series_text(family.name, labels))
            if place is not None and value > self._table.get(place):
                self._table.set(place, value)

    def clear(self, family: Family, labels: Labels) -> None:
        """Set a gauge to nothing: what an earlier process left there."""
        with self._lock:
            place = self._table.place(series_text(family.name, labels))
            if place is not None:
                self._table.set(place, 0.0)

    def observe(self, family: Family, labels: Labels, value: float) -> None:
        """Add one value to a histogram. Buckets are stored apart and summed up when they are read."""
        bound = next(bound for bound in BUCKETS if value <= bound or bound == math.inf)
        self._change(series_text(family.name + "_bucket", (*labels, ("le", _number(bound)))), 1.0)
        self._change(series_text(family.name + "_sum", labels), value)

    def text(self, others: Iterable[memoryview] = ()) -> str:
        """The exposition text: what was counted here, and in the buffers of other processes."""
        with self._lock:
            return exposition(self._families, (self._buffer, *others))

    def _change(self, series: str, amount: float) -> None:
        with self._lock:
            place = self._table.place(series)
            if place is not None:
                self._table.set(place, self._table.get(place) + amount)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()


def exposition(families: Sequence[Family], buffers: Iterable[memoryview]) -> str:
    """The text of all series of these families, the numbers of all buffers put together."""
    peaks = {family.name for family in families if family.kind == "peak"}
    totals: dict[str, float] = {}
    for buffer in buffers:
        for series, value in _slots(buffer):
            before = totals.get(series, 0.0)
            totals[series] = max(before, value) if series.partition("{")[0] in peaks else before + value
    lines: list[str] = []
    for family in families:
        shown = "gauge" if family.kind == "peak" else family.kind
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {shown}"]
        lines += _histogram(family, totals) if family.kind == "histogram" else _plain(family.name, totals)
    return "\n".join(lines) + "\n"


def series_text(name: str, labels: Labels) -> str:
    """A series as the format writes it: `name{label="value"}`."""
    if not labels:
        return name
    return name + "{" + ",".join(f'{label}="{_escaped(value)}"' for label, value in labels) + "}"


def _plain(name: str, totals: dict[str, float]) -> Iterator[str]:
    for series in sorted(series for series in totals if series.partition("{")[0] == name):
        yield f"{series} {_number(totals[series])}"


def _histogram(family: Family, totals: dict[str, float]) -> Iterator[str]:
    """Each `_sum` has buckets; they are stored one by one, and shown as "at most"."""
    for total in sorted(series for series in totals if series.partition("{")[0] == family.name + "_sum"):
        labels = total[len(family.name) + 4 :].strip("{}")
        comma = "," if labels else ""
        count = 0.0
        for bound in BUCKETS:
            bucket = f'{family.name}_bucket{{{labels}{comma}le="{_number(bound)}"}}'
            count += totals.get(bucket, 0.0)
            yield f"{bucket} {_number(count)}"
        yield f"{total} {_number(totals[total])}"
        yield f"{family.name}_count{total[len(family.name) + 4 :]} {_number(count)}"


def _slots(buffer: memoryview) -> Iterator[tuple[str, float]]:
    for start in range(0, len(buffer) - _SLOT_BYTES + 1, _SLOT_BYTES):
        value, length = struct.unpack_from("<dH", buffer, start)
        if not length:
            return
        yield bytes(buffer[start + 10 : start + 10 + length]).decode(), value


def _number(value: float) -> str:
    if value == math.inf:
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(value)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _short(identity: str) -> str:
    """Enough of a digest to tell models apart."""
    return identity.removeprefix("sha256:")[:12]


def _renew(reference: "weakref.ref[Metrics]") -> None:
    """In a child after `fork`, whoever held the lock is in the parent."""
    metrics = reference()
    if metrics is not None:
        metrics._renew_lock()  # pyright: ignore[reportPrivateUsage]
