"""Row tasks: two rows in a tile have the bits of one; NaN, infinities and zeros of either sign in maxima; any axes."""

from __future__ import annotations

import numpy as np
import pytest

from tessera_build.backends.llvm.emit_kernel import kernel_ir
from tessera_build.backends.llvm.objects import CodegenOptions, assembly
from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.types import F32, F64, DType, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.trace import Schedule, Split
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.graph_to_schedule.tasks import graph_to_schedule
from tessera_build.lower.program.assemble import lower_module
from tessera_build.lower.schedule_to_tile.replay import axes_of_domain, grouped_domain
from tessera_build.space.derive import Subject, derive_schedule
from tests.lower.compiled import check_module, compile_module
from tests.lower.execution import AVX2, AVX512, run_tiles


def _softmax(*shape: int) -> Module:
    b = GraphBuilder()
    x = b.op("mul", b.input("x", tensor(F32, *shape)), b.scalar(1.5, F32))
    b.output("y", b.op("softmax", x, axis=len(shape) - 1))
    return b.finish()


def _largest(kind: str, dtype: DType, *shape: int) -> Module:
    b = GraphBuilder()
    x = b.input("x", tensor(dtype, *shape))
    b.output("y", b.op("reduce", x, axes=(len(shape) - 1,), kind=kind))
    return b.finish()


def _draw(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def _schedule(module: Module) -> Schedule:
    (task,) = graph_to_schedule(module.entries["main"], {})
    axes = axes_of_domain(grouped_domain(task, Schedule())[0])
    return derive_schedule(Subject(task.kind, task.function.nodes, axes, task.reduced, {}), AVX512)


@pytest.mark.parametrize(
    "shape", [(2, 5), (6, 16), (4, 128), (3, 128), (2, 3, 4, 33), (1, 40), (8, 129), (2, 1000), (7, 1), (2, 2)], ids=str
)
def test_softmax_when_rows_share_tiles_then_is_the_reference(shape: tuple[int, ...]) -> None:
    check_module(_softmax(*shape), {"x": _draw(*shape)}, {})


def test_rows_when_they_fit_in_registers_twice_then_two_share_a_tile() -> None:
    rows = [s.factor for s in _schedule(_softmax(6, 128)).steps if isinstance(s, Split) and s.axis == "_d0"]
    assert rows == [2]
    for shape in ((5, 128), (6, 129), (6, 1000)):
        assert "_d0" not in _schedule(_softmax(*shape)).factors()


def test_rows_when_one_stands_alone_then_its_bits_are_those_it_has_in_a_pair() -> None:
    x = _draw(4, 77)
    together = compile_module(_softmax(4, 77)).run({"x": x}, {})["y"]
    alone = compile_module(_softmax(1, 77))
    for row in range(4):
        assert alone.run({"x": x[row : row + 1]}, {})["y"].tobytes() == together[row].tobytes()


def test_rows_when_they_share_tiles_then_the_interpreter_agrees_too() -> None:
    x = _draw(4, 37)
    ((found,), lowered) = run_tiles(_softmax(4, 37), {"x": x}, {})
    loops = [n for r in lowered.launches[0] for n in r.tile_function.walk() if isinstance(n, t.For)]
    assert any(loop.step == 2 for loop in loops)
    wide = 1.5 * x.astype(np.float64)
    weights = np.exp(wide - wide.max(1, keepdims=True))
    np.testing.assert_allclose(np.asarray(found, np.float64), weights / weights.sum(1, keepdims=True), rtol=2e-6)


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("kind", ["max", "min"])
@pytest.mark.parametrize("columns", [1, 3, 16, 61, 200])
def test_extremum_when_a_nan_is_anywhere_then_it_stays_and_others_are_untouched(
    kind: str, dtype: DType, columns: int
) -> None:
    rng = np.random.default_rng(columns)
    x = rng.standard_normal((2 * columns + 4, columns)).astype(dtype.numpy)
    x[np.arange(columns), np.arange(columns)] = np.nan
    x[columns : 2 * columns][np.arange(columns), np.arange(columns)] = np.inf if kind == "min" else -np.inf
    x[-1], x[-2] = np.inf, -np.inf
    x[-3] = 0
    found = compile_module(_largest(kind, dtype, *x.shape)).run({"x": x}, {})["y"]
    wide = np.asarray(x, np.float64)
    expected = wide.max(axis=1) if kind == "max" else wide.min(axis=1)
    np.testing.assert_array_equal(np.reshape(found, -1), expected)


def test_extremum_when_compiled_then_no_mask_joins_another() -> None:
    """LLVM merges the choice of a NaN and that of the larger value into joined masks if both choose one value."""
    options = CodegenOptions("x86_64-unknown-linux-gnu", "x86-64-v4")
    kernels = lower_module(_largest("max", F32, 8, 256), AVX512).variant.kernels
    text = "\n".join(assembly(kernel_ir(kernel, options, "kernel"), options) for kernel in kernels)
    assert "vmaxps" in text
    assert "korw" not in text


@pytest.mark.numerics
@pytest.mark.parametrize("machine", [None, AVX2], ids=["here", "avx2"])
@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("keepdims", [False, True])
def test_reduction_when_it_joins_what_it_reduces_then_agrees_with_the_reference(
    axes: tuple[int, ...], keepdims: bool, machine: CpuMachine | None
) -> None:
    b = GraphBuilder(dims={"N": (1, None)})
    x, y = b.input("x", tensor(F32, 3, symbol("N"), 19)), b.input("y", tensor(F32, 19))
    rows = b.op("mul", b.op("tanh", x), y)
    total = b.op("reduce", rows, kind="sum", axes=axes, keepdims=keepdims)
    b.output("total", b.op("neg", total))
    b.output("rows", b.op("abs", rows))
    rng = np.random.default_rng(0)
    inputs = {"x": rng.standard_normal((3, 11, 19)).astype(np.float32), "y": rng.standard_normal(19).astype(np.float32)}
    check_module(run_passes(b.finish()), inputs, {"N": 11}, machine)
