"""Ops with regions: type rules, text, hash, the reference, and that every pass keeps what a module computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.hashing import hash_function
from tessera_build.ir.core.node import Region
from tessera_build.ir.core.spec import SpecError
from tessera_build.ir.core.types import BOOL, F32, I64, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.infer import infer
from tessera_build.ir.graph.nodes import GraphNode, Module
from tessera_build.ir.graph.ops import OPS
from tessera_build.ir.graph.ops.op import RegionType
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.graph.reference import run
from tessera_build.ir.graph.spec import verify, verify_module
from tessera_build.ir.graph.text import parse_module, print_module

pytestmark = pytest.mark.unit


def running_sums(index: str = "step0") -> Module:
    """Scan of rows: total' = tanh(total + row[index] * 2); gives the last total and all of them."""
    builder = GraphBuilder(dims={"N": (1, None)})
    rows = builder.input("rows", tensor(F32, symbol("N"), 3))
    start = builder.input("start", tensor(F32, 3))
    with builder.region([tensor(F32, 3)], {index: (0, None)}) as body:
        at = symbol(index)
        row = builder.op("slice", rows, starts=(at, 0), stops=(at + 1, 3), steps=(1, 1))
        doubled = builder.op("mul", builder.op("reshape", row, shape=(3,)), builder.scalar(2.0, F32))
        total = builder.op("tanh", builder.op("add", body.args[0], doubled))
        builder.op("exp", total)  # read by nothing
        body.yields(total, total)
    attributes = {"index": index, "trips": symbol("N"), "scans": 1}
    last, every = builder.node("loop", (start,), attributes, (body.region,))
    builder.output("last", last)
    builder.output("every", every)
    return builder.finish()


def halving() -> Module:
    """While x's sum is above 1 and at most 20 times: x = x / 2; then a choice by the sign of the count."""
    builder = GraphBuilder()
    x = builder.input("x", tensor(F32, 4))
    sign = builder.input("sign", tensor(BOOL))

    def above(value: int) -> int:
        total = builder.op("reduce", value, kind="sum", axes=(0,), keepdims=False)
        return builder.op("gt", total, builder.scalar(1.0, F32))

    with builder.region([tensor(F32, 4)], {"step0": (0, 19)}) as body:
        half = builder.op("mul", body.args[0], builder.scalar(0.5, F32))
        body.yields(above(half), half)
    attributes = {"index": "step0", "trips": 20, "conditional": True}
    (small,) = builder.node("loop", (above(x), x), attributes, (body.region,))
    with builder.region() as then:
        then.yields(builder.op("exp", small), small)
    with builder.region() as otherwise:
        otherwise.yields(builder.op("mul", small, builder.op("exp", x)), x)
    first, second = builder.node("if", (sign,), {}, (then.region, otherwise.region))
    builder.output("first", first)
    builder.output("second", second)
    return builder.finish()


def expected_sums(rows: NDArray[np.float32], start: NDArray[np.float32]) -> NDArray[np.float32]:
    found: list[NDArray[np.float32]] = []
    for row in rows:
        start = np.tanh(start + row * np.float32(2))
        found.append(start)
    return np.stack(found)


@pytest.mark.parametrize("passes", [False, True])
def test_loop_when_run_by_the_reference_then_carries_and_stacks(passes: bool) -> None:
    module = running_sums()
    verify_module(module)
    module = run_passes(module, verify_each=True) if passes else module
    rng = np.random.default_rng(1)
    rows, start = rng.standard_normal((5, 3), np.float32), rng.standard_normal(3, np.float32)
    found = run(module, "main", {"rows": rows, "start": start})
    np.testing.assert_allclose(found["every"].astype(np.float32), expected_sums(rows, start), rtol=1e-6)
    np.testing.assert_array_equal(found["last"], found["every"][-1])


@pytest.mark.parametrize("passes", [False, True])
@pytest.mark.parametrize("sign", [False, True])
def test_choice_and_while_when_run_by_the_reference_then_stop_at_their_conditions(sign: bool, passes: bool) -> None:
    module = halving()
    verify_module(module)
    module = run_passes(module, verify_each=True) if passes else module
    x = np.asarray([3, 5, 1, 2], np.float32)
    found = run(module, "main", {"x": x, "sign": np.asarray(sign)})
    small = x / 16
    np.testing.assert_allclose(
        found["first"].astype(np.float32), np.exp(small) if sign else small * np.exp(x), rtol=1e-6
    )
    np.testing.assert_array_equal(found["second"], small if sign else x)


@pytest.mark.parametrize("make", [running_sums, halving])
def test_module_with_regions_when_printed_and_parsed_then_is_the_same(make: Callable[[], Module]) -> None:
    module = make()
    text = print_module(module)
    again = parse_module(text, module.constants)
    assert print_module(again) == text
    assert hash_function(again.entries["main"]) == hash_function(module.entries["main"])


def test_hash_when_only_the_name_of_an_index_differs_then_is_the_same() -> None:
    one, other = (hash_function(running_sums(name).entries["main"]) for name in ("step0", "step7"))
    assert one == other


def test_passes_when_a_loop_reads_constants_then_keep_them_outside_and_drop_what_is_dead() -> None:
    module = run_passes(running_sums(), verify_each=True)
    nodes = [node for node in module.entries["main"].walk() if isinstance(node, GraphNode)]
    (loop,) = (node for node in nodes if node.op == "loop")
    assert "exp" not in {node.op for node in nodes}
    assert "constant" in {node.op for node in module.entries["main"].nodes if isinstance(node, GraphNode)}
    assert all(isinstance(node, GraphNode) and node.op != "constant" for node in loop.regions[0].nodes)


def test_common_expressions_when_made_in_two_regions_then_stay_in_each() -> None:
    builder = GraphBuilder()
    x, sign = builder.input("x", tensor(F32, 4)), builder.input("sign", tensor(BOOL))
    regions: list[Region] = []
    for op in ("neg", "abs"):
        with builder.region() as region:
            region.yields(builder.op(op, builder.op("exp", x)))
        regions.append(region.region)
    (y,) = builder.node("if", (sign,), {}, regions)
    builder.output("y", builder.op("add", y, builder.op("exp", x)))
    module = run_passes(builder.finish(), verify_each=True)
    found = run(module, "main", {"x": np.ones(4, np.float32), "sign": np.asarray(True)})
    np.testing.assert_array_equal(found["y"], np.zeros(4))


@pytest.mark.parametrize("shape", [(4,), (symbol("step0"),)])
def test_loop_when_a_carried_value_changes_its_type_then_is_refused(shape: tuple[Extent, ...]) -> None:
    builder = GraphBuilder()
    x = builder.input("x", tensor(F32, 3))
    with builder.region([tensor(F32, 3)], {"step0": (0, 4)}) as body:
        body.yields(builder.op("broadcast_to", builder.scalar(0.0, F32), shape=shape))
    with pytest.raises(TesseraError, match="gives others"):
        builder.node("loop", (x,), {"index": "step0", "trips": 5}, (body.region,))


def test_if_when_its_regions_give_other_types_then_is_refused() -> None:
    builder = GraphBuilder()
    x, sign = builder.input("x", tensor(F32, 3)), builder.input("sign", tensor(BOOL))
    with builder.region() as then:
        then.yields(x)
    with builder.region() as otherwise:
        otherwise.yields(builder.op("cast", x, dtype=I64))
    with pytest.raises(TesseraError, match="regions of if"):
        builder.node("if", (sign,), {}, (then.region, otherwise.region))


def test_region_when_it_holds_a_constant_then_is_refused() -> None:
    function = halving().entries["main"]
    constant, *rest = (node for node in function.nodes if isinstance(node, GraphNode))
    assert constant.op == "constant"
    loop = next(node for node in rest if node.op == "loop")
    body = loop.regions[0]
    moved = replace(loop, regions=(replace(body, nodes=(constant, *body.nodes)),))
    nodes = tuple(moved if node is loop else node for node in function.nodes if node is not constant)
    with pytest.raises(SpecError, match="a region holds a constant"):
        verify(replace(function, nodes=nodes))


@pytest.mark.errors
@pytest.mark.parametrize("name", ["if", "loop", "add"])
def test_op_when_it_has_regions_then_they_are_its_only_type_rule_and_meaning(name: str) -> None:
    op = OPS[name]
    assert (op.infer is None, op.evaluate is None) == (op.control is not None, op.control is not None)
    with pytest.raises(ValueError, match="either infer and evaluate, or control"):
        replace(op, control=OPS["if"].control if op.control is None else None)
    with pytest.raises(TesseraError, match="has other regions"):
        infer(name, (), op.defaults, regions=[RegionType((), ())] * 3)
