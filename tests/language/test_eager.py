"""Modules called with arrays: whatever speaks DLPack is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tessera.errors import LanguageError
from tessera_build.ir.graph.nodes import Array
from tests.language.build import HEAD

# As an author writes it: annotations of the language are values, which a type checker cannot read.
_MODEL = """
from tessera import Tensor, f32, graph

@graph.module("twice")
def twice(x: Tensor["B", 3, f32]):
    return x + x

class Speaker:
    def __init__(self, array):
        self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__

def answer(array):
    return twice(Speaker(array))
"""


def test_module_when_called_with_what_speaks_dlpack_then_answers_as_for_the_array() -> None:
    space: dict[str, object] = {}
    exec(compile(_MODEL, "model.py", "exec"), space)
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(space["answer"](array), 2 * array)  # type: ignore[operator]


_STEPS = """
from tessera import Tensor, bf16, executor, f32, graph, i64, op, u64

@graph.jit
def step(x: Tensor["B", 3, f32], rate: Tensor[f32], times: Tensor[i64], power: int = 2):
    return {"x": x * rate, "times": (times + 1,), "power": op.cast(times, f32) ** power}

@graph.module("noise")
def noise(x: Tensor["B", 3, f32], key: Tensor[u64]):
    return x + op.random.normal(key, x.shape)
"""


def _steps() -> dict[str, Any]:
    space: dict[str, Any] = {}
    exec(compile(_STEPS, "model.py", "exec"), space)
    return space


@pytest.mark.numerics
@pytest.mark.parametrize("rate", [0.5, 2, np.float32(3), np.float64(0.25), np.asarray(7, np.float32)])
def test_number_when_its_argument_is_a_tensor_then_is_an_array_of_that_type(rate: float) -> None:
    x = np.ones((2, 3), np.float32)
    for times in (4, np.int64(4), np.asarray(4)):
        found = _steps()["step"](x, rate, times=times)
        np.testing.assert_array_equal(found["x"], np.float32(rate) * x)
        assert (found["times"][0].dtype, int(found["times"][0])) == (np.int64, 5)
        assert float(found["power"]) == 16.0


@pytest.mark.numerics
def test_jit_when_a_rate_changes_then_is_not_traced_again() -> None:
    step, x = _steps()["step"], np.ones((2, 3), np.float32)
    for rate in (0.1, 0.2, np.float32(0.3)):
        step(x, rate, 1)
    assert len(step.known) == 1
    step(x, 0.1, 1, 3)
    assert len(step.known) == 2


@pytest.mark.numerics
def test_key_when_given_as_a_number_then_is_the_one_of_an_array() -> None:
    noise, x = _steps()["noise"], np.zeros((2, 3), np.float32)
    np.testing.assert_array_equal(noise(x, 7), noise(x, np.asarray(7, np.uint64)))


@pytest.mark.errors
@pytest.mark.parametrize(
    ("rate", "times", "code"),
    [
        (0.5, 1.5, "NUMBER_CHANGES_TYPE"),
        (np.int64(2), 1, "ARGUMENT_MISMATCH"),
        (0.5, 1 << 63, "NUMBER_CHANGES_TYPE"),
    ],
)
def test_number_when_its_type_is_another_then_is_refused_at_the_call(rate: float, times: float, code: str) -> None:
    with pytest.raises(LanguageError) as refused:
        _steps()["step"](np.ones((2, 3), np.float32), rate, times)
    assert refused.value.code == code
    assert (refused.value.where or "").startswith("test_eager.py:")


STATED = """
from tessera import i8, rolling_window, saturate

@graph.module("twice")
def twice(x: Tensor[3, i8 @ saturate], last: State[3, i8 @ saturate]):
    return x + x, last.set(last.value + last.value)

@graph.module("cached")
def cached(q: Tensor[1, 2, 1, 4], cache: KVCache[1, 2, 8, 4, f32] @ rolling_window):
    return op.flash_attention(q, cache), cache

@graph.module("root")
def root(s: Tensor[f64]):
    return op.sqrt(s), op.reshape(s, (1,))[0]

@graph.module("roots")
def roots(x: Tensor[2, f64]):
    return root(x.shape[0] - 0), root(2.0)

def saturated(x):
    y, last = twice(x, State(x))
    return y, last.value

def grown(q):
    rows = np.zeros((1, 2, 8, 4), np.float32)
    return cached(q, KVCache(rows, rows, np.zeros(1, np.int64)))

def narrow(x):
    return twice(x, State(x[:2]))
"""


def _stated() -> dict[str, Callable[[Array], tuple[Array, Array]]]:
    names: dict[str, Callable[[Array], tuple[Array, Array]]] = {}
    exec(f"import numpy as np\n{HEAD}{STATED}", names)
    return names


@pytest.mark.numerics
def test_call_when_annotations_state_policies_then_arrays_are_under_them() -> None:
    for found in _stated()["saturated"](np.array([100, -100, 5], np.int8)):
        np.testing.assert_array_equal(found, [127, -128, 10])


@pytest.mark.errors
@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("grown", np.zeros((1, 2, 1, 4), np.float32), "KVCache(keys, values, length, rolling=True)"),
        ("narrow", np.zeros(3, np.int8), "i8[3] @ saturate"),
    ],
)
def test_call_when_a_state_is_another_than_stated_then_is_refused(name: str, given: Array, expected: str) -> None:
    with pytest.raises(LanguageError, match="ARGUMENT_MISMATCH") as refused:
        _stated()[name](given)
    assert refused.value.expected == expected


@pytest.mark.numerics
def test_call_when_another_entry_makes_it_with_a_number_then_is_of_the_stated_type() -> None:
    for root, number in _stated()["roots"](np.zeros(2)):
        assert (root.dtype, float(root), float(number)) == (np.float64, np.sqrt(2.0), 2.0)
