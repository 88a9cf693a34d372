"""What a comparison found: plain records that become JSON and a page.

Takes nothing; gives records. Invariant: every number was measured in the run that the record stands for; what was not
measured is 0 or absent, with the reason in `error`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.peers.goals import Standing
from benchmarks.peers.rounds import Ratio
from tessera_build.driver.profile import KernelRow
from tessera_build.driver.roofline import Roofline


@dataclass(frozen=True, slots=True)
class RunnerRecord:
    """One runner on one model; `difference` from unoptimised onnxruntime, relative to the largest value."""

    name: str
    artifact: str = ""
    build_seconds: float = 0.0
    artifact_bytes: int = 0
    import_seconds: float = 0.0
    load_seconds: float = 0.0
    first_seconds: float = 0.0
    peak_mb: float = 0.0
    difference: float = 0.0
    median: float = 0.0
    minimum: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True)
class CaseRecord:
    """One model. `ratios`: each peer over Tessera; `peak_gflops`: of one core, median over the same rounds.

    `streaming`: for what is held to it, the share of the bandwidth; `memory_gbps`: of all threads, the same rounds.
    """

    name: str
    runners: tuple[RunnerRecord, ...]
    ratios: Mapping[str, Ratio]
    best: str | None
    rounds: int
    peak_gflops: float
    kernels: tuple[KernelRow, ...]
    standing: Standing | None = None
    streaming: Standing | None = None
    memory_gbps: float = 0.0

    def line(self) -> str:
        """The outcome in one line."""
        problems = [f"{r.name} failed: {r.error}" for r in self.runners if r.error]
        if self.best is None or self.best not in self.ratios:
            return f"{self.name}: nothing to compare; " + "; ".join(problems)
        found, held = self.ratios[self.best], self.standing
        times = ", ".join(f"{r.name} {1e3 * r.median:.3g} ms" for r in self.runners if not r.error)
        parts = [f"{found.median:.3f} ({found.low:.3f} to {found.high:.3f}) x {self.best}", times, *problems]
        if held is not None:
            parts[: held.against == self.best] = [held.text()]
        if self.streaming is not None:
            parts.append(f"{self.streaming.text()}, {self.memory_gbps:.1f} GB/s")
        return f"{self.name}: " + "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Report:
    """All models of one run."""

    threads: int
    roofline: Roofline
    cases: list[CaseRecord]

    def geometric_mean(self) -> float:
        """Of the ratios to the best peer of each model; NaN where there are none."""
        found = [case.ratios[case.best].median for case in self.cases if case.best is not None and case.ratios]
        return math.exp(sum(map(math.log, found)) / len(found)) if found else math.nan
