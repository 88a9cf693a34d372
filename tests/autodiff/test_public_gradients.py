"""Gradients of models that other people ship, from the folder that TESSERA_CASES names (see tests/models).

By float inputs and weights, at a point beside the case's own: in float64 against differences, and compiled in float32
against float64. Ties, such as equal pixels in a window, make kinks of the models' own inputs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tessera_runtime
from bundle_format.writer import write_bundle
from tessera_build.frontends.onnx import read_onnx
from tessera_build.ir.graph.autodiff.entries import with_grad
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.graph.reference import run
from tests.autodiff.models import only, widened
from tests.lower.compiled import compile_module

FOLDER = os.environ.get("TESSERA_CASES", "")
MODELS = sorted(Path(FOLDER).glob("*.onnx")) if FOLDER else []
STEPS = (1e-5, 1e-6, 1e-7, 1e-8)
# A weight whose gradient is this much smaller than the largest is zero but for rounding: a bias before a softmax.
SMALL = 1e-3


def _point(path: Path, module: Module) -> dict[str, Array]:
    """The first case's inputs, floats moved a little."""
    archive = np.load(sorted(path.parent.glob(f"{path.stem}.case*.in.npz"))[0])
    rng, found = np.random.default_rng(5), dict[str, Array]()
    for index, name in enumerate(archive["names"]):
        array = archive[f"i{index:02d}"]
        if str(name) in module.input_names["main"]:
            noise = rng.standard_normal(array.shape) * (0.01 * np.abs(array.astype(np.float64)).mean() + 1e-3)
            found[str(name)] = (array + noise).astype(array.dtype) if array.dtype.kind == "f" else array
    return found


def _wrt(module: Module) -> list[str]:
    function = module.entries["main"]
    names = zip(module.input_names["main"], function.args, strict=True)
    inputs = [n for n, a in names if function.types[a].dtype.is_float]
    digests = [str(n.attributes["digest"]) for n in graph_nodes(function) if n.op == "constant"]
    weights = [d for d in digests if module.constants[d].dtype.kind == "f" and module.constants[d].size > 8]
    return inputs + [module.constant_names[d] for d in weights if module.constant_names.get(d)]


def _wide(arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in arrays.items()}


def _moved(module: Module, point: Mapping[str, Array], change: Mapping[str, Array], step: float) -> dict[str, Array]:
    """The outputs where inputs and weights have moved."""
    digests = {name: digest for digest, name in module.constant_names.items()}
    constants, inputs = dict(module.constants), dict(point)
    for name, direction in change.items():
        place, key = (inputs, name) if name in inputs else (constants, digests[name])
        place[key] = np.asarray(np.add(place[key], np.multiply(direction, step)))
    return run(replace(module, constants=constants), "main", inputs)


def _projected(outputs: Mapping[str, Array], cotangents: Mapping[str, Array]) -> float:
    return sum(float(np.sum(np.multiply(outputs[n], c))) for n, c in cotangents.items())


@pytest.mark.slow
@pytest.mark.numerics
@pytest.mark.skipif(not MODELS, reason="TESSERA_CASES names no folder with models")
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_gradient_of_public_model_when_compiled_then_is_that_of_differences(path: Path, tmp_path: Path) -> None:
    module = read_onnx(path)
    if any(n.op == "tree_ensemble" for n in graph_nodes(module.entries["main"])):
        pytest.skip("trees are constant between their jumps")
    point, wrt, wide = _point(path, module), _wrt(module), widened(module)
    derived, rng = with_grad(wide, "main", wrt), np.random.default_rng(0)
    outputs = run(wide, "main", _wide(point))
    asked = [n.removesuffix("_cotangent") for n in derived.input_names["main_grad"] if n not in point]
    cotangents = {n: rng.standard_normal(outputs[n].shape) for n in asked}
    given = {f"{n}_cotangent": c for n, c in cotangents.items()}
    exact = run(derived, "main_grad", {**_wide(point), **given})
    gradients = {w: exact[f"{w}_gradient"].astype(np.float64) for w in wrt}
    change = {w: rng.standard_normal(g.shape) * 0.1 for w, g in gradients.items()}
    slope = sum(float(np.sum(g * change[w])) for w, g in gradients.items())
    ends = [[_projected(_moved(wide, _wide(point), change, s * h), cotangents) for s in (1, -1)] for h in STEPS]
    errors = [abs((a - b) / (2 * h) - slope) for h, (a, b) in zip(STEPS, ends, strict=True)]
    assert min(errors) <= 1e-5 * abs(slope), (slope, errors)
    bundle = tmp_path / "gradient.tessera"
    write_bundle(bundle, [compile_module(run_passes(only(with_grad(module, "main", wrt), "main_grad"))).variant])
    with tessera_runtime.load(bundle, threads=1) as model:
        found = model.run({**point, **{n: c.astype(np.float32) for n, c in given.items()}})
        largest = max(float(np.abs(g).max(initial=0)) for g in gradients.values())
        for w, gradient in gradients.items():
            scale = max(float(np.abs(gradient).max(initial=0)), SMALL * largest)
            assert float(np.abs(found[f"{w}_gradient"].astype(np.float64) - gradient).max(initial=0)) <= 1e-4 * scale, w
