"""Which elementwise nodes become one task, in whatever order the model states them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tessera_build.ir.core.types import BOOL, F32, I64, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.lower.graph_to_schedule.fusion import FusionGroup, fuse

pytestmark = pytest.mark.unit


def _groups(b: GraphBuilder) -> tuple[FusionGroup, ...]:
    """The groups, of which each reads only from itself and from those before it."""
    function = b.finish().entries["main"]
    groups = fuse(function, {})
    known = {*function.args, *(o for node in function.nodes if _is_constant(node) for o in node.outputs)}
    for group in groups:
        for node in group.nodes:
            assert known.issuperset(node.inputs), (node.op, [[n.op for n in g.nodes] for g in groups])
            known.update(node.outputs)
    assert known.issuperset(function.results)
    return groups


def _is_constant(node: object) -> bool:
    return isinstance(node, GraphNode) and node.op == "constant"


def _ops(groups: Sequence[FusionGroup]) -> list[list[str]]:
    return [[node.op for node in group.nodes] for group in groups]


def test_fuse_when_two_branches_of_an_input_meet_then_they_are_one_task() -> None:
    b = GraphBuilder()
    x = b.input("x", tensor(F32, 4, 8))
    b.output("y", b.op("mul", b.op("erf", x), b.op("neg", x)))
    assert _ops(_groups(b)) == [["erf", "neg", "mul"]]


def test_fuse_when_branches_come_from_views_then_the_earlier_one_moves_behind_the_later_view() -> None:
    b = GraphBuilder()
    x, y = b.input("x", tensor(F32, 32)), b.input("y", tensor(F32, 32))
    gate = b.op("logistic", b.op("reshape", x, shape=(4, 8)))
    candidate = b.op("tanh", b.op("reshape", y, shape=(4, 8)))
    b.output("z", b.op("mul", gate, candidate))
    assert _ops(_groups(b)) == [["reshape"], ["reshape"], ["logistic", "tanh", "mul"]]


def test_fuse_when_a_task_between_reads_the_earlier_branch_then_they_stay_apart() -> None:
    b = GraphBuilder()
    x = b.input("x", tensor(F32, 4, 8))
    early = b.op("neg", x)
    turned = b.op("reshape", b.op("matmul", early, b.input("w", tensor(F32, 8, 8))), shape=(8, 4))
    late = b.op("exp", b.op("reshape", turned, shape=(4, 8)))
    b.output("y", b.op("mul", early, late))
    assert _ops(_groups(b)) == [["neg"], ["matmul"], ["reshape"], ["reshape"], ["exp", "mul"]]


def test_fuse_when_what_joins_both_reads_a_task_between_then_it_runs_behind_that() -> None:
    """Of another shape, so that it is a task of its own: the zero divisors of a quotient."""
    b = GraphBuilder()
    x, y = b.input("x", tensor(F32, 4, 8)), b.input("y", tensor(F32, 1, 8))
    first = b.op("exp", x)
    zero = b.op("eq", y, y)
    assert b.type(zero) == tensor(BOOL, 1, 8)
    b.output("z", b.op("select", zero, first, b.op("neg", x)))
    assert _ops(_groups(b)) == [["eq"], ["exp", "neg", "select"]]


def test_fuse_when_a_view_stands_between_two_nodes_then_they_are_one_task() -> None:
    b = GraphBuilder()
    x, y = b.input("x", tensor(F32, 4, 8)), b.input("y", tensor(F32, 32))
    first = b.op("exp", x)
    b.output("z", b.op("mul", first, b.op("reshape", y, shape=(4, 8))))
    second = b.op("neg", x)
    b.output("w", b.op("mul", b.op("tanh", second), b.op("reshape", b.op("reshape", first, shape=(32,)), shape=(4, 8))))
    assert _ops(_groups(b)) == [["reshape"], ["exp", "mul"], ["reshape"], ["reshape"], ["neg", "tanh", "mul"]]


def test_fuse_when_rows_are_looked_up_before_their_factors_are_made_then_they_are_not_stored() -> None:
    b = GraphBuilder()
    x, table = b.input("x", tensor(F32, 4, 8)), b.input("table", tensor(F32, 9, 8))
    index = b.input("index", tensor(I64, 4))
    rows = b.op("gather", table, index, axis=0)
    others = b.op("gather", rows, index, axis=0)
    factors = b.op("matmul", x, b.input("w", tensor(F32, 8, 8)))
    b.output("y", b.op("mul", others, factors))
    b.output("last", b.op("gather", table, index, axis=0))
    assert _ops(_groups(b)) == [["gather"], ["matmul"], ["gather", "mul"], ["gather"]]


def test_fuse_when_a_reduction_drops_its_axes_then_it_ends_what_it_reduces() -> None:
    b = GraphBuilder()
    x = b.input("x", tensor(F32, 4, 8))
    rows = b.op("exp", x)
    total = b.op("reduce", rows, kind="sum", axes=(1,), keepdims=False)
    b.output("mean", b.op("mul", total, b.scalar(0.125, F32)))
    b.output("rows", b.op("neg", rows))
    assert _ops(_groups(b)) == [["exp", "reduce", "neg"], ["mul"]]


@pytest.mark.parametrize("seed", range(60))
def test_fuse_when_nodes_are_drawn_then_no_task_reads_from_a_later_one(seed: int) -> None:
    rng, b = np.random.default_rng(seed), GraphBuilder()
    values = [b.input(name, tensor(F32, 4, 8)) for name in "xy"]
    rows = [b.input("row", tensor(F32, 1, 8))]
    conditions = [b.op("lt", rows[0], rows[0])]
    for _ in range(40):
        recent = values[-6:]
        match int(rng.integers(8)):
            case 7:
                total = b.op("reduce", _one(rng, recent), kind="sum", axes=(1,), keepdims=False)
                values.append(b.op("add", b.op("reshape", b.op("neg", total), shape=(4, 1)), _one(rng, recent)))
            case 0:
                values.append(b.op("reshape", b.op("reshape", _one(rng, recent), shape=(32,)), shape=(4, 8)))
            case 1:
                conditions.append(b.op("lt", _one(rng, rows), rows[0]))
            case 2:
                rows.append(b.op("reduce", _one(rng, recent), kind="sum", axes=(0,), keepdims=True))
            case 3:
                values.append(b.op("select", _one(rng, conditions), _one(rng, recent), _one(rng, recent)))
            case 4:
                values.append(b.op("add", _one(rng, recent), _one(rng, recent)))
            case _:  # a branch of its own
                values.append(b.op("exp", values[int(rng.integers(2))]))
    for number, value in enumerate((*rng.choice(values[2:], 3), values[-1])):
        b.output(f"out_{number}", int(value))
    _groups(b)


def _one(rng: np.random.Generator, values: Sequence[int]) -> int:
    return int(rng.choice(values))
