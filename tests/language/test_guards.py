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
# Each is refused where it is traced if its extents are numbers.
SYMBOLIC = """
from tessera import i8
@graph.module("m")
def m(x: Tensor["B", 2, "S", f32], y: Tensor[graph.dim("E", 0, 9), f32], z: Tensor["Z", i8]):
    n = x.shape[2]
    return {text}
"""
X, Y, Z = np.zeros((1, 2, 2), np.float32), np.zeros((0,), np.float32), np.zeros((300,), np.int8)
REFUSED = {
    "op.conv(x, op.ones((4, 2, 3)))": "a window is larger",
    "op.max_pool(x, 3)": "a window is larger",
    "op.avg_pool(x, 5, padding=1)": "a window is larger",
    "op.conv_transpose(x, op.ones((2, 2, 1)), padding=1)": "no such image",
    "op.resize(x[:, :, 2:], (3,))": "images of 1 or more",
    'op.resize(x, (n - 2,), mode="linear")': "images of 1 or more",
    "op.top_k(x, 3)": "top_k chooses more elements",
    "op.argmax(y)": "argmax along an axis without elements",
    "op.reduce_sum(op.zeros((n - 3,)))": "the extent S-3 is below zero",
    "op.reduce_sum(op.broadcast_to(x[0, 0, :1], (n - 3, 1)))": "the extent S-3 is below zero",
    "op.scan(lambda c, _: (c + 1.0, c), 0.0, length=n - 3)": "the extent S-3 is below zero",
    "op.dimension(n // y.shape[0])": "divided by E",
    "op.dimension(n % y.shape[0])": "divided by E",
    "z + z.shape[0]": "the extent Z is no number of type i8",
    'op.dimension(z.shape[0], "u8")': "the extent Z is no number of type u8",
    'op.dimension(n - 3, "u64")': "the extent S-3 is no number of type u64",
    'op.arange(z.shape[0], "i8")': "the extent Z-1 is no number of type i8",
}
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


@pytest.mark.parametrize("text", REFUSED)
def test_op_when_only_a_run_tells_that_its_extents_do_not_fit_then_the_run_is_refused(
    tmp_path: Path, text: str
) -> None:
    module = read_python(written(tmp_path, SYMBOLIC.format(text=text))).module
    with pytest.raises(TesseraError, match=REFUSED[text]) as caught:
        run(module, "m", {"x": X, "y": Y, "z": Z})
    assert (caught.value.code, str(caught.value.where)[:11]) == ("GUARD_FAILED", "model.py:7:")


def test_guard_when_it_fails_in_the_interpreter_then_names_the_authors_place(tmp_path: Path) -> None:
    module = read_python(written(tmp_path, DEMAND)).module
    with pytest.raises(TesseraError, match="odd third") as caught:
        run(module, "m", CASES["required"][1])
    assert (caught.value.code, caught.value.where) == ("GUARD_FAILED", "model.py:4:5")
