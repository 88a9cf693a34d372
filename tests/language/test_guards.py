"""What a run refuses carries the place of the author's call that demands it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tessera_build
import tessera_runtime
from bundle_format.errors import TesseraError
from tessera_build.frontends.python import read_python
from tessera_build.ir.graph.reference import run
from tessera_runtime.errors import RunError
from tests.language.build import written

pytestmark = pytest.mark.errors

DEMAND = """
def checked(x):
    graph.require((2 * x.shape[0] + 1) % 3, "==", 0, "odd third")
    return op.relu(x)

@graph.module("m")
def m(x: Tensor["S", 4]):
    return graph.grad(lambda y: op.reduce_sum(checked(y)))(x)
"""
CACHE = """
@graph.module("m")
def m(cache: KVCache[1, 2, 8, 4], x: Tensor[1, 2, "T", 4]):
    cache = cache.append(x, x)
    return op.reduce_sum(cache.keys), cache
"""
TAKEN = """
@graph.module("m")
def m(x: Tensor["S", 4]):
    first = x[:3]
    return first * 2.0
"""
CASES = {
    "required": (DEMAND, {"x": np.zeros((3, 4), np.float32)}, "odd third", "model.py:4:5"),
    "cache": (CACHE, {"x": np.zeros((1, 2, 9, 4), np.float32)}, "more keys and values", "model.py:5:13"),
    "slice": (TAKEN, {"x": np.zeros((2, 4), np.float32)}, "slice|axis|index|outside", "model.py:5:13"),
}


@pytest.mark.parametrize("case", CASES)
def test_guard_when_it_fails_in_a_run_then_names_the_authors_place(tmp_path: Path, case: str) -> None:
    body, inputs, message, place = CASES[case]
    bundle = tmp_path / "model.tessera"
    tessera_build.build(written(tmp_path, body), targets=["native"], out=bundle, verify=False, workers=1)
    with tessera_runtime.load(bundle, threads=1) as model:
        state = model.main.new_state() if case == "cache" else None
        with pytest.raises(RunError, match=message) as caught:
            model.main.run(inputs, state=state)
    assert (caught.value.code, caught.value.where) == ("GUARD_FAILED", place)


def test_guard_when_it_fails_in_the_interpreter_then_names_the_authors_place(tmp_path: Path) -> None:
    module = read_python(written(tmp_path, DEMAND)).module
    with pytest.raises(TesseraError, match="odd third") as caught:
        run(module, "m", CASES["required"][1])
    assert (caught.value.code, caught.value.where) == ("GUARD_FAILED", "model.py:4:5")
