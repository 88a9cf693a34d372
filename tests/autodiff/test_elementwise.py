"""Derivatives of elementwise ops."""

from __future__ import annotations

import numpy as np
import pytest

from bundle_format.errors import TesseraError
from tessera_build.ir.core.node import Span
from tessera_build.ir.core.types import BOOL, F32, F64, I8, I32, tensor
from tessera_build.ir.graph.autodiff.entries import with_grad
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.reference import run
from tests.autodiff.checking import Draw, check, drawn, f64, inside, module_of, normal, positive

pytestmark = pytest.mark.unit

ANYWHERE = ("neg", "exp", "tanh", "erf", "sigmoid", "sin", "cos", "atan", "sinh", "cosh", "asinh", "abs")
UNARY: dict[str, Draw] = {
    **dict.fromkeys(ANYWHERE, normal),
    **dict.fromkeys(("log", "sqrt", "rsqrt"), positive),
    **dict.fromkeys(("tan", "asin", "acos", "atanh"), inside),
    "acosh": lambda rng, shape: rng.uniform(1.5, 3.0, shape),
}
BINARY: dict[str, Draw] = {
    **dict.fromkeys(("add", "sub", "mul", "max", "min"), normal),
    **dict.fromkeys(("div", "pow"), positive),
    "mod": lambda rng, shape: rng.uniform(1.0, 7.0, shape),
    "rem": lambda rng, shape: rng.uniform(1.0, 7.0, shape),
}


@pytest.mark.parametrize("op", UNARY)
def test_unary_when_differentiated_then_agrees_with_differences_to_second_order(op: str) -> None:
    module = module_of(lambda b, x: b.op(op, x[0]), [f64(3, 4)])
    check(module, drawn(module, "main", 3, UNARY[op]), order=2)


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize("shapes", [((3, 4), (3, 4)), ((3, 1), (2, 1, 4)), ((), (2, 3))])
def test_binary_when_operands_broadcast_then_agrees_with_differences(
    op: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    module = module_of(lambda b, x: b.op(op, *x), [f64(*shape) for shape in shapes])
    check(module, drawn(module, "main", 4, BINARY[op]), order=2)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0, 3.0, -1.0])
def test_pow_when_the_power_is_a_constant_then_agrees_with_differences(power: float) -> None:
    module = module_of(lambda b, x: b.op("pow", x[0], b.scalar(power, x[0])), [f64(5)])
    check(module, drawn(module, "main", 5, positive), order=2)


def test_pow_when_the_base_is_negative_or_zero_then_whole_powers_have_slopes() -> None:
    module = with_grad(module_of(lambda b, x: b.op("pow", x[0], x[1]), [f64(4), f64(4)]), "main", ["x0"])
    inputs = {"x0": np.array([-2.0, 0.0, 0.0, -1.0]), "x1": np.array([3.0, 1.0, 0.0, 2.0])}
    found = run(module, "main_grad", {**inputs, "y0_cotangent": np.ones(4)})["x0_gradient"]
    np.testing.assert_array_equal(found, [12.0, 1.0, 0.0, -2.0])


def test_logistic_when_differentiated_then_is_what_sigmoid_gives() -> None:
    """Its own values are a rational approximation in float32, too coarse for differences."""
    made = [with_grad(module_of(lambda b, x: b.op(o, x[0]), [f64(9)]), "main", ["x0"]) for o in ("logistic", "sigmoid")]  # noqa: B023
    inputs = {"x0": np.linspace(-4.0, 4.0, 9), "y0_cotangent": np.ones(9)}
    logistic, sigmoid = (run(m, "main_grad", inputs)["x0_gradient"] for m in made)
    np.testing.assert_allclose(logistic.astype(np.float64), sigmoid.astype(np.float64), rtol=0, atol=1e-6)


def test_product_when_both_operands_are_one_value_then_is_twice_it() -> None:
    module = module_of(lambda b, x: b.op("mul", x[0], x[0]), [f64(3)])
    check(module, drawn(module, "main", 6), order=2)


def test_select_when_differentiated_then_cotangents_go_to_the_chosen_side() -> None:
    module = module_of(lambda b, x: b.op("select", x[0], x[1], x[2]), [tensor(BOOL, 3, 4), f64(4), f64(3, 1)])
    check(module, drawn(module, "main", 7), order=2)
    constant = module_of(lambda b, x: b.op("select", x[0], x[1], b.scalar(2.0, x[1])), [tensor(BOOL, 3, 4), f64(4)])
    check(constant, drawn(constant, "main", 8), order=2)


def test_cast_when_between_floats_then_cotangents_come_back_in_the_operands_type() -> None:
    def make(b: GraphBuilder, x: list[int]) -> int:
        return b.op("cast", b.op("mul", x[0], x[0]), dtype=F32)

    module = with_grad(module_of(make, [f64(4)]), "main", ["x0"])
    assert module.entries["main_grad"].types[module.entries["main_grad"].results[-1]] == tensor(F64, 4)


@pytest.mark.parametrize("op", ["floor", "ceil", "round", "sign"])
def test_jumps_when_differentiated_then_are_zero(op: str) -> None:
    module = module_of(lambda b, x: b.op("mul", b.op(op, x[0]), x[0]), [f64(4)])
    check(module, drawn(module, "main", 9), order=2)


def test_comparison_when_it_chooses_then_has_no_derivative_of_its_own() -> None:
    def make(b: GraphBuilder, x: list[int]) -> int:
        return b.op("select", b.op("lt", x[0], x[1]), b.op("exp", x[0]), b.op("sin", x[1]))

    module = module_of(make, [f64(5), f64(5)])
    check(module, drawn(module, "main", 10), order=2)


def test_rectifier_when_at_zero_then_is_zero_and_equal_operands_share() -> None:
    relu = with_grad(module_of(lambda b, x: b.op("max", x[0], b.scalar(0.0, x[0])), [f64(3)]), "main", ["x0"])
    found = run(relu, "main_grad", {"x0": np.array([-1.0, 0.0, 2.0]), "y0_cotangent": np.ones(3)})
    np.testing.assert_array_equal(found["x0_gradient"], [0.0, 0.0, 1.0])
    both = with_grad(module_of(lambda b, x: b.op("min", *x), [f64(1), f64(1)]), "main", ["x0", "x1"])
    found = run(both, "main_grad", {"x0": np.ones(1), "x1": np.ones(1), "y0_cotangent": np.ones(1)})
    assert found["x0_gradient"] == found["x1_gradient"] == 0.5


def test_bits_when_differentiated_then_refused_with_the_nodes_place() -> None:
    builder = GraphBuilder()
    x = builder.input("x", f64(3))
    with builder.at(Span("model.py", 4, 9)):
        bits = builder.op("bitcast", x, dtype=F64)
    builder.output("y", bits)
    with pytest.raises(TesseraError) as caught:
        with_grad(builder.finish(), "main", ["x"])
    assert (caught.value.code, caught.value.where) == ("NOT_DIFFERENTIABLE", "model.py:4:9")


def _quantised(b: GraphBuilder, x: list[int]) -> int:
    rounded = b.op("cast", b.op("round", b.op("div", x[0], x[1])), dtype=I8)
    doubled = b.op("add", b.op("cast", rounded, dtype=I32), b.op("cast", rounded, dtype=I32))
    return b.op("mul", b.op("cast", doubled, dtype=F64), x[1])


def test_rounding_to_eight_bits_when_it_comes_back_as_floats_then_refused() -> None:
    module = module_of(_quantised, [f64(3), f64(1)])
    with pytest.raises(TesseraError, match="rounded to 8 bits") as caught:
        with_grad(module, "main", ["x0", "x1"])
    assert (caught.value.code, caught.value.found) == ("NOT_DIFFERENTIABLE", "cast")


def test_rounding_to_eight_bits_when_it_is_an_output_then_what_is_beside_it_is_differentiated() -> None:
    def make(b: GraphBuilder, x: list[int]) -> list[int]:
        return [b.op("cast", b.op("round", x[0]), dtype=I8), b.op("exp", x[0])]

    module = module_of(make, [f64(3)])
    check(module, drawn(module, "main", 12), order=1)
