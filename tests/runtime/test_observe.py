"""What observers are told, what logs and counters make of it, and that nobody pays who does not ask."""

import io
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tessera_runtime import RunError, load
from tessera_runtime.logs import LOGGER_NAME, JsonFormatter, Logs
from tessera_runtime.metrics import (
    BUFFER_BYTES,
    RUN_SECONDS,
    RUNS,
    Family,
    Metrics,
    exposition,
)
from tessera_runtime.observe import LoadRecord, RunRecord

X = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
ROOT = Path(__file__).parents[2]


class Recorder:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.loads: list[LoadRecord] = []
        self.runs: list[RunRecord] = []

    def loaded(self, record: LoadRecord) -> None:
        self.loads.append(record)

    def ran(self, record: RunRecord) -> None:
        self.runs.append(record)


@pytest.mark.unit
def test_observer_when_a_model_runs_then_is_told_each_load_and_run_once(bundle: Path) -> None:
    recorder = Recorder()
    with load(bundle, threads=1, observers=(recorder,)) as model:
        model.run(x=X)
        with pytest.raises(RunError):
            model.run(x=X[:, :2])
        with pytest.raises(RunError):
            model.entries["wait"].run({"x": X[0, :1]}, timeout=0.01)
        (loaded,), digest = recorder.loads, str(model.identity)
    assert (loaded.identity, loaded.variant, loaded.path, loaded.threads) == (digest, "plain", str(bundle), 1)
    assert loaded.seconds > 0
    assert [(run.entry, run.code) for run in recorder.runs] == [
        ("main", None),
        ("main", "INPUT_SHAPE"),
        ("wait", "DEADLINE_EXCEEDED"),
    ]
    first = recorder.runs[0]
    assert (first.input_bytes, first.output_bytes) == (X.nbytes, X.nbytes + 8)
    assert first.workspace_bytes > 0
    assert recorder.runs[2].seconds >= 0.01


@pytest.mark.unit
def test_logs_when_formatted_as_json_then_each_line_has_the_facts(bundle: Path) -> None:
    text, logger = io.StringIO(), logging.Logger("test", logging.DEBUG)
    handler = logging.StreamHandler(text)
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    with load(bundle, threads=1, observers=(Logs(logger),)) as model:
        model.run(x=X)
        with pytest.raises(RunError):
            model.run()
        digest = str(model.identity)
    loaded, ran, failed = (json.loads(line) for line in text.getvalue().splitlines())
    assert (loaded["event"], loaded["level"], loaded["model_digest"]) == ("load", "info", digest)
    assert (ran["event"], ran["level"], ran["code"], ran["variant"]) == ("run", "debug", "OK", "plain")
    assert ran["duration_ms"] >= 0
    assert (failed["level"], failed["code"]) == ("warning", "INPUT_MISSING")


PROGRAM = """
import sys, numpy
import tessera_runtime
model = tessera_runtime.load(sys.argv[1], threads=1)
x = numpy.ones((4, 3), numpy.float32)
model.run(x=x)
modules = ("logs", "metrics", "serve", "compat")
print([name for name in modules if "tessera_runtime." + name in sys.modules])
from tessera_runtime.logs import Logs
model = tessera_runtime.load(sys.argv[1], threads=1, observers=(Logs(),))
model.run(x=x)
try:
    model.run()
except tessera_runtime.RunError:
    print("refused")
"""


@pytest.mark.unit
def test_process_when_it_asks_for_nothing_then_pays_nothing_and_logs_are_silent(bundle: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(bundle)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["[]", "refused"]
    assert done.stderr == ""
    assert logging.getLogger(LOGGER_NAME).level == logging.NOTSET


def samples(text: str) -> dict[str, float]:
    """The numbers of an exposition text by their series; every other line must be a comment of the format."""
    lines = text.splitlines()
    assert all(line.startswith(("# HELP ", "# TYPE ")) for line in lines if line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


@pytest.mark.unit
def test_metrics_when_models_run_then_count_codes_times_and_bytes(bundle: Path) -> None:
    metrics = Metrics()
    with load(bundle, threads=1, observers=(metrics,)) as model:
        for _ in range(3):
            model.run(x=X)
        with pytest.raises(RunError):
            model.run()
        labels = f'model="{model.identity.hex[:12]}",variant="plain"'
    found = samples(metrics.text())
    run = f'{labels},entry="main"'
    assert found[f"tessera_loads_total{{{labels}}}"] == 1
    assert found[f'tessera_runs_total{{{run},code="OK"}}'] == 3
    assert found[f'tessera_runs_total{{{run},code="INPUT_MISSING"}}'] == 1
    assert found[f"tessera_input_bytes_total{{{run}}}"] == 3 * X.nbytes
    assert found[f"tessera_output_bytes_total{{{run}}}"] == 3 * (X.nbytes + 8)
    assert found[f"tessera_workspace_peak_bytes{{{run}}}"] >= 4096
    assert found[f"tessera_run_seconds_count{{{run}}}"] == 4
    assert found[f'tessera_run_seconds_bucket{{{run},le="+Inf"}}'] == 4
    buckets = [value for name, value in found.items() if name.startswith("tessera_run_seconds_bucket")]
    assert buckets == sorted(buckets)
    assert len(buckets) == 15


@pytest.mark.unit
def test_metrics_when_a_label_is_odd_then_is_escaped() -> None:
    metrics = Metrics()
    metrics.add(RUNS, (("model", 'a"b\\c\nd'),))
    assert 'tessera_runs_total{model="a\\"b\\\\c\\nd"} 1\n' in metrics.text()


@pytest.mark.unit
def test_metrics_when_a_buffer_is_taken_over_or_shared_then_numbers_add_up() -> None:
    peak = Family("p", "peak", "Largest.")
    first, second = memoryview(bytearray(BUFFER_BYTES)), memoryview(bytearray(BUFFER_BYTES))
    for buffer, value in ((first, 3.0), (second, 2.0), (first, 1.0)):
        metrics = Metrics(buffer, (peak,))
        metrics.add(RUNS, ())
        metrics.observe(RUN_SECONDS, (), 0.002)
        metrics.raise_to(peak, (), value)
    found = samples(exposition((RUNS, RUN_SECONDS, peak), (first, second)))
    assert (found["tessera_runs_total"], found["tessera_run_seconds_count"], found["p"]) == (3, 3, 3)
    assert found['tessera_run_seconds_bucket{le="0.001"}'] == 0
    assert found['tessera_run_seconds_bucket{le="0.0025"}'] == 3


@pytest.mark.unit
def test_metrics_when_the_table_is_full_then_counts_on_without_the_new_series() -> None:
    metrics = Metrics(memoryview(bytearray(4 * 256)))
    for number in range(10):
        metrics.add(RUNS, (("code", str(number)),))
    metrics.add(RUNS, (("code", "0"),))
    metrics.add(RUNS, (("code", "x" * 300),))
    found = samples(metrics.text())
    assert found == {f'tessera_runs_total{{code="{number}"}}': 2 if number == 0 else 1 for number in range(4)}
