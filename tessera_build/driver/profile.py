"""Where the time of a bundle goes: every launch timed, beside what this machine could do at most.

Takes: a bundle, one of its entries, sizes of its dims, a number of threads.
Gives: `Profile`: one row per node and kernel with its time, arithmetic and traffic; a trace that Perfetto opens.
Invariant: runs with and without the hook alternate, so that what timing adds is seen; nothing is printed that was not
measured or counted from the kernel's own Tile IR.
"""

import json
import math
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import tessera_runtime
from bundle_format import media
from bundle_format.packed_text import unpack_text
from bundle_format.reader import Bundle, VariantRecord, open_bundle
from tessera_build.backends.llvm.variant import codegen_options
from tessera_build.config import ConfigError, load_target
from tessera_build.driver.calls import Calls, Run, calls_of
from tessera_build.driver.inspect import containers, inner_of
from tessera_build.driver.machine import machine_of, options_of
from tessera_build.driver.opened import graph_of, level_text, variant_named
from tessera_build.driver.outputs import check_apart, check_writable, whole_file
from tessera_build.driver.roofline import Roofline, measure_roofline
from tessera_build.ir.core.dims import Extent, evaluate, parse_extent, symbols_of
from tessera_build.ir.core.node import Function
from tessera_build.ir.tile.text import parse_function
from tessera_build.lower.program.estimate import operations_of
from tessera_build.verify.inputs import Sizes

_WARM_UP_RUNS: Final = 3
_LEAST_ROUNDS: Final = 5
_KERNEL: Final = re.compile(r'"ttile\.kernel"\(\) <\{.*?symbol = "(\w+)"')


@dataclass(frozen=True, slots=True)
class Span:
    """One launch of one run: its number in the entry, when it began and how long it took, in seconds."""

    launch: int
    start: float
    seconds: float


@dataclass(frozen=True, slots=True)
class KernelRow:
    """One kernel at one node. `seconds`, `operations` and `bytes` are those of all its launches in one run.

    `operations` and `bytes` are None where sizes from data decide them. `operations` are what the kernel does, tiles
    that overlap at an edge included; `bytes` counts each buffer once a launch, a table whole of which rows are taken.
    """

    node: str
    kernel: str
    launches: float
    seconds: float
    share: float
    operations: float | None
    bytes: float | None
    of_roof: float | None


@dataclass(frozen=True, slots=True)
class Profile:
    """`seconds`: median run without the hook; `profiled`: with it; `outside`: of the latter, not in any launch."""

    target: str
    entry: str
    threads: int
    sizes: Sizes
    rounds: int
    seconds: float
    profiled: float
    outside: float
    roofline: Roofline
    rows: tuple[KernelRow, ...]


@dataclass(frozen=True, slots=True)
class ProfileRequest:
    """What to measure; `entry` None: the main one; `trace`: where the trace of the median run goes."""

    bundle: Path
    entry: str | None = None
    threads: int | None = None
    dims: Mapping[str, int] | None = None
    seconds: float = 5.0
    trace: Path | None = None


@dataclass(frozen=True, slots=True)
class _Launch:
    """`runs`: whether it has any iterations at these sizes; the version of a kernel for other sizes has none."""

    node: str
    kernel: str
    runs: bool


@dataclass(frozen=True, slots=True)
class _Run:
    seconds: float
    spans: tuple[Span, ...]


def profile(request: ProfileRequest) -> Profile:
    """Measure a bundle on this machine."""
    if request.trace is not None:
        check_writable(request.trace)
        check_apart(request.trace, request.bundle)
    with tessera_runtime.load(request.bundle, threads=request.threads) as model, open_bundle(request.bundle) as opened:
        variant = variant_named(opened, model.target)
        calls = calls_of(model, graph_of(opened, variant), request.entry, request.dims)
        entry, sizes = calls.entry.name, calls.sizes
        launches = _launches(opened, variant, entry, sizes)
        roofline = _roofline()
        plain, runs = _rounds(model, calls, request.seconds)
        rows = _rows(launches, runs, _costs(opened, variant, sizes), roofline, model.threads)
        if request.trace is not None:
            with whole_file(request.trace) as file:
                file.write(_trace(launches, sorted(runs, key=lambda r: r.seconds)[len(runs) // 2]).encode())
        profiled = statistics.median(run.seconds for run in runs)
        outside = statistics.median(run.seconds - sum(span.seconds for span in run.spans) for run in runs)
        median = statistics.median(plain)
        return Profile(model.target, entry, model.threads, sizes, len(runs), median, profiled, outside, roofline, rows)


def _roofline() -> Roofline:
    """Of this machine, whatever the bundle was built for: for a narrower target, or one from a file of its author's."""
    config = load_target("native")
    return measure_roofline(machine_of(config), codegen_options(options_of(config, ())))


def _launches(bundle: Bundle, variant: VariantRecord, entry: str, sizes: Sizes) -> tuple[_Launch, ...]:
    """The entry's launches, as its profiles number them."""
    (layer,) = variant.layers(media.TUNING)
    found = cast("dict[str, dict[str, list[dict[str, str]]]]", json.loads(unpack_text(bundle.read(layer))))
    if "launches" not in found:
        raise ConfigError(
            "NO_LAUNCHES",
            "the bundle does not say which kernels its launches run: an older version of Tessera made it",
            hint="build it again",
        )
    rows = found["launches"][entry]
    return tuple(_Launch(row["node"], row["kernel"], _runs(parse_extent(row["count"]), sizes)) for row in rows)


def _runs(count: Extent, sizes: Sizes) -> bool:
    return bool(symbols_of(count) - sizes.keys()) or evaluate(count, sizes) > 0


def _rounds(model: tessera_runtime.Model, calls: Calls, seconds: float) -> tuple[list[float], list[_Run]]:
    """Seconds of plain runs and timed launches of profiled ones, in turns until the time is used."""
    for run in calls.runs(_WARM_UP_RUNS):
        run()
    plain: list[float] = []
    profiled: list[_Run] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(plain) < _LEAST_ROUNDS:
        run, again = calls.runs(2)
        start = time.perf_counter()
        run()
        plain.append(time.perf_counter() - start)
        profiled.append(_profiled(model, again))
    return plain, profiled


def _profiled(model: tessera_runtime.Model, run: Run) -> _Run:
    events: list[tuple[int, int, int]] = []
    note, clock = events.append, time.perf_counter_ns
    with model.profiled(lambda launch, phase: note((launch, phase, clock()))):
        start = clock()
        run()
        total = clock() - start
    begun: dict[int, int] = {}
    spans: list[Span] = []
    for launch, phase, moment in events:
        if phase == 0:
            begun[launch] = moment
        else:
            spans.append(Span(launch, (begun[launch] - start) / 1e9, (moment - begun[launch]) / 1e9))
    return _Run(total / 1e9, tuple(spans))


def _costs(bundle: Bundle, variant: VariantRecord, sizes: Sizes) -> dict[str, tuple[float, float] | None]:
    """Operations and bytes of one launch of each kernel, counted from its Tile IR; None where sizes are unknown."""
    found: dict[str, tuple[float, float] | None] = {}
    for part in containers(level_text(bundle, variant, "tile")):
        symbol = _KERNEL.match(part)
        if symbol is not None:
            found[symbol.group(1)] = _cost(parse_function(inner_of(part)), sizes)
    return found


def _cost(function: Function, sizes: Sizes) -> tuple[float, float] | None:
    if set(function.names("dims")) - sizes.keys():
        return None
    extents = [(function.types[v].shape, function.types[v].dtype) for v in function.args]
    if any(symbols_of(extent) - sizes.keys() for shape, _ in extents for extent in shape):
        return None
    moved = sum(math.prod(evaluate(extent, sizes) for extent in shape) * dtype.bytes for shape, dtype in extents)
    return operations_of(function, sizes), float(moved)


def _rows(
    launches: Sequence[_Launch],
    runs: Sequence[_Run],
    costs: Mapping[str, tuple[float, float] | None],
    roofline: Roofline,
    threads: int,
) -> tuple[KernelRow, ...]:
    """One row per node and kernel, dearest first; times are medians over the runs."""
    times: dict[_Launch, list[float]] = defaultdict(lambda: [0.0] * len(runs))
    counts: dict[_Launch, int] = defaultdict(int)
    for position, run in enumerate(runs):
        for span in (span for span in run.spans if launches[span.launch].runs):
            times[launches[span.launch]][position] += span.seconds
            counts[launches[span.launch]] += 1
    seconds = {launch: statistics.median(found) for launch, found in times.items()}
    total = sum(seconds.values()) or 1.0
    rows: list[KernelRow] = []
    for launch, taken in seconds.items():
        count, cost = counts[launch] / len(runs), costs.get(launch.kernel)
        operations, moved = (None, None) if cost is None else (cost[0] * count, cost[1] * count)
        least = 0.0 if cost is None else _least_seconds(cost, roofline, threads) * count
        of_roof = None if cost is None or taken == 0 else least / taken
        rows.append(KernelRow(launch.node, launch.kernel, count, taken, taken / total, operations, moved, of_roof))
    return tuple(sorted(rows, key=lambda row: -row.seconds))


def _least_seconds(cost: tuple[float, float], roofline: Roofline, threads: int) -> float:
    """No launch is faster than its multiply-adds, nor than its bytes out of the second-level cache."""
    operations, moved = cost
    return max(operations / (roofline.gflops * 1e9), moved / (roofline.cache_gbps * 1e9)) / threads


def _trace(launches: Sequence[_Launch], run: _Run) -> str:
    """The run in the Trace Event Format, which Perfetto and chrome://tracing read; microseconds."""
    events: list[dict[str, object]] = [
        {"name": "run", "ph": "X", "pid": 1, "tid": 1, "ts": 0.0, "dur": run.seconds * 1e6},
    ]
    for span in run.spans:
        launch = launches[span.launch]
        event = {"name": launch.node, "cat": "launch", "ph": "X", "pid": 1, "tid": 1}
        times = {"ts": span.start * 1e6, "dur": span.seconds * 1e6}
        events.append({**event, **times, "args": {"kernel": launch.kernel, "launch": span.launch}})
    return json.dumps({"displayTimeUnit": "ms", "traceEvents": events})
