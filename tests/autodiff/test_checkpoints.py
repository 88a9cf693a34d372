"""Checkpoints: values are computed again on the way back instead of being kept."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tessera_build.config import load_target
from tessera_build.driver.machine import machine_of
from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import BOOL, F32, tensor
from tessera_build.ir.graph.autodiff.entries import with_grad, with_jvp
from tessera_build.ir.graph.autodiff.transform import backward
from tessera_build.ir.graph.builder import GraphBuilder, graph_nodes
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.graph.reference import run
from tessera_build.lower.program.assemble import lower_module
from tests.autodiff.checking import check, drawn, f64, module_of
from tests.autodiff.models import only
from tests.autodiff.test_control import branches, loop
from tests.lower.compiled import check_module

pytestmark = pytest.mark.unit

N = symbol("N")


def checkpoint(b: GraphBuilder, operands: list[int], body: Callable[[tuple[int, ...]], list[int]]) -> tuple[int, ...]:
    """A checkpoint over what a function of its operands builds."""
    with b.region([b.type(v) for v in operands]) as block:
        block.yields(*body(block.args))
    return b.node("checkpoint", tuple(operands), {}, (block.region,))


def _layer(b: GraphBuilder, x: int, w: int) -> int:
    return b.op("tanh", b.op("matmul", b.op("sin", b.op("matmul", x, w)), w))


def test_checkpoint_when_differentiated_then_agrees_with_differences_to_second_order() -> None:
    def make(b: GraphBuilder, x: list[int]) -> list[int]:
        outside = b.op("exp", x[2])

        def body(args: tuple[int, ...]) -> list[int]:
            y = b.op("add", _layer(b, *args), outside)
            return [y, b.op("floor", y)]

        first, steps = checkpoint(b, [x[0], x[1]], body)
        (second,) = checkpoint(b, [first, x[1]], lambda args: [_layer(b, *args)])
        return [second, steps]

    module = module_of(make, [f64(N, 3), f64(3, 3), f64(3)])
    check(module, drawn(module, "main", 60), order=2)


def test_checkpoint_when_it_holds_branches_and_stands_in_a_loop_then_agrees_with_differences() -> None:
    def make(b: GraphBuilder, x: list[int]) -> int:
        def inside(args: tuple[int, ...]) -> list[int]:
            return branches(b, x[2], lambda: [_layer(b, *args)], lambda: [b.op("sin", args[0])])

        return loop(b, [x[0]], lambda _, state: list(checkpoint(b, [state[0], x[1]], inside)), 3)[0]

    module = module_of(make, [f64(2, 3), f64(3, 3), tensor(BOOL)])
    check(module, {**drawn(module, "main", 61), "x2": np.asarray(True)}, order=2)


def _deep(layers: int, again: bool) -> Module:
    """Layers that each keep several values of [N, 64]."""
    b = GraphBuilder()
    x, w = b.input("x", tensor(F32, 128, 64)), b.input("w", tensor(F32, 64, 64))
    y = x
    for _ in range(layers):
        y = checkpoint(b, [y, w], lambda a: [_layer(b, *a)])[0] if again else _layer(b, y, w)
    b.output("loss", b.op("reduce", b.op("mul", y, y), kind="sum", axes=(0, 1), keepdims=False))
    return run_passes(only(with_grad(b.finish(), "main", ["x", "w"]), "main_grad"))


def test_checkpoint_when_compiled_then_gradients_are_the_same_and_the_arena_is_smaller() -> None:
    plain, again = _deep(12, again=False), _deep(12, again=True)
    rng = np.random.default_rng(0)
    inputs = {n: (rng.standard_normal(s) / 8).astype(np.float32) for n, s in (("x", (128, 64)), ("w", (64, 64)))}
    expected, found = run(plain, "main", inputs), check_module(again, inputs, {})
    for name, array in expected.items():
        scale = float(np.abs(array).max())
        np.testing.assert_allclose(found[name].astype(np.float64), array.astype(np.float64), rtol=0, atol=1e-5 * scale)
    sizes = _arena(again), _arena(plain)
    assert sizes[0] < 0.6 * sizes[1], sizes


def _encoder(again: bool) -> Module:
    """24 layers of a widening product, GELU, a narrowing product and what went in, each with weights of its own."""
    b = GraphBuilder()
    y = b.input("x", tensor(F32, 64, 64))
    for i in range(24):
        first, second = b.input(f"a{i}", tensor(F32, 64, 256)), b.input(f"b{i}", tensor(F32, 256, 64))
        operands = [y, first, second]
        y = checkpoint(b, operands, lambda a: [_feed_forward(b, *a)])[0] if again else _feed_forward(b, *operands)
    b.output("loss", b.op("reduce", b.op("mul", y, y), kind="sum", axes=(0, 1), keepdims=False))
    module = b.finish()
    return run_passes(only(with_grad(module, "main", module.input_names["main"]), "main_grad"))


def _feed_forward(b: GraphBuilder, x: int, first: int, second: int) -> int:
    wide = b.op("matmul", x, first)
    bell = b.op("add", b.op("erf", b.op("mul", wide, b.scalar(0.5**0.5, wide))), b.scalar(1.0, wide))
    return b.op("add", x, b.op("matmul", b.op("mul", wide, bell), second))


def test_checkpoint_when_layers_are_many_then_memory_falls_by_more_than_four() -> None:
    sizes = _arena(_encoder(again=True)), _arena(_encoder(again=False))
    assert 4 * sizes[0] < sizes[1], sizes


def _arena(module: Module) -> int:
    lowered = lower_module(module, machine_of(load_target("native")))
    size = lowered.variant.entries[0].arena_bytes
    assert isinstance(size, int)
    return size


def test_passes_when_a_checkpoint_is_not_differentiated_then_it_is_gone() -> None:
    module = module_of(lambda b, x: checkpoint(b, x, lambda a: [b.op("exp", a[0])])[0], [f64(3)])
    ops = [n.op for n in graph_nodes(run_passes(module, verify_each=True).entries["main"])]
    assert ops == ["exp"]
    assert "checkpoint" not in [n.op for n in graph_nodes(with_jvp(module, "main", ["x0"]).entries["main_jvp"])]


def test_backward_when_asked_by_a_value_between_then_both_get_their_gradients() -> None:
    b = GraphBuilder()
    x = b.input("x", f64(3))
    between = b.op("sin", x)
    loss = b.op("reduce", b.op("mul", between, x), kind="sum", axes=(0,), keepdims=False)
    b.output("loss", loss)
    for name, value in zip(("x", "between"), backward(b, [loss], [b.scalar(1.0, loss)], [x, between]), strict=True):
        assert value is not None
        b.output(f"d{name}", value)
    point = np.array([0.3, 1.0, -2.0])
    found = run(b.finish(), "main", {"x": point})
    np.testing.assert_allclose(np.asarray(found["dbetween"], np.float64), point)
    np.testing.assert_allclose(np.asarray(found["dx"], np.float64), np.sin(point) + point * np.cos(point))


def test_backward_when_a_checkpoint_is_written_already_then_agrees_with_its_plain_form() -> None:
    found: list[np.ndarray] = []
    for again in (False, True):
        b = GraphBuilder()
        x, w = b.input("x", f64(2, 3)), b.input("w", f64(3, 3))
        y = checkpoint(b, [x, w], lambda a, b=b: [_layer(b, *a)])[0] if again else _layer(b, x, w)
        (gradient,) = backward(b, [y], [y], [w])
        assert gradient is not None
        b.output("dw", gradient)
        module = b.finish()
        assert isinstance(module.entries["main"], Function)
        found.append(np.asarray(run(module, "main", drawn(module, "main", 62))["dw"], np.float64))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)
