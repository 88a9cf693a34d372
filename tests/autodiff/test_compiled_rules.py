"""Compiled derivatives of single ops: what a rule writes, the whole path below can compile, and right."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tessera_build.ir.core.dims import Dim, symbol
from tessera_build.ir.core.types import F32, I64, Type, tensor
from tessera_build.ir.graph.autodiff.entries import with_grad, with_jvp
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tests.autodiff.checking import DIMS, drawn, floats_of, module_of
from tests.autodiff.models import only
from tests.autodiff.test_contraction import CONVOLUTIONS
from tests.autodiff.test_control import at, branches, loop
from tests.autodiff.test_movement import CASES
from tests.autodiff.test_reduction import WINDOWS
from tests.lower.compiled import check_module

pytestmark = pytest.mark.numerics

N, M = symbol("N"), symbol("M")
Make = Callable[[GraphBuilder, list[int]], Sequence[int] | int]


def f32(*shape: int | Dim) -> Type:
    """A float32 tensor."""
    return tensor(F32, *shape)


def _narrow(types: Sequence[Type]) -> list[Type]:
    return [f32(*t.shape) if t.dtype.is_float else t for t in types]


def _rnn(b: GraphBuilder, x: list[int]) -> Sequence[int]:
    def body(index: str, args: tuple[int, ...]) -> list[int]:
        state = b.op("tanh", b.op("add", b.op("matmul", args[0], x[1]), at(b, x[2], index)))
        return [state, b.op("mul", state, at(b, x[2], index))]

    return loop(b, [x[0]], body, N, 1)


def _while(b: GraphBuilder, x: list[int]) -> Sequence[int]:
    def body(_: str, args: tuple[int, ...]) -> list[int]:
        state = b.op("add", b.op("mul", args[0], args[0]), x[1])
        total = b.op("reduce", b.op("abs", state), kind="sum", axes=(0,), keepdims=False)
        (chosen,) = branches(b, b.op("lt", total, b.scalar(2.0, total)), lambda: [b.op("sin", state)], lambda: [state])
        return [b.op("lt", total, b.scalar(4.0, total)), chosen]

    zero = b.scalar(0.0, x[0])
    return loop(b, [b.op("lt", zero, b.scalar(1.0, x[0])), x[0]], body, 6, conditional=True)


def _window(name: str, kind: str) -> tuple[Make, list[Type]]:
    shape, windows = WINDOWS[name]
    return (lambda b, x: b.op("reduce_window", x[0], kind=kind, **windows)), [f32(*shape)]


OPS: dict[str, tuple[Make, list[Type]]] = {
    **{f"conv {name}": (case.make, [f32(*case.x), f32(*case.w)]) for name, case in CONVOLUTIONS.items()},
    **{f"move {name}": (make, _narrow(types)) for name, (make, types) in CASES.items() if name != "beside"},
    **{f"{kind} {name}": _window(name, kind) for name in WINDOWS for kind in ("max", "sum")},
    "product": (lambda b, x: b.op("reduce", x[0], kind="prod", axes=(1,), keepdims=False), [f32(N, 5)]),
    "maximum": (lambda b, x: b.op("reduce", x[0], kind="max", axes=(0,), keepdims=True), [f32(N, M)]),
    "running product": (lambda b, x: b.op("cumulate", x[0], kind="prod", reverse=True), [f32(2, 5, 3)]),
    "running sum": (lambda b, x: b.op("cumulate", x[0], kind="sum", exclusive=True), [f32(2, N, 3)]),
    "softmax": (lambda b, x: b.op("softmax", x[0], axis=1), [f32(N, 7)]),
    "gather": (lambda b, x: b.op("gather", x[0], x[1], axis=1), [f32(2, 3, 4), tensor(I64, N)]),
    "gather elements": (lambda b, x: b.op("gather_elements", *x, axis=1), [f32(3, 4), tensor(I64, 2, 5)]),
    "scatter": (lambda b, x: b.op("scatter_elements", *x, axis=0), [f32(3, 4), tensor(I64, 2, 3), f32(2, 3)]),
    "scatter rows": (lambda b, x: b.op("scatter_nd", *x), [f32(2, 3, 2), tensor(I64, 5, 2), f32(5, 2)]),
    "scattered product": (
        lambda b, x: b.op("scatter_elements", *x, axis=0, reduction="mul"),
        [f32(N, 4), tensor(I64, 2, 3), f32(2, 3)],
    ),
    "scattered maximum": (
        lambda b, x: b.op("scatter_nd", *x, reduction="max"),
        [f32(2, N, 2), tensor(I64, 5, 2), f32(5, 2)],
    ),
    "symbolic product": (lambda b, x: b.op("reduce", x[0], kind="prod", axes=(0, 2), keepdims=False), [f32(N, 2, M)]),
    "symbolic running product": (lambda b, x: b.op("cumulate", x[0], kind="prod", exclusive=True), [f32(2, N, 3)]),
    "resample": (lambda b, x: b.op("resample", *x, axis=1), [f32(3, 4, 3), tensor(I64, 2, 5), f32(2, 5)]),
    "attention": (lambda b, x: b.op("attention", *x, scale=0.5), [f32(1, 4, 3, 8), f32(1, 2, N, 8), f32(1, 2, N, 8)]),
    "solve": (lambda b, x: b.node("solve", tuple(x), {})[1], [f32(2, 3, 3), f32(2, 3, 2)]),
    "recurrence": (_rnn, [f32(2, 3), f32(3, 3), f32(N, 2, 3)]),
    "while": (_while, [f32(2), f32(2)]),
}


def _inputs(module: Module) -> dict[str, Array]:
    found = drawn(module, "main", 70)
    return {n: np.asarray(np.multiply(a, 0.5), a.dtype) if a.dtype.kind == "f" else a for n, a in found.items()}


def _check(name: str, derive: Callable[[Module, str, Sequence[str]], Module], entry: str) -> None:
    make, types = OPS[name]
    module = module_of(make, types)
    derived = only(derive(module, "main", floats_of(module, "main")), entry)
    used = {s for t in types for e in t.shape if isinstance(e, Dim) for s in e.symbols}
    check_module(run_passes(derived, verify_each=True), _inputs(derived), {s: DIMS[s] for s in used})


@pytest.mark.parametrize("name", OPS)
def test_gradient_when_compiled_then_is_that_of_the_reference(name: str) -> None:
    _check(name, with_grad, "main_grad")


@pytest.mark.slow
@pytest.mark.parametrize("name", OPS)
def test_tangents_when_compiled_then_are_those_of_the_reference(name: str) -> None:
    _check(name, with_jvp, "main_jvp")
