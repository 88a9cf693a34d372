"""Loops and choices as compiled code: carried values, stacked slices, nesting, results that are arguments."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tessera_build.config import load_target
from tessera_build.driver.machine import machine_of
from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.types import BOOL, F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.target.spec import verify_variant
from tessera_build.ir.target.text import parse_variant, print_variant
from tessera_build.lower.program.assemble import lower_module
from tests.graph.test_control import halving, running_sums
from tests.lower.compiled import check_module

pytestmark = pytest.mark.numerics


@pytest.mark.parametrize("count", [1, 2, 5])
def test_loop_when_compiled_then_carries_and_stacks(count: int) -> None:
    rng = np.random.default_rng(count)
    inputs = {"rows": rng.standard_normal((count, 3), np.float32), "start": rng.standard_normal(3, np.float32)}
    check_module(running_sums(), inputs, {"N": count})


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("sign", [False, True])
def test_while_and_choice_when_compiled_then_stop_at_their_conditions(scale: float, sign: bool) -> None:
    x = np.asarray([3, 5, 1, 2], np.float32) * np.float32(scale)
    check_module(halving(), {"x": x, "sign": np.asarray(sign)}, {})


def swapping(trips: int) -> Module:
    """Two carried values change places; a third stays; a captured product joins in."""
    builder = GraphBuilder()
    a, b = builder.input("a", tensor(F32, 2, 3)), builder.input("b", tensor(F32, 2, 3))
    captured = builder.op("mul", a, b)
    with builder.region([tensor(F32, 2, 3)] * 3, {"step0": (0, None)}) as body:
        first, second, third = body.args
        body.yields(second, builder.op("add", first, captured), third, third)
    attributes = {"index": "step0", "trips": trips, "scans": 1}
    results = builder.node("loop", (a, b, builder.op("exp", a)), attributes, (body.region,))
    for name, value in zip("pqrs", results, strict=True):
        builder.output(name, value)
    builder.output("captured", captured)
    return builder.finish()


@pytest.mark.parametrize("trips", [0, 1, 2, 3, 8])
def test_carried_values_when_they_swap_then_none_is_overwritten_too_early(trips: int) -> None:
    rng = np.random.default_rng(7)
    check_module(swapping(trips), {n: rng.standard_normal((2, 3), np.float32) for n in "ab"}, {})


def nested() -> Module:
    """For i below N: for j below i + 1: total = total * 0.5 + rows[j] * scale[i]; else-branches on the way."""
    builder = GraphBuilder(dims={"N": (1, None)})
    rows = builder.input("rows", tensor(F32, symbol("N"), 4))
    flag = builder.input("flag", tensor(BOOL))
    i, j = symbol("step0"), symbol("step1")
    with builder.region([tensor(F32, 1, 4)], {"step0": (0, None)}) as outer:
        (total,) = outer.args
        own = builder.op("slice", rows, starts=(i, 0), stops=(i + 1, 4), steps=(1, 1))
        with builder.region([tensor(F32, 1, 4)], {"step1": (0, None)}) as inner:
            row = builder.op("slice", rows, starts=(j, 0), stops=(j + 1, 4), steps=(1, 1))
            with builder.region() as then:
                then.yields(builder.op("mul", row, own))
            with builder.region() as otherwise:
                otherwise.yields(builder.op("add", row, total))
            (part,) = builder.node("if", (flag,), {}, (then.region, otherwise.region))
            half = builder.op("mul", inner.args[0], builder.scalar(0.5, F32))
            inner.yields(builder.op("add", half, part))
        (total,) = builder.node("loop", (total,), {"index": "step1", "trips": i + 1}, (inner.region,))
        seen = builder.op("slice", rows, starts=(0, 0), stops=(i + 1, 4), steps=(1, 1))
        sums = builder.op("reduce", builder.op("exp", seen), kind="sum", axes=(0,), keepdims=True)
        outer.yields(total, builder.op("add", total, sums))
    zero = builder.constant(np.zeros((1, 4), np.float32))
    attributes = {"index": "step0", "trips": symbol("N"), "scans": 1}
    for name, value in zip(("last", "every"), builder.node("loop", (zero,), attributes, (outer.region,)), strict=True):
        builder.output(name, value)
    return builder.finish()


@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("count", [1, 4])
def test_regions_when_nested_then_see_all_blocks_around(flag: bool, count: int) -> None:
    rows = np.random.default_rng(3).standard_normal((count, 4), np.float32)
    check_module(nested(), {"rows": rows, "flag": np.asarray(flag)}, {"N": count})


@pytest.mark.parametrize("make", [running_sums, halving, nested])
def test_host_program_with_regions_when_printed_and_parsed_then_is_legal_and_the_same(
    make: Callable[[], Module],
) -> None:
    variant = lower_module(make(), machine_of(load_target("x86-64-v3"))).variant
    verify_variant(variant)
    text = print_variant(variant)
    again = parse_variant(text)
    verify_variant(again)
    assert print_variant(again) == text
