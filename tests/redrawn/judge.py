"""Judges re-drawn models: what Tessera compiles must answer as onnxruntime and onnx's reference do.

Takes a range of seeds; gives one verdict each: `right`, `refused`, `wrong`, `crash`, `skipped` (no two oracles agree,
or none can run it) or `closer` (not as the oracles, but nowhere farther from the answer in doubles than they are, or by
no more than inputs rounded once would move it), with which oracles spoke. Invariant: seeds run in child processes that
a parent watches, so that a death costs one verdict.
Also a command: `python -m tests.redrawn.judge 0 1000`.
"""

from __future__ import annotations

import collections
import faulthandler
import json
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx

from bundle_format.errors import BundleError, TesseraError
from tessera_build.driver.build import build
from tessera_runtime import load
from tests.redrawn.cases import Case
from tests.redrawn.oracles import (
    Answers,
    beyond_rounding,
    by_doubles,
    by_onnxruntime,
    by_reference,
    difference,
    farther,
    outputs_of,
)
from tests.redrawn.table import drawn

ROOT = Path(__file__).parents[2]
SECONDS = 60.0
# Where it rounds up, onnx's reference has windows that lie in the padding alone.
_CEILED = frozenset(("AveragePool", "MaxPool", "LpPool"))
# Codes that speak of the model or of the call; any other speaks of the compiler.
_REFUSALS = frozenset(
    (
        "UNSUPPORTED",
        "BAD_MODEL",
        "TYPE_MISMATCH",
        "DIM_RANGE",
        "GUARD_FAILED",
        "INPUT_SHAPE",
        "BAD_INPUT",
        "DIM_MISMATCH",
        "SIZE_BEYOND_BOUND",
    )
)
_MODERN = 13  # before it, softmax and its like saw matrices, which onnx's reference does not know


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one seed; `oracle` is both, onnxruntime, reference or none."""

    seed: int
    name: str
    outcome: str
    oracle: str = "none"
    reason: str = ""
    seconds: float = 0.0


def compiled(case: Case, folder: Path) -> Answers:
    """Tessera's answers to all calls."""
    path = folder / "case.tessera"
    build(case.model, targets=["native"], out=path, verify=False, workers=1, cache=folder / "cache")
    try:
        with load(path, threads=1) as model:
            answers: Answers = []
            for feeds in case.calls:
                given = {s.name: np.array(feeds[s.name], order="C") for s in model.inputs}
                found = model.run(given)
                answers.append([np.array(found[name]) for name in _names(case.model, found)])
            return answers
    finally:
        path.unlink(missing_ok=True)


def _names(model: onnx.ModelProto, found: Mapping[str, object]) -> list[str]:
    """The outputs in the model's order; a sequence has one for each member."""
    return [n for o in outputs_of(model) for n in ([o] if o in found else [f for f in found if f.startswith(f"{o}[")])]


def _expected(case: Case) -> tuple[str, list[Answers]]:
    """Which oracles speak, and their answers; one that speaks alone must not contradict what onnx infers."""
    first, second = by_onnxruntime(case), by_reference(case)
    if first is None:
        return ("reference", [second]) if second is not None and _sound(case.model, second) else ("none", [])
    if second is None:
        sound = fits(case.model, first) and not any(_cuts_off(n) for n in case.model.graph.node)
        return ("onnxruntime", [first]) if sound else ("none", [])
    return ("disagree", [first, second]) if difference(second, first, case.steps) else ("both", [first])


def _cuts_off(node: onnx.NodeProto) -> bool:
    """Whether windows under SAME lie so far apart that onnxruntime pads by a negative number of elements.

    It then leaves out elements at the beginning, where onnx's reference of Conv, its shape inference and TensorFlow
    pad nothing.
    """
    stated = {attribute.name: attribute for attribute in node.attribute}
    if "kernel_shape" not in stated or not stated.get("auto_pad", onnx.AttributeProto()).s.startswith(b"SAME"):
        return False
    kernel = list(stated["kernel_shape"].ints)
    strides, dilations = (list(stated[n].ints) if n in stated else [1] * len(kernel) for n in ("strides", "dilations"))
    return any(s > (k - 1) * d + 2 for k, s, d in zip(kernel, strides, dilations, strict=False))


def _sound(model: onnx.ModelProto, answers: Answers) -> bool:
    """True when the reference has the shapes that onnx infers, at an opset whose meanings it implements."""
    pools = any(n.op_type in _CEILED for n in model.graph.node)
    sorts = any(n.op_type == "Unique" for n in model.graph.node)  # along an axis, even where told not to
    fractions = any(n.op_type == "OneHot" for n in model.graph.node)  # have no place, where the text cuts them off
    told = not (pools or sorts or fractions) and model.opset_import[0].version >= _MODERN
    return told and fits(model, answers)


def fits(model: onnx.ModelProto, answers: Answers) -> bool:
    """True when answers have the types, ranks and known extents that onnx infers of the model.

    Onnxruntime overlooks negative axes of reductions of nothing before opset 13, for one.
    """
    types = [o.type.tensor_type for o in onnx.shape_inference.infer_shapes(model).graph.output]
    return all(
        t.elem_type in (0, onnx.helper.np_dtype_to_tensor_dtype(a.dtype))
        and len(t.shape.dim) == a.ndim
        and all(not d.HasField("dim_value") or d.dim_value == e for d, e in zip(t.shape.dim, a.shape, strict=True))
        for arrays in answers
        for t, a in zip(types, arrays, strict=False)
        if t.HasField("shape")
    )


def judge(seed: int, folder: Path) -> Verdict:
    """One seed, here."""
    start = time.monotonic()
    case = drawn(seed)
    oracle, wanted = _expected(case)
    outcome, reason = "right", ""
    try:
        found = compiled(case, folder)
        texts = [difference(found, answers, case.steps) for answers in wanted]
        if oracle in ("none", "disagree"):
            outcome, reason = "skipped", "neither agrees" if texts and all(texts) else "one agrees"
        elif texts[0]:
            outcome, reason = "wrong", texts[0]
            exact = by_doubles(case)
            if exact is not None and not (
                farther(found, wanted[0], exact) and beyond_rounding(case, found, wanted[0], exact)
            ):
                outcome = "closer"
    except TesseraError as error:
        outcome, reason = "refused", _problem(error)
        if error.code not in _REFUSALS or isinstance(error, BundleError):
            outcome, reason = "crash", _innermost(error.__cause__ or error)
        elif not wanted:
            outcome = "skipped"
    except Exception as error:
        outcome, reason = "crash", _innermost(error)
    return Verdict(seed, case.name, outcome, oracle, reason, time.monotonic() - start)


def _problem(error: TesseraError) -> str:
    problems: tuple[TesseraError, ...] = getattr(error, "problems", ())
    chosen = problems[0] if problems else error
    return f"{chosen.code}: {chosen.message}; found {chosen.found}"


def _innermost(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)[-3:])[-700:]


def _serve(first: int, last: int, step: int, report: Path) -> None:
    faulthandler.enable()
    with tempfile.TemporaryDirectory() as name, report.open("a", encoding="utf-8", buffering=1) as file:
        for seed in range(first, last, step):
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            file.write(json.dumps(asdict(judge(seed, Path(name)))) + "\n")


def run(first: int, last: int, workers: int = 2) -> list[Verdict]:
    """Judge all seeds in child processes."""
    with tempfile.TemporaryDirectory() as name:
        children = [_Child((first + i, last, workers), Path(name, f"{i}.jsonl")) for i in range(workers)]
        while sum(child.finished() for child in children) < workers:  # all are asked: any may have to be started again
            time.sleep(0.1)
        return sorted((v for child in children for v in child.verdicts()), key=lambda v: v.seed)


class _Child:
    """One process over every n-th seed; started again behind a seed that killed or stopped it."""

    def __init__(self, seeds: tuple[int, int, int], report: Path) -> None:
        self._next, self._last, self._step = seeds
        self._report, self._log = report, report.with_suffix(".log")
        self._done = False
        self._start()

    def _start(self) -> None:
        words = [str(word) for word in (self._next, self._last, self._step, self._report)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "tests.redrawn.judge", "--child", *words],
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )

    def verdicts(self) -> list[Verdict]:
        """All so far."""
        if not self._report.exists():
            return []
        return [Verdict(**json.loads(line)) for line in self._report.read_text(encoding="utf-8").splitlines()]

    def finished(self) -> bool:
        """True when every seed has its verdict; a child that hangs ends itself."""
        if self._done:
            return True
        code = self._process.poll()
        if code is None:
            return False
        found = self.verdicts()
        self._next = found[-1].seed + self._step if found else self._next
        if code and self._next < self._last:
            tail = self._log.read_text(encoding="utf-8", errors="replace")[-1500:]
            outcome = "skipped" if "in by_onnxruntime" in tail else "crash"
            verdict = Verdict(self._next, "?", outcome, reason=f"the process ended with {code}: {tail}")
            with self._report.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(verdict)) + "\n")
            self._next += self._step
        self._done = self._next >= self._last
        if not self._done:
            self._start()
        return self._done


def bad(verdicts: list[Verdict]) -> list[Verdict]:
    """Those that are neither an answer nor a refusal, as far as an oracle with a voice says so."""
    return [v for v in verdicts if v.outcome in ("wrong", "crash")]


def _main(first: int, last: int) -> None:
    start = time.monotonic()
    verdicts = run(first, last)
    for v in bad(verdicts):
        print(f"{v.seed} {v.name} {v.outcome} ({v.oracle}) {v.seconds:.1f} s: {v.reason}")
    print(collections.Counter(f"{v.outcome} ({v.oracle})" for v in verdicts), f"{time.monotonic() - start:.0f} s")
    print("neither oracle:", [(v.seed, v.name) for v in verdicts if v.oracle == "disagree" and "neither" in v.reason])
    kinds = collections.Counter((v.name, re.sub(r"\d+", "#", v.reason)) for v in verdicts if v.outcome == "refused")
    for (name, reason), count in kinds.most_common(60):
        print(f"{count:5} {name}: {reason}")


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        _serve(int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
    else:
        _main(int(sys.argv[1]), int(sys.argv[2]))
