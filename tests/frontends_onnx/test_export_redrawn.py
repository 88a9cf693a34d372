"""Exports of re-drawn models of every operator: onnxruntime computes what the reference does, or has no code for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernelError

from bundle_format.errors import TesseraError
from tessera_build.frontends.onnx import UnsupportedError, read_onnx
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.reference import run
from tests.frontends_onnx.exported import run_exported
from tests.redrawn.oracles import difference
from tests.redrawn.table import drawn

Arrays = Mapping[str, Array]
pytestmark = [pytest.mark.numerics, pytest.mark.filterwarnings("ignore")]


def _outcomes(first: int, last: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    for seed in range(first, last):
        case = drawn(seed)
        try:
            module = read_onnx(case.model)
        except TesseraError:
            counts["not read"] += 1
            continue
        for call in case.calls:
            feeds = {name: np.asarray(call[name]) for name in module.input_names["main"]}
            try:
                wanted = run(module, "main", feeds)
            except TesseraError:
                counts["not run"] += 1
                continue
            counts[_outcome(seed, module, feeds, wanted, case.steps)] += 1
    return counts


def _outcome(seed: int, module: Module, feeds: Arrays, wanted: Arrays, steps: int) -> str:
    try:
        found = run_exported(module, "main", feeds)
    except NoKernelError:
        return "no kernel"
    except UnsupportedError:
        return "no form"
    text = difference([[found[name] for name in wanted]], [list(wanted.values())], steps)
    assert not text, f"seed {seed}: {text}"
    return "right"


def _check(counts: Counter[str]) -> None:
    total = sum(counts.values())
    assert counts["right"] >= 0.95 * total, counts


def test_redrawn_models_when_exported_then_onnxruntime_agrees() -> None:
    _check(_outcomes(0, 100))


@pytest.mark.slow
def test_many_redrawn_models_when_exported_then_onnxruntime_agrees() -> None:
    _check(_outcomes(0, 6000))
