"""How exact a model's compiled gradients are at points near its cases, and how exact float32 could be there.

Takes an ONNX file with cases beside it and a range of seeds; prints for each point the largest error of an element,
relative to the largest of its gradient, and the error of all gradients as one vector: of the compiled code, of the
reference that rounds each value once to the nearest float32, and the largest of some that round each value up or down
at random (stochastic rounding). Where the last is large, the point is one that float32 cannot tell: the reference that
rounds to nearest may have been lucky there. Invariant: all are compared with float64 on the piece on which the compiled
code went. Values inside of loops and branches are not rounded at random.
Also a command: `python -m tests.autodiff.errors_near ch_PP-OCRv4_det_infer.onnx 40 57`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import tessera_runtime
from bundle_format.writer import write_bundle
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.graph.reference import Course, run, run_along
from tests.autodiff.pieces import observed, told
from tests.autodiff.public import (
    Point,
    Subject,
    cases_of,
    errors_of,
    length,
    narrowed,
    pieces_made,
    point_near,
    subject_of,
)
from tests.lower.compiled import compile_module

Arrays = Mapping[str, Array]
Peer = Callable[[Point], Arrays]  # gradients, some of them perhaps
Row = tuple["Errors", ...]


@dataclass(frozen=True, slots=True)
class Errors:
    """`element`: the largest of any, relative to the largest of its gradient; `tensors`: how many gradients have one
    above 1e-4; `whole`: the length of the error over that of all gradients."""

    element: float
    tensors: int
    whole: float

    def __str__(self) -> str:
        return f"{self.element:.1e} ({self.tensors:3d}) {self.whole:.1e}"


class Judge:
    """A model's gradients in float64, in float32, compiled, and by a peer if there is one."""

    def __init__(self, subject: Subject, folder: Path, peer: Peer | None = None) -> None:
        self.subject, self.peer = subject, peer
        self.narrow, self.wide = subject.gradients(), subject.wide().gradients()
        self.bundle = folder / "gradient.tessera"
        write_bundle(self.bundle, [compile_module(run_passes(observed(self.narrow, "main"))).variant])

    def errors(self, point: Point, draws: int) -> Row:
        """Those of the compiled code, of rounding to nearest, the worst of rounding at random, and the peer's."""
        given = {**narrowed(point.given), **point.inputs}
        with tessera_runtime.load(self.bundle, threads=1) as model:
            found = model.run(given)
        pieces = pieces_made(self.wide, point.given, found)
        wide = {**point.given, **pieces}
        exact = run(told(self.wide, "main"), "main", wide)
        nearest = run(told(self.narrow, "main"), "main", {**given, **narrowed(pieces)})
        chance = [self._errors(_run_by_chance(told(self.wide, "main"), wide, seed), exact) for seed in range(draws)]
        worst = Errors(max(e.element for e in chance), max(e.tensors for e in chance), max(e.whole for e in chance))
        row = (self._errors(found, exact), self._errors(nearest, exact), worst)
        return row if self.peer is None else (*row, self._errors(self.peer(point), run(self.wide, "main", point.given)))

    def _errors(self, found: Arrays, exact: Arrays) -> Errors:
        wrt = [w for w in self.subject.wrt if f"{w}_gradient" in found]
        errors = errors_of(found, exact, wrt).values()
        return Errors(max(errors), sum(e > 1e-4 for e in errors), length(found, exact, wrt) / length(exact, {}, wrt))


def _run_by_chance(module: Module, inputs: Arrays, seed: int) -> dict[str, Array]:
    """The entry in float64, with each value rounded to one of its two neighbours in float32."""
    rng, function = np.random.default_rng(seed), module.entries["main"]
    names: dict[int, list[str]] = {}
    for value, name in zip(function.results, module.output_names["main"], strict=True):
        names.setdefault(value, []).append(name)
    found: dict[str, Array] = {}

    def correct(value: int, array: Array) -> Array:
        rounded = _by_chance(array, rng) if array.dtype == np.float64 else array
        found.update(dict.fromkeys(names.get(value, ()), rounded))
        return rounded

    run_along(module, "main", inputs, function.results, Course(correct))
    return found


def _by_chance(array: Array, rng: np.random.Generator) -> Array:
    """Up or down, the nearer neighbour the more often: what is a float32 stays."""
    values = np.asarray(array, np.float64)
    nearest = values.astype(np.float32)
    near = nearest.astype(np.float64)
    with np.errstate(all="ignore"):
        other = np.nextafter(nearest, np.where(values > near, np.inf, -np.inf).astype(np.float32)).astype(np.float64)
        share = np.where(values == near, 0.0, np.abs(values - near) / np.abs(other - near))
    return np.where(rng.random(values.shape) < share, other, near)


def errors_near(path: Path, seeds: range, draws: int, *, torch: bool = False) -> Iterator[tuple[int, Row]]:
    """Errors at one point for each seed; the cases take turns."""
    subject, cases = subject_of(path), cases_of(path)
    with tempfile.TemporaryDirectory() as folder:
        judge = Judge(subject, Path(folder), _torch(path, subject) if torch else None)
        for seed in seeds:
            yield seed, judge.errors(point_near(cases[seed % len(cases)], subject.module, seed=seed), draws)


def _torch(path: Path, subject: Subject) -> Peer:
    from tests.autodiff.by_torch import differentiable, gradients_of  # noqa: PLC0415  an extra that few have

    wrt = differentiable(path, subject.wrt)
    return lambda point: gradients_of(path, point, wrt)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("first", type=int)
    parser.add_argument("end", type=int)
    parser.add_argument("--draws", type=int, default=3, help="how often values are rounded at random")
    parser.add_argument("--torch", action="store_true", help="also PyTorch's gradients, where it takes them")
    chosen = parser.parse_args()
    if chosen.draws < 1 or chosen.end <= chosen.first:
        parser.error("at least one point, and one draw")
    titles = ("compiled", "nearest", f"at random, worst of {chosen.draws}", *(["PyTorch"] if chosen.torch else []))
    print("seed  " + "".join(f"{title:24}" for title in titles).rstrip())
    rows: list[Row] = []
    for seed, row in errors_near(chosen.model, range(chosen.first, chosen.end), chosen.draws, torch=chosen.torch):
        rows.append(row)
        print(f"{seed:4d}  " + "".join(f"{error!s:24}" for error in row).rstrip(), flush=True)
    _print_means(rows)


def _print_means(rows: list[Row]) -> None:
    def mean(of: Callable[[Errors], float], column: int) -> float:
        return float(np.exp(np.mean([np.log(of(row[column])) for row in rows])))

    columns = range(len(rows[0]))
    for title, of in (("element", lambda e: e.element), ("whole", lambda e: e.whole)):
        means = "".join(f"{mean(of, column):<24.1e}" for column in columns)
        above = ", ".join(str(sum(of(row[column]) > 1e-4 for row in rows)) for column in columns)
        print(f"{title:>8}: geometric means {means} above 1e-4: {above} of {len(rows)}")


if __name__ == "__main__":
    main()
