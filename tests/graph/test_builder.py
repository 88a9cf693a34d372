"""The builder: checked nodes, spans, equal constants once, names."""

from __future__ import annotations

import numpy as np
import pytest

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.node import Span
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder, digest_of
from tessera_build.ir.graph.sweep import drop_dead
from tests.graph.graphs import nodes_of, ops_of

pytestmark = pytest.mark.unit


def test_op_when_built_under_a_span_then_node_carries_it() -> None:
    b = GraphBuilder()
    x = b.input("x", tensor(F32, 4))
    with b.at(Span("/a/Exp")):
        y = b.op("exp", x)
    b.output("y", b.op("neg", y))
    function = b.finish().entries["main"]
    first, second = function.nodes
    assert function.locations[first] == Span("/a/Exp")
    assert second not in function.locations


def test_constant_when_arrays_are_equal_then_one_node_and_one_array() -> None:
    b = GraphBuilder()
    first = b.constant(np.ones((2, 3), np.float32), "first")
    assert b.constant(np.ones((2, 3), np.float32), "second") == first
    assert b.constant(np.ones((3, 2), np.float32)) != first
    assert b.constant(np.ones((2, 3), np.float64)) != first
    b.output("y", first)
    module = b.finish()
    assert list(module.constant_names.values()) == ["first"]
    assert len(drop_dead(module).constants) == 1


def test_constant_when_caller_changes_the_array_then_module_keeps_its_copy() -> None:
    b = GraphBuilder()
    array = np.ones(3, np.float32)
    b.output("y", b.constant(array))
    array[0] = 5
    (kept,) = b.finish().constants.values()
    assert kept.tolist() == [1, 1, 1]
    assert not kept.flags.writeable


def test_digest_when_strides_differ_then_is_of_the_content() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert digest_of(array.T) == digest_of(np.array(array.T, order="C"))
    assert digest_of(array) != digest_of(array.reshape(3, 2))
    assert digest_of(np.asarray(1.0, np.float32)).startswith("sha256:")


def test_input_when_extent_is_symbolic_then_dim_is_at_least_one() -> None:
    b = GraphBuilder(dims={"N": (1, 64)})
    b.output("y", b.input("x", tensor(F32, symbol("N"), symbol("S"))))
    module = b.finish()
    assert dict(module.dims) == {"N": (1, 64), "S": (1, None)}
    assert ops_of(module) == []
    assert nodes_of(module) == []


@pytest.mark.errors
def test_names_when_used_twice_then_error() -> None:
    b = GraphBuilder()
    x = b.input("x", tensor(F32, 4))
    b.output("y", x)
    with pytest.raises(TesseraError, match="two inputs"):
        b.input("x", tensor(F32, 4))
    with pytest.raises(TesseraError, match="two outputs"):
        b.output("y", x)


@pytest.mark.errors
def test_guard_when_relation_is_unknown_then_error() -> None:
    with pytest.raises(TesseraError, match="== or >="):
        GraphBuilder().guard(1, "<", 2, "never")
