"""Misuses of Graph, Schedule and Target IR, and of what all levels share, each refused by its rule.

Takes small functions with one thing wrong. Invariant: every rule of every level's table has a case here or in
test_tile_spec.py.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.rewrite import FunctionBuilder
from tessera_build.ir.core.spec import Level, SpecError
from tessera_build.ir.core.types import F32, I32, tensor
from tessera_build.ir.graph import spec as graph_spec
from tessera_build.ir.graph.nodes import GraphNode, Module, StatePair
from tessera_build.ir.graph.text import parse_function as parse_graph
from tessera_build.ir.schedule import spec as schedule_spec
from tessera_build.ir.schedule.text import parse_function as parse_schedule
from tessera_build.ir.target import spec as target_spec
from tessera_build.ir.target.host import Buffer, Entry, Guard, Launch, Variant
from tessera_build.ir.target.text import parse_function as parse_target
from tessera_build.ir.tile.nodes import Wait
from tests.ir import functions

pytestmark = pytest.mark.errors


def broken(check: Callable[[], None]) -> set[str]:
    with pytest.raises(SpecError) as caught:
        check()
    return {violation.rule for violation in caught.value.violations}


GRAPH = Path(__file__).with_name("legal_graph.mlir").read_text()
GRAPH_MISUSES = {
    "op_attributes": ("axis = 1", "axes = 1"),
    "result_types": ("-> tensor<i64>", "-> tensor<i32>"),
    "dims_in_scope": ('dim<"2*N">', 'dim<"2*K">'),
}

SCHEDULE = Path(__file__).with_name("legal_schedule.mlir").read_text()
SCHEDULE_MISUSES = {
    "axis_names": ('name = "k"', 'name = "_r1"'),
    "axis_extents": ('name = "i", extent = 4', 'name = "i", extent = 5'),
    "accesses": ('#tessera.dim<"_r0">', '#tessera.dim<"_r1">'),
    "program": ("neg(%1) : f32", "neg(%0) : i32"),
    "combine": ('combine = "sum"', 'combine = "none"'),
    "kernel_parameters": ('["m", 2.0]', '["n", 2.0]'),
    "values_are_tensors": (
        '-> tensor<4xf32>\n  "tsched.return"(%3) : (tensor<4xf32>)',
        '-> vector<4xf32>\n  "tsched.return"(%3) : (vector<4xf32>)',
    ),
}

TARGET = Path(__file__).with_name("legal_target.mlir").read_text()
TARGET_MISUSES = {
    "kernel_arguments": ('dims = ["N"]', "dims = []"),
    "constant_value": ("<{value = 0}> : () -> i64", "<{value = 0.5}> : () -> i64"),
    "splat": ('splat"(%4) : (f32)', 'splat"(%3) : (i64)'),
    "lane_index": ("() -> vector<4xi32>", "() -> vector<4xf32>"),
    "extract": ("lane = 7", "lane = 8"),
    "insert": ("lane = 0", "lane = -1"),
    "shuffle": ("lanes = [0, 15]", "lanes = [0, 16]"),
    "op_row": ('name = "fma"', 'name = "fms"'),
    "op_types": ('name = "fma"', 'name = "select"'),
    "address": (
        'store"(%0, %3, %13) <{alignment = 0, stream = false}> : (memref<64xf32>, i64',
        'store"(%0, %4, %13) <{alignment = 0, stream = false}> : (memref<64xf32>, f32',
    ),
    "element": (
        'store"(%0, %3, %13) <{alignment = 0, stream = false}> : (memref<64xf32>, i64, vector<8xf32>)',
        'store"(%0, %3, %6) <{alignment = 0, stream = false}> : (memref<64xf32>, i64, vector<8xi64>)',
    ),
    "mask": (
        "(%0, %1, %11) <{alignment = 64, operandSegmentSizes = [1, 1, 1, 0]}> : (memref<64xf32>, i64, vector<8xi1>)",
        "(%0, %1, %5) <{alignment = 64, operandSegmentSizes = [1, 1, 1, 0]}> : (memref<64xf32>, i64, vector<8xf32>)",
    ),
    "alignment": ("alignment = 64", "alignment = 48"),
    "lanes_of_addresses": (
        'gather"(%0, %6, %11, %12) : (memref<64xf32>, vector<8xi64>',
        'gather"(%0, %5, %11, %12) : (memref<64xf32>, vector<8xf32>',
    ),
    "prefetch_level": ("level = 1", "level = 4"),
    "alloca": ("elements = 8", "elements = 0"),
    "loop_bounds": ("step = 8", "step = 0"),
    "loop_carried": ('"ttarget.yield"(%17) : (vector<8xf32>)', '"ttarget.yield"(%16) : (i64)'),
    "condition": ('check"(%18) <{code = 1}> : (i1)', 'check"(%3) <{code = 1}> : (i64)'),
    "branch_regions": ('"ttarget.yield"(%8) : (vector<8xf32>)', '"ttarget.yield"(%7) : (f32)'),
    "check_code": ("code = 1", "code = 0"),
}


def test_functions_when_unchanged_then_are_legal() -> None:
    graph_spec.verify(parse_graph(GRAPH))
    schedule_spec.verify(parse_schedule(SCHEDULE))
    target_spec.verify(parse_target(TARGET), 512)


@pytest.mark.parametrize("rule", GRAPH_MISUSES)
def test_graph_function_when_misused_then_rule_refuses(rule: str) -> None:
    before, after = GRAPH_MISUSES[rule]
    assert before in GRAPH
    assert rule in broken(lambda: graph_spec.verify(parse_graph(GRAPH.replace(before, after, 1))))


@pytest.mark.parametrize("rule", SCHEDULE_MISUSES)
def test_task_when_misused_then_rule_refuses(rule: str) -> None:
    before, after = SCHEDULE_MISUSES[rule]
    assert before in SCHEDULE
    assert rule in broken(lambda: schedule_spec.verify(parse_schedule(SCHEDULE.replace(before, after, 1))))


def test_kernel_call_when_its_result_has_an_unknown_dim_then_is_refused() -> None:
    function = parse_schedule(SCHEDULE.replace('"tsched.return"(%3)', '"tsched.return"(%2)'))
    (unused,) = (v for v in function.types if v not in function.args and v not in function.results)
    types = {**function.types, unused: tensor(F32, symbol("Q"))}
    assert broken(lambda: schedule_spec.verify(replace(function, types=types))) == {"dims_in_scope"}


@pytest.mark.parametrize("rule", TARGET_MISUSES)
def test_kernel_when_misused_then_rule_refuses(rule: str) -> None:
    before, after = TARGET_MISUSES[rule]
    assert before in TARGET
    assert rule in broken(lambda: target_spec.verify(parse_target(TARGET.replace(before, after, 1))))


GROUP = TARGET.replace('dims = ["N"]', 'dims = ["N", "S"], lanes = 32').replace(
    '  %3 = "ttarget.const"',
    """
  %21 = "ttarget.shared_alloc"() <{elements = 64}> : () -> memref<64xf32>
  %22 = "ttarget.lane"() : () -> i64
  "ttarget.async_copy"(%21, %22, %0, %1) <{count = 16}> :
    (memref<64xf32>, i64, memref<64xf32>, i64) -> ()
  "ttarget.async_commit"() : () -> ()
  "ttarget.async_wait"() <{pending = 0}> : () -> ()
  "ttarget.barrier"() : () -> ()
  %23 = "ttarget.matrix_load"(%21, %22) <{transposed = false}> : (memref<64xf32>, i64) -> i32
  %24 = "ttarget.matrix_multiply"(%23, %23, %23) <{instruction = "m", operandSegmentSizes = [1, 1, 1]}> :
    (i32, i32, i32) -> i32
  %3 = "ttarget.const\"""",
    1,
)
GROUP_MISUSES = {
    "group_arguments": ("lanes = 32", "lanes = 0"),
    "place": ('%22 = "ttarget.lane"()', '%25 = "ttarget.group_index"() : () -> i32\n  %22 = "ttarget.lane"()'),
    "shared_alloc": ("elements = 64", "elements = 0"),
    "async_copy": ("count = 16", "count = 15"),
    "pending": ("pending = 0", "pending = -1"),
    "shared_address": (
        'load"(%21, %22) <{transposed = false}> : (memref<64xf32>, i64)',
        'load"(%22, %22) <{}> : (i64, i64)',
    ),
    "accumulators": ('instruction = "m"', 'instruction = ""'),
}


@pytest.mark.parametrize(
    ("level", "cases"),
    [
        (graph_spec.LEVEL, GRAPH_MISUSES.keys() | {"values_are_tensors", "argument_symbols", "constants_outside"}),
        (schedule_spec.LEVEL, SCHEDULE_MISUSES.keys() | {"dims_in_scope"}),
        (target_spec.KERNEL, TARGET_MISUSES.keys()),
        (target_spec.GROUP, TARGET_MISUSES.keys() | GROUP_MISUSES.keys()),
    ],
    ids=["graph", "schedule", "target", "group"],
)
def test_rules_when_listed_then_each_has_a_misuse(level: Level, cases: set[str]) -> None:
    rules = {rule.__name__ for row in level.rules.values() for rule in row}
    assert rules | {rule.__name__ for rule in level.function_rules} <= cases


def test_group_kernel_when_unchanged_then_is_legal() -> None:
    target_spec.verify(parse_target(GROUP))


@pytest.mark.parametrize("rule", GROUP_MISUSES)
def test_group_kernel_when_misused_then_rule_refuses(rule: str) -> None:
    before, after = GROUP_MISUSES[rule]
    assert before in GROUP
    assert rule in broken(lambda: target_spec.verify(parse_target(GROUP.replace(before, after, 1))))


def test_vector_when_wider_than_a_register_then_is_refused() -> None:
    assert broken(lambda: target_spec.verify(parse_target(TARGET), 256)) == {"register_width"}


def chain() -> Function:
    b = FunctionBuilder("f")
    x = b.arg(tensor(F32, 4))
    y = b.emit(lambda r: GraphNode("neg", (x,), (r,)), tensor(F32, 4))
    z = b.emit(lambda r: GraphNode("exp", (y,), (r,)), tensor(F32, 4))
    return b.finish([z])


def test_ssa_when_broken_then_is_refused() -> None:
    function = chain()
    first, second = function.nodes
    assert broken(lambda: graph_spec.verify(replace(function, nodes=(second, first)))) == {"ssa_dominance"}
    assert broken(lambda: graph_spec.verify(replace(function, nodes=(first, first, second)))) == {"ssa_single"}
    assert broken(lambda: graph_spec.verify(replace(function, results=(99,)))) == {"ssa_dominance"}
    types = {v: t for v, t in function.types.items() if v != function.results[0]}
    assert broken(lambda: graph_spec.verify(replace(function, types=types))) == {"typed"}
    assert broken(lambda: graph_spec.verify(replace(function, nodes=(*function.nodes, Wait(0))))) == {"level"}
    wrong = {**function.types, function.args[0]: tensor(F32, symbol("Q"))}
    assert "argument_symbols" in broken(lambda: graph_spec.verify(replace(function, types=wrong), {}))


def module(function: Function) -> Module:
    return Module({"main": function}, {}, {}, {"main": ("x",)}, {"main": ("y",)})


def test_module_when_broken_then_says_all() -> None:
    function = chain()
    good = module(function)
    graph_spec.verify_module(good)
    bad = replace(good, input_names={}, states={"main": (StatePair(7, 8),), "other": ()})
    with pytest.raises(SpecError) as caught:
        graph_spec.verify_module(bad)
    assert len(caught.value.violations) == 3
    constant = GraphNode("constant", (), (50,), {"digest": "sha256:bb", "dtype": I32, "shape": (2,)})
    types = {**function.types, 50: tensor(I32, 2)}
    holding = module(replace(function, nodes=(constant, *function.nodes), types=types))
    graph_spec.verify_module(replace(holding, constants={"sha256:bb": np.zeros(2, np.int32)}))
    with pytest.raises(SpecError, match="sha256:bb"):
        graph_spec.verify_module(holding)


@settings(max_examples=20)
@given(functions.target_functions(), functions.graph_functions(), functions.schedule_functions())
def test_random_functions_when_verified_then_are_legal(kernel: Function, graph: Function, task: Function) -> None:
    target_spec.verify(kernel)
    schedule_spec.verify(task)
    dims = {"N": (1, None), "S": (1, None)}
    if all(graph.types[a].dtype.kind != "bool" for a in graph.args):
        graph_spec.verify(graph, dims)


def variant(**changes: object) -> Variant:
    kernel = parse_target(TARGET)
    n = symbol("N")
    launch = replace(Launch("k", n * 2, (Buffer("weight", 0, 64),), (n,), 0), **changes)
    entry = Entry("main", ("N",), (Guard(n, "lt", 9, 0), launch), n * 64, ((n, 4),))
    return Variant((entry,), (kernel,), 1)


HOST_MISUSES: dict[str, tuple[str, dict[str, object]]] = {
    "unknown kernel": ("launch", {"kernel": "q"}),
    "too few buffers": ("launch", {"buffers": ()}),
    "unknown dim": ("host_dims", {"count": symbol("K")}),
    "unknown weight": ("weights", {"buffers": (Buffer("weight", 1),)}),
    "negative offset": ("weights", {"buffers": (Buffer("arena", 0, -64),)}),
}


@pytest.mark.parametrize("case", HOST_MISUSES)
def test_variant_when_misused_then_rule_refuses(case: str) -> None:
    rule, changes = HOST_MISUSES[case]
    target_spec.verify_variant(variant())
    assert broken(lambda: target_spec.verify_variant(variant(**changes))) == {rule}
