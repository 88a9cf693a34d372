"""Parameters: each is itself, whatever numbers it begins with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.language.build import compiled

BIASES = """
b1 = op.tensor((3,), init=op.init.zeros())
b2 = op.tensor((3,), init=op.init.zeros())


def value(x):
    return op.reduce_sum((x + b1) * 2.0) + op.reduce_sum((x * b2) * 5.0) + op.reduce_sum(op.zeros((3,)) * x)


@graph.module("gradients")
def gradients(x: Tensor[3]):
    return graph.backward(value(x), wrt=[b1, b2])


@graph.autodiff
@graph.module("loss")
def loss(x: Tensor[3]):
    return value(x)
"""


@pytest.mark.numerics
@pytest.mark.parametrize(("entry", "name"), [("gradients", "grad.{}"), ("loss_grad", "{}_gradient")])
def test_parameters_when_they_begin_as_equal_numbers_then_each_has_its_own_gradient(
    entry: str, name: str, tmp_path: Path
) -> None:
    found = compiled(tmp_path, BIASES, {"x": np.ones(3, np.float32)}, entry=entry)
    np.testing.assert_allclose(found[name.format("b1")], np.full(3, 2.0))
    np.testing.assert_allclose(found[name.format("b2")], np.full(3, 5.0))
