"""Modules called with arrays: whatever speaks DLPack is one."""

from __future__ import annotations

import numpy as np

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
