"""Products of which only a run knows how many rows there are: a kernel for whole tiles, for some rows, and for one."""

from __future__ import annotations

import numpy as np
import pytest

from tessera_build.ir.core.dims import evaluate, symbol
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.lower.program.kernels import LoweredTask, Setting, derived, lower_task
from tests.lower.compiled import check_module, compile_module
from tests.lower.execution import AVX512
from tests.lower.tasks import constants_of, task_of

DEPTH, COLUMNS = 70, 50


def _module(low: int = 1) -> Module:
    rng, b = np.random.default_rng(0), GraphBuilder(dims={"N": (low, None)})
    y = b.op(
        "matmul",
        b.input("x", tensor(F32, symbol("N"), DEPTH)),
        b.constant(rng.standard_normal((DEPTH, COLUMNS)).astype(np.float32)),
    )
    b.output("y", b.op("max", y, b.scalar(0.0, F32)))
    return b.finish()


def _kernels(low: int) -> list[LoweredTask]:
    module = _module(low)
    return list(lower_task(Setting(task_of(module), {}, constants_of(module), {"N": (low, None)}), AVX512, derived))


@pytest.mark.unit
@pytest.mark.parametrize(("low", "rows"), [(1, [8, 4, 1]), (3, [8, 4, 1]), (4, [8, 4]), (7, [8, 4]), (8, [8])])
def test_kernels_when_rows_are_not_known_then_one_runs_for_every_number(low: int, rows: list[int]) -> None:
    kernels = _kernels(low)
    tiles = [kernel.schedule.factors().get("_d0", 1) for kernel in kernels]
    assert tiles == rows
    for number in range(low, 20):
        (running,) = [tile for tile, k in zip(tiles, kernels, strict=True) if evaluate(k.count, {"N": number}) > 0]
        assert running == max(tile for tile in tiles if tile <= number)


@pytest.mark.numerics
def test_bits_when_the_number_of_rows_differs_then_those_of_a_row_are_the_same() -> None:
    module = _module()
    code, x = compile_module(module, AVX512), np.random.default_rng(1).standard_normal((17, DEPTH)).astype(np.float32)

    def rows(number: int, threads: int) -> Array:
        return code.run({"x": x[:number]}, {"N": number}, threads)["y"]

    whole = rows(17, 1)
    for number in range(1, 18):
        for threads in (1, 2):
            assert rows(number, threads).tobytes() == whole[:number].tobytes()


@pytest.mark.numerics
@pytest.mark.parametrize("number", [1, 3, 4, 5, 7, 8, 9])
def test_product_when_rows_are_few_then_agrees_with_the_reference(number: int) -> None:
    x = np.random.default_rng(number).standard_normal((number, DEPTH)).astype(np.float32)
    check_module(_module(), {"x": x}, {"N": number}, AVX512)
