"""Records of measured schedules: one JSON line a trial, appended as soon as it is known, and what follows from them.

Takes: a file of lines, `Trial`s. Gives: the trials that a restarted run need not repeat, the judgement, and fitted
coefficients of the cost model. Invariant: a run that is ended at any moment loses at most the trial in flight: a line
that was cut off is taken out before the next one is appended, and a line of another derived schedule, or of a vector
that now means another schedule, is not believed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np

GOOD = 0.8
WANTED_SHARE = 0.9
OPTIONS_OF_COST = ("other", "spill", "gather", "tile", "turn", "call", "l1_byte", "l2_byte", "scattered_byte")
_FEATURES_OF_COST = (
    "others",
    "spills",
    "gathers",
    "tiles",
    "turns",
    "calls",
    "l1_bytes",
    "l2_bytes",
    "scattered_bytes",
)
_SHORTEST_SECONDS = 2e-6  # of what is fitted: the clock's own share of less is too large


@dataclass(frozen=True, slots=True)
class Job:
    """A task that is judged: where it came from, its hash, its name and uses, and the text of its own schedule."""

    model: str
    target: str
    key: str
    name: str
    uses: int
    derived: str


@dataclass(frozen=True, slots=True)
class Trial:
    """One schedule of one task: `ratio` is the derived schedule's time over its own, 0 where it failed.

    `index`: its place among the drawn ones, of `drawn`; `longer`: measured again, because it was among the best.
    """

    index: int
    drawn: int
    longer: bool
    rule: str
    schedule: str
    features: Mapping[str, float]
    estimate: float
    seconds: float | None
    ratio: float
    error: str | None


class Records:
    """A file of trials. Without a path nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lines = _whole_lines(path) if path is not None and path.exists() else []

    def append(self, job: Job, trial: Trial) -> None:
        """Keep one trial."""
        line = asdict(job) | asdict(trial)
        self._lines.append(line)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def of(self, job: Job) -> list[Trial]:
        """What is known of a job's latest draw, in the order of measuring."""
        found = [_trial(line) for line in self._lines if line.items() >= asdict(job).items()]
        return [trial for trial in found if trial.drawn == found[-1].drawn]

    def jobs(self) -> list[Job]:
        """All jobs, in the order in which they were begun; of a task only the last derived schedule's."""
        names = Job.__dataclass_fields__
        found: dict[tuple[object, ...], Job] = {}
        for line in self._lines:
            job = Job(**cast("dict[str, str]", {name: line[name] for name in names}))  # type: ignore[arg-type]
            found[job.model, job.target, job.key] = job
        return list(found.values())


def _whole_lines(path: Path) -> list[dict[str, object]]:
    """All records; what was cut off at the end is taken out of the file."""
    kept: list[dict[str, object]] = []
    text = path.read_text(encoding="utf-8")
    good = 0
    for line in text.splitlines(keepends=True):
        try:
            kept.append(json.loads(line))
        except ValueError:
            break
        if not line.endswith("\n"):
            kept.pop()
            break
        good += len(line.encode())
    if good < len(text.encode()):
        with path.open("r+b") as file:
            file.truncate(good)
    return kept


def _trial(line: Mapping[str, object]) -> Trial:
    return Trial(**{name: line[name] for name in Trial.__dataclass_fields__})  # type: ignore[arg-type]


# -- the judgement ----------------------------------------------------------------------------------------------------


def settled(trials: Iterable[Trial]) -> dict[int, Trial]:
    """One trial a vector: the longer measurement where there is one."""
    found: dict[int, Trial] = {}
    for trial in trials:
        if trial.longer or trial.index not in found or not found[trial.index].longer:
            found[trial.index] = trial
    return found


def share_of(trials: Iterable[Trial]) -> float | None:
    """The best random schedule's time over the derived one's; None where nothing could be compared."""
    best = max((trial.ratio for trial in settled(trials).values()), default=0.0)
    return 1 / best if best else None


def line_of(job: Job, trials: Sequence[Trial]) -> str:
    """One line of the table."""
    found = settled(trials)
    good = [trial for trial in found.values() if trial.ratio > 0]
    share = share_of(trials)
    if share is None:
        why = trials[0].error if trials else "nothing was measured"
        return f"{job.name[:43]:<44}{job.uses:>5}  nothing to compare: {why}"
    base = sorted((trial.seconds or 0.0) * trial.ratio for trial in good)[len(good) // 2]
    best = max(good, key=lambda trial: trial.ratio)
    failed, all_ = len(found) - len(good), max(trial.drawn for trial in trials)
    counts = f"{len(found)}/{all_}"
    return (
        f"{job.name[:43]:<44}{job.uses:>5}{base * 1e6:>10.1f} {best.rule[:9]:<10}{share:>6.2f}"
        f"{concordance(good):>6.2f}{failed:>7}{counts:>9}"
    )


HEADER = f"{'task':<44}{'uses':>5}{'µs':>10} {'best by':<10}{'share':>6}{'rank':>6}{'failed':>7}{'drawn':>9}"


def judgement(records: Records) -> str:
    """The share of tasks whose derived schedule is nearly as fast as the best one drawn."""
    jobs = records.jobs()
    shares = [share for job in jobs if (share := share_of(records.of(job))) is not None]
    open_ = sum(len(settled(records.of(job))) < max(t.drawn for t in records.of(job)) for job in jobs)
    enough = sum(share >= GOOD for share in shares)
    part = enough / max(1, len(shares))
    verdict = "reached" if part >= WANTED_SHARE else "not reached"
    rest = f"; {open_} of them not drawn to the end" if open_ else ""
    return (
        f"{enough} of {len(shares)} tasks ({part:.0%}) at {GOOD:.0%} or more of the best random schedule{rest}: "
        f"{WANTED_SHARE:.0%} is {verdict}; least {min(shares, default=0.0):.2f}, median "
        f"{float(np.median(shares)) if shares else 0.0:.2f}"
    )


def concordance(trials: Sequence[Trial]) -> float:
    """The share of pairs that the cost model puts in the measured order."""
    pairs = [
        (a.estimate - b.estimate) * (1 / a.ratio - 1 / b.ratio) > 0
        for i, a in enumerate(trials)
        for b in trials[i + 1 :]
        if abs(a.ratio / b.ratio - 1) > 0.05
    ]
    return sum(pairs) / max(1, len(pairs))


# -- coefficients -----------------------------------------------------------------------------------------------------


def calibrate(paths: Sequence[Path]) -> str:
    """Fit the coefficients: relative errors, no negative coefficient, one clock for all records."""
    rows: list[list[float]] = []
    for path in paths:
        records = Records(path)
        for trial in (trial for job in records.jobs() for trial in records.of(job)):
            if trial.error is None and (trial.seconds or 0.0) > _SHORTEST_SECONDS:
                line = [trial.features["busy"], *(trial.features.get(name, 0.0) for name in _FEATURES_OF_COST)]
                rows.append([value / cast(float, trial.seconds) / 1e9 for value in line])
    matrix, wanted = np.asarray(rows), np.ones(len(rows))
    found = _non_negative(matrix, wanted)
    errors = np.abs(matrix @ found - 1)
    first = f"{len(rows)} records, median relative error {np.median(errors):.2f}; ns a busy cycle {found[0]:.3f}"
    pairs = zip(OPTIONS_OF_COST, found[1:], strict=True)
    return "\n".join([first, *(f"{name:<14} {value / max(found[0], 1e-9):.5f}" for name, value in pairs)])


def _non_negative(matrix: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Least squares under signs, coordinate by coordinate; features differ by orders of magnitude, so scaled first."""
    scale = np.sqrt((matrix**2).sum(axis=0)) + 1e-30
    scaled = matrix / scale
    found = np.zeros(matrix.shape[1])
    gram, right = scaled.T @ scaled, scaled.T @ wanted
    for _ in range(5000):
        for i in range(len(found)):
            found[i] = max(0.0, found[i] + (right[i] - gram[i] @ found) / gram[i, i]) if gram[i, i] else 0.0
    return found / scale
