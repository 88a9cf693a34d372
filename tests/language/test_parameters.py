"""Parameters: each is itself, whatever numbers it begins with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tessera import graph, op
from tessera_build.frontends.python import read_python
from tests.language.build import compiled, draw, written

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


CIRCLES = """
class Head(graph.Module):
    def __init__(self, parent):
        self.parent = parent
        self.weight = op.tensor((4, 4), init=op.init.normal(1))

    def forward(self, x):
        return x @ self.weight

class Net(graph.Module):
    def __init__(self):
        self.me = self
        self.head = Head(self)
        self.again = self.head
        self.parts = [self.head, {"net": self}]
        self.parts.append(self.parts)
        self.names = {"own": op.tensor((4,), init=op.init.ones())}
        self.names["names"] = self.names

    def forward(self, x: Tensor["B", 4]):
        return self.again(x) + self.names["own"]

net = Net()
"""


@pytest.mark.numerics
def test_modules_when_they_refer_to_themselves_then_each_parameter_has_its_first_name(tmp_path: Path) -> None:
    found = read_python(written(tmp_path, CIRCLES)).module.constant_names
    assert sorted(found.values()) == ["net.head.weight", "net.names.own"]
    x = draw(0, 2, 4)
    assert compiled(tmp_path, CIRCLES, {"x": x})["output"].shape == (2, 4)


class Shared(graph.Module):
    """A module that holds another one, and a tensor, twice."""

    def __init__(self, inner: graph.Module | None) -> None:
        self.weight = op.tensor((2,), init=op.init.ones())
        self.tied = self.weight
        self.first = inner
        self.second = [inner]


@pytest.mark.unit
def test_parameters_when_shared_then_are_told_once_under_their_first_names() -> None:
    assert [name for name, _ in Shared(Shared(None)).parameters()] == ["weight", "first.weight"]
