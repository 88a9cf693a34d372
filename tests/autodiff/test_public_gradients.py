"""Gradients of models that other people ship, from the folder that TESSERA_CASES names (see tests/models).

By all float inputs and weights, at the inputs of each case moved a little: in float64 against differences through the
reference, and compiled in float32 against float64. Nothing is left out for being near a kink. Differences are taken
with steps down to where no unit changes its side; and what compiled code gives is compared with the float64 gradient of
the piece on which it went itself, which may be another only where operands of a comparison are equal to float32.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import tessera_runtime
from bundle_format.errors import TesseraError
from bundle_format.writer import write_bundle
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.graph.reference import run
from tests.autodiff.pieces import observed, told
from tests.autodiff.public import (
    Floats,
    Point,
    cases_of,
    errors_of,
    lengths_of,
    narrowed,
    pieces_made,
    point_near,
    positive,
    subject_of,
)
from tests.lower.compiled import compile_module

FOLDER = os.environ.get("TESSERA_CASES", "")
MODELS = sorted(Path(FOLDER).glob("*.onnx")) if FOLDER else []
# What is constant between jumps: leaves of trees, and numbers that are rounded to eight bits on the way.
STEPWISE = ("TreeEnsemble", "DynamicQuantize", "MatMulInteger")
STEPS = (1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
TOGETHER = 8  # weights that move at once, each with the same share in the slope


def _is_stepwise(path: Path) -> bool:
    model = onnx.load(path, load_external_data=False)
    return any(node.op_type.startswith(STEPWISE) for node in model.graph.node)


REFUSED = [path for path in MODELS if _is_stepwise(path)]
SMOOTH = [path for path in MODELS if path not in REFUSED]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.numerics,
    pytest.mark.skipif(not MODELS, reason="TESSERA_CASES names no folder with models"),
]


@pytest.mark.parametrize("path", REFUSED, ids=lambda path: path.stem)
def test_gradient_of_public_model_when_it_is_constant_between_jumps_then_is_refused(path: Path) -> None:
    subject = subject_of(path)
    with pytest.raises(TesseraError, match=r"trees jump|rounded") as refusal:
        subject.gradients()
    assert refusal.value.code == "NOT_DIFFERENTIABLE"


@dataclass(frozen=True, slots=True)
class Differences:
    """The float64 model around a point: what its outputs' projection changes by where weights move."""

    module: Module
    point: Point

    def slope(self, change: Mapping[str, Floats], step: float) -> float:
        """The central difference; outputs are subtracted before they are projected."""
        ahead, behind = (self._moved(change, sign * step) for sign in (1, -1))
        parts = [np.sum(np.subtract(ahead[n], behind[n]) * c) for n, c in self.point.cotangents.items()]
        return float(np.sum(parts)) / (2 * step)

    def value(self, name: str) -> Array:
        """An input or a weight."""
        return self.point.wide[name] if name in self.point.wide else self.module.constants[self._digest(name)]

    def _digest(self, name: str) -> str:
        return next(digest for digest, known in self.module.constant_names.items() if known == name)

    def _moved(self, change: Mapping[str, Floats], step: float) -> dict[str, Array]:
        constants, inputs = dict(self.module.constants), dict(self.point.wide)
        for name, direction in change.items():
            moved = np.asarray(np.add(self.value(name), np.multiply(direction, step)))
            if name in inputs:
                inputs[name] = moved
            else:
                constants[self._digest(name)] = moved
        return run(replace(self.module, constants=constants), "main", inputs)


@pytest.mark.parametrize("path", SMOOTH, ids=lambda path: path.stem)
def test_gradient_of_public_model_when_in_float64_then_is_that_of_differences(path: Path) -> None:
    subject = subject_of(path).wide()
    entry = subject.gradients()
    for case in cases_of(path):
        point = point_near(case, subject.module)
        found = run(entry, "main", point.given)
        gradients = {w: found[f"{w}_gradient"].astype(np.float64) for w in subject.wrt}
        _check_slopes(Differences(subject.module, point), gradients)


def _check_slopes(at: Differences, gradients: Mapping[str, Floats]) -> None:
    """Weights move in groups of like influence, so that each has the same share in the slope of its group."""
    rng = np.random.default_rng(1)
    sizes = {w: max(float(np.abs(at.value(w)).mean()), 1e-3) for w in gradients}
    shares = {w: float(np.linalg.norm(g)) * sizes[w] for w, g in gradients.items()}
    # Zero but for rounding: a bias of keys before a softmax, which all scores of a query share.
    none = {w for w in gradients if shares[w] <= 1e-12 * max(shares.values())}
    silent = {w: rng.standard_normal(g.shape) * sizes[w] for w, g in gradients.items() if w in none}
    _check_slope(at, silent, 0.0, 1e-9 * max(shares.values()))
    order = sorted((w for w in gradients if w not in none), key=lambda w: shares[w])
    for start in range(0, len(order), TOGETHER):
        group = order[start : start + TOGETHER]
        least = shares[group[0]]
        change = {w: rng.standard_normal(gradients[w].shape) * (sizes[w] * least / shares[w]) for w in group}
        _check_slope(at, change, sum(float(np.sum(gradients[w] * change[w])) for w in group), 1e-5 * least)


def _check_slope(at: Differences, change: Mapping[str, Floats], slope: float, tolerance: float) -> None:
    """One of the steps is short enough for no unit to change its side, and long enough for rounding."""
    errors: list[float] = []
    for step in STEPS:
        errors.append(abs(at.slope(change, step) - slope))
        if errors[-1] <= tolerance:
            return
    raise AssertionError((change.keys(), tolerance, errors))


@pytest.mark.parametrize("path", SMOOTH, ids=lambda path: path.stem)
def test_gradient_of_public_model_when_compiled_then_is_that_of_float64(path: Path, tmp_path: Path) -> None:
    subject = subject_of(path)
    narrow, wide = subject.gradients(), subject.wide().gradients()
    bundle = tmp_path / "gradient.tessera"
    write_bundle(bundle, [compile_module(run_passes(observed(narrow, "main"))).variant])
    for case, draw in itertools.product(cases_of(path), (positive, np.random.Generator.standard_normal)):
        point = point_near(case, subject.module, draw)
        given = {**narrowed(point.given), **point.inputs}
        with tessera_runtime.load(bundle, threads=1) as model:
            found = model.run(given)
        pieces = pieces_made(wide, point.given, found)
        exact = run(told(wide, "main"), "main", {**point.given, **pieces})
        _check_gradients(found, exact, subject.wrt)


def _check_gradients(found: Mapping[str, Array], exact: Mapping[str, Array], wrt: Sequence[str]) -> None:
    """Every gradient within 1e-4 of its length, and each element within 1e-4 of its gradient's largest."""
    for errors in (lengths_of(found, exact, wrt), errors_of(found, exact, wrt)):
        assert max(errors.values()) <= 1e-4, {w: error for w, error in errors.items() if error > 1e-4}
