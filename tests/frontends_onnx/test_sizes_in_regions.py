"""Sizes from data inside loops and choices, and values of such sizes that loops carry, against onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tessera_build.config import load_target
from tessera_build.driver.machine import machine_of
from tessera_build.frontends.onnx import read_onnx
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.target.host import Entry
from tessera_build.ir.target.spec import verify_variant
from tessera_build.lower.program.assemble import lower_module
from tests.frontends_onnx.oracle import assert_agrees, expected, floats, integers
from tests.lower.compiled import assert_close, compile_module

pytestmark = pytest.mark.numerics

FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
X = floats(4, 7)
ZERO = helper.make_tensor("zero", INT, [1], [0])
node = helper.make_node


def info(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes: Sequence[onnx.NodeProto], *inputs: onnx.ValueInfoProto) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", [info("x", FLOAT, "A", 7), *inputs], [onnx.ValueInfoProto(name="y")], [ZERO])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def body(nodes: Sequence[onnx.NodeProto], carried: onnx.ValueInfoProto, result: onnx.ValueInfoProto) -> onnx.GraphProto:
    """The body of a loop that always goes on."""
    on = node("Identity", ["c"], ["c2"])
    inputs, outputs = [info("i", INT), info("c", BOOL), carried], [info("c2", BOOL), result]
    return helper.make_graph([*nodes, on], "body", inputs, outputs)


def summed(*inner: onnx.NodeProto) -> onnx.ModelProto:
    """y = a + the sum over iterations of all elements of `part`, which the inner nodes make of x and size i of k."""
    size = [node("Gather", ["k", "i"], ["ki"]), node("Unsqueeze", ["ki", "zero"], ["e"])]
    total = [node("ReduceSum", ["part"], ["s"], keepdims=0), node("Add", ["acc", "s"], ["acc2"])]
    graph = body([*size, *inner, *total], info("acc", FLOAT), info("acc2", FLOAT))
    loop = node("Loop", ["n", "", "a"], ["y"], body=graph)
    return model([loop], info("n", INT), info("a", FLOAT), info("k", INT, 3))


def carried(*before: onnx.NodeProto) -> onnx.ModelProto:
    """y = relu of `start`, whose size is data, after n steps."""
    steps = [node("Exp", ["acc"], ["t"]), node("Tanh", ["t"], ["acc2"])]
    loop = node(
        "Loop",
        ["n", "", "start"],
        ["last"],
        body=body(steps, info("acc", FLOAT, "P", "Q"), info("acc2", FLOAT, "P", "Q")),
    )
    return model([*before, loop, node("Relu", ["last"], ["y"])], info("n", INT), info("k", INT, 1))


def stacked() -> onnx.ModelProto:
    """The first n rows of x, one an iteration."""
    rows = [node("Gather", ["x", "i"], ["row"]), node("Identity", ["row"], ["row2"]), node("Identity", ["c"], ["c2"])]
    graph = helper.make_graph(
        rows, "body", [info("i", INT), info("c", BOOL)], [info("c2", BOOL), info("row2", FLOAT, 7)]
    )
    return model([node("Loop", ["n", ""], ["y"], body=graph)], info("n", INT))


def chosen() -> onnx.ModelProto:
    """The sum of the first k rows of x, or the maximum of all."""
    part = [node("Slice", ["x", "zero", "k", "zero"], ["p"]), node("ReduceSum", ["p"], ["s"], keepdims=0)]
    then = helper.make_graph(part, "then", [], [info("s", FLOAT)])
    otherwise = helper.make_graph([node("ReduceMax", ["x"], ["m"], keepdims=0)], "else", [], [info("m", FLOAT)])
    branch = node("If", ["b"], ["y"], then_branch=then, else_branch=otherwise)
    return model([branch], info("b", BOOL), info("k", INT, 1))


SUMS: list[Mapping[str, Array]] = [
    {"n": np.asarray(n), "a": np.asarray(0.5, np.float32), "k": integers(1, 4, 2)} for n in (3, 2, 0)
]
STEPS: list[Mapping[str, Array]] = [{"n": np.asarray(n), "k": integers(k)} for n, k in ((3, 2), (2, 4), (1, 3), (0, 2))]
SLICE = node("Slice", ["x", "zero", "e", "zero"], ["part"])
PAIR = node("Concat", ["e", "e"], ["ee"], axis=0)
WIDE = (PAIR, node("Tile", ["x", "ee"], ["w"]), node("Exp", ["w"], ["v"]), node("Softmax", ["v"], ["part"], axis=1))
MODELS: dict[str, tuple[onnx.ModelProto, Sequence[Mapping[str, Array]]]] = {
    "a part of x in each iteration": (summed(SLICE), SUMS),
    "memory of unknown size in each iteration": (summed(*WIDE), SUMS),
    "carried, bounded": (carried(node("Slice", ["x", "zero", "k", "zero"], ["start"])), STEPS),
    "carried, unbounded": (
        carried(node("Concat", ["k", "k"], ["kk"], axis=0), node("Tile", ["x", "kk"], ["start"])),
        STEPS,
    ),
    "stacked": (stacked(), [{"n": np.asarray(n)} for n in (3, 4, 0)]),
    "chosen": (chosen(), [{"b": np.asarray(b), "k": integers(2)} for b in (True, False)]),
}


def entry_of(name: str) -> Entry:
    lowered = lower_module(run_passes(read_onnx(MODELS[name][0])), machine_of(load_target("x86-64-v3")))
    verify_variant(lowered.variant)
    return lowered.variant.entries[0]


@pytest.mark.parametrize("name", MODELS)
def test_region_when_sizes_in_it_are_data_then_agrees_with_onnxruntime(name: str) -> None:
    proto, operands = MODELS[name]
    cases = [{"x": X, **{key: np.asarray(value) for key, value in case.items()}} for case in operands]
    module = run_passes(read_onnx(proto), verify_each=True)
    assert_agrees(proto, *cases, module=module)
    compiled = compile_module(module)
    for case in cases:
        assert_close(compiled.run(case, {"A": 4}, threads=2)["y"], expected(proto, case)[0], name)


def test_carried_value_when_bounded_then_lies_in_the_arena_by_its_bound() -> None:
    entry = entry_of("carried, bounded")
    assert entry.slots == 0
    assert not entry.depends_on_data(entry.arena_bytes)


def test_carried_value_when_unbounded_then_has_slots_of_its_own() -> None:
    assert entry_of("carried, unbounded").slots == 3


@pytest.mark.parametrize("name", MODELS)
def test_host_program_when_sizes_are_data_then_is_legal(name: str) -> None:
    assert not entry_of(name).depends_on_data(entry_of(name).arena_bytes)
