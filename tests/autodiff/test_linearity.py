"""What is called linear is: the table of ops, and regions of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tessera_build.ir.core.node import Region
from tessera_build.ir.core.types import F64, I64, tensor
from tessera_build.ir.graph.autodiff.derivative import Derivative
from tessera_build.ir.graph.autodiff.linearity import Kind, kinds_of
from tessera_build.ir.graph.autodiff.rules.linear import LINEAR
from tessera_build.ir.graph.autodiff.rules.table import DERIVATIVES
from tessera_build.ir.graph.builder import GraphBuilder

pytestmark = pytest.mark.unit
Make = Callable[[GraphBuilder, int, int], int]


def test_ops_when_rules_transpose_them_then_it_is_said_in_what_they_are_linear() -> None:
    transposed = {name for name, row in DERIVATIVES.items() if isinstance(row, Derivative) and row.transpose}
    assert transposed | {"attention"} == LINEAR.keys()


def _loop(builder: GraphBuilder, start: int, step: Callable[[int], int], *, until: int | None = None) -> int:
    inputs = (start,) if until is None else (until, start)
    with builder.region([builder.type(start)], {"i": (0, 2)}) as body:
        following = step(body.args[0])
        body.yields(*(() if until is None else (until,)), following)
    how = {"index": "i", "trips": 3, "conditional": until is not None}
    return builder.node("loop", inputs, how, [body.region])[0]


def _if(builder: GraphBuilder, condition: int, then: Sequence[int]) -> int:
    regions: list[Region] = []
    for result in then:
        with builder.region() as block:
            block.yields(result)
        regions.append(block.region)
    return builder.node("if", (condition,), {}, regions)[0]


def _positive(builder: GraphBuilder, value: int) -> int:
    total = builder.op("reduce", value, kind="sum", axes=(0,), keepdims=False)
    return builder.op("gt", total, builder.scalar(0.0, total))


def _scattered(builder: GraphBuilder, c: int, g: int, reduction: str) -> int:
    places = builder.constant(np.asarray([0, 1, 0]))
    return builder.op("scatter_elements", c, places, g, axis=0, reduction=reduction)


def _zeros(builder: GraphBuilder) -> int:
    return builder.op("broadcast_to", builder.scalar(0.0, F64), shape=(3,))


# Of a builder, a constant c and the argument g, both f64[3].
STRAIGHT: dict[str, Make] = {
    "itself": lambda b, c, g: g,
    "sum of both": lambda b, c, g: b.op("add", g, b.op("mul", c, g)),
    "quotient": lambda b, c, g: b.op("div", g, c),
    "with zeros": lambda b, c, g: b.op("sub", g, _zeros(b)),
    "chosen by a constant": lambda b, c, g: b.op("select", b.op("gt", c, b.scalar(0.0, c)), g, b.scalar(0.0, c)),
    "joined with zeros": lambda b, c, g: b.op("concat", g, _zeros(b), axis=0),
    "a loop": lambda b, c, g: _loop(b, g, lambda x: b.op("mul", x, c)),
    "a loop from zeros": lambda b, c, g: _loop(b, _zeros(b), lambda x: b.op("add", x, g)),
    "a loop that a constant ends": lambda b, c, g: _loop(b, g, lambda x: b.op("mul", x, c), until=_positive(b, c)),
    "a choice": lambda b, c, g: _if(b, _positive(b, c), (g, _zeros(b))),
    "added to zeros": lambda b, c, g: _scattered(b, _zeros(b), g, "add"),
    "checked": lambda b, c, g: b.op("checked", g, _positive(b, g), message="it holds"),
}
BENT: dict[str, Make] = {
    "square": lambda b, c, g: b.op("mul", g, g),
    "shifted": lambda b, c, g: b.op("add", g, c),
    "divides": lambda b, c, g: b.op("div", c, g),
    "jump": lambda b, c, g: b.op("sign", g),
    "largest": lambda b, c, g: b.op("reduce", g, kind="max", axes=(0,), keepdims=True),
    "scattered products": lambda b, c, g: _scattered(b, _zeros(b), g, "mul"),
    "scattered maxima": lambda b, c, g: _scattered(b, _zeros(b), g, "max"),
    "added to what is constant": lambda b, c, g: _scattered(b, c, g, "add"),
    "padded with ones": lambda b, c, g: b.op("pad", g, low=(1,), high=(0,), value=1.0),
    "chosen by itself": lambda b, c, g: b.op("select", b.op("gt", g, c), g, b.scalar(0.0, c)),
    "a loop that adds": lambda b, c, g: _loop(b, g, lambda x: b.op("add", x, c)),
    "a loop that becomes a square": lambda b, c, g: _loop(b, c, lambda x: b.op("mul", x, g)),
    "a loop that it ends": lambda b, c, g: _loop(b, g, lambda x: b.op("mul", x, c), until=_positive(b, g)),
    "a choice of it": lambda b, c, g: _if(b, _positive(b, g), (g, _zeros(b))),
    "a choice that shifts": lambda b, c, g: _if(b, _positive(b, c), (g, c)),
    "rounded to integers": lambda b, c, g: b.op("cast", b.op("cast", g, dtype=I64), dtype=F64),
}


def _kind(make: Make) -> tuple[Kind, str | None]:
    builder = GraphBuilder()
    constant = builder.input("c", tensor(F64, 3))
    with builder.region([tensor(F64, 3)]) as block:
        block.yields(make(builder, constant, block.args[0]))
    (seen,) = kinds_of(block.region, block.args, builder.array)
    return seen.kind, seen.cause.op if seen.cause else None


@pytest.mark.parametrize("name", STRAIGHT)
def test_region_when_it_is_linear_then_is_called_so(name: str) -> None:
    assert _kind(STRAIGHT[name]) == (Kind.LINEAR, None)


@pytest.mark.parametrize("name", BENT)
def test_region_when_it_is_not_linear_then_the_first_op_that_is_not_is_named(name: str) -> None:
    kind, cause = _kind(BENT[name])
    assert kind == Kind.OTHER
    assert cause is not None


def test_region_when_it_gives_zeros_then_is_zero_and_else_constant() -> None:
    assert _kind(lambda b, c, g: b.op("mul", c, _zeros(b))) == (Kind.ZERO, None)
    assert _kind(lambda b, c, g: b.op("add", c, _zeros(b))) == (Kind.CONSTANT, None)
    assert _kind(lambda b, c, g: b.constant(np.ones(3))) == (Kind.CONSTANT, None)
