"""Operators that choose or place elements by data agree with onnxruntime, imported and compiled."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

import tessera_build
import tessera_runtime
from bundle_format.errors import TesseraError
from tests.frontends_onnx.built import assert_built_agrees, run_built
from tests.frontends_onnx.choice_cases import CHOICES, model_of
from tests.frontends_onnx.oracle import assert_agrees

pytestmark = pytest.mark.numerics


@pytest.mark.parametrize("op", CHOICES)
@pytest.mark.parametrize("seed", range(15))
def test_choice_when_redrawn_then_agrees(op: str, seed: int) -> None:
    model, case = CHOICES[op](random.Random(seed))
    assert_agrees(model, case)


@pytest.mark.parametrize("op", CHOICES)
@pytest.mark.parametrize("seed", range(100, 104))
def test_choice_when_built_then_agrees(op: str, seed: int) -> None:
    model, case = CHOICES[op](random.Random(seed))
    assert_built_agrees(model, case)


@pytest.mark.parametrize("circular", [False, True], ids=["linear", "circular"])
def test_cache_when_updated_then_agrees_with_the_definition(circular: bool) -> None:
    """onnxruntime has no TensorScatter on CPUs, so that the definition is written out here."""
    cache, update = np.zeros((2, 3, 6, 4), np.float32), np.ones((2, 3, 4, 4), np.float32)
    first = np.array([5, 3]) if circular else np.array([2, 0])
    operands = {"cache": cache, "update": update, "first": first}
    mode = "circular" if circular else "linear"
    model, case = model_of("TensorScatter", operands, 1, random.Random(3), mode=mode, axis=2, opset=24)
    wanted = cache.copy()
    for b, t in np.ndindex(2, 4):
        wanted[b, :, (first[b] + t) % 6] = update[b, :, t]
    ((found,),) = run_built(model, [case])
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.errors
def test_scatter_when_an_index_is_outside_then_the_run_ends_with_its_name(tmp_path: Path) -> None:
    operands = {"data": np.zeros(4, np.float32), "indices": np.array([1, 4]), "updates": np.ones(2, np.float32)}
    model, case = model_of("ScatterElements", operands, 1, random.Random(1), axis=0)
    tessera_build.build(model, targets=["native"], out=tmp_path / "m.tessera", verify=False, workers=1)
    with tessera_runtime.load(tmp_path / "m.tessera") as loaded, pytest.raises(TesseraError) as caught:
        loaded.run(case)
    assert (caught.value.code, caught.value.where) == ("INDEX_OUT_OF_RANGE", "node")


@pytest.mark.errors
def test_top_k_when_data_ask_for_more_than_there_are_then_the_run_ends(tmp_path: Path) -> None:
    model, case = model_of("TopK", {"x": np.zeros(4, np.float32), "k": np.array([5])}, 2, random.Random(1))
    tessera_build.build(model, targets=["native"], out=tmp_path / "m.tessera", verify=False, workers=1)
    with tessera_runtime.load(tmp_path / "m.tessera") as loaded, pytest.raises(TesseraError, match="size"):
        loaded.run(case)
