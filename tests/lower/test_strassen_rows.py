"""Products in halves whose rows only a run knows: the answers for every number of them, with weights held once.

The direct sum of few rows reads the panels of halves; blocks of many rows differ by one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from tessera_build.config import load_precision
from tessera_build.frontends.onnx import read_onnx
from tessera_build.ir.core.dims import Extent, bounds, evaluate, symbol
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph import reference
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.trace import ScheduleRejectedError
from tessera_build.lower.program.assemble import lower_module
from tessera_build.lower.program.kernels import Setting, derived_within
from tessera_build.space.strassen import LEAST_ROWS, STRASSEN, product_of
from tessera_build.space.workload import Bounds
from tests.frontends_onnx.oracle import make_model
from tests.lower.compiled import check_module, compile_module
from tests.lower.execution import AVX2, AVX512, run_tiles
from tests.lower.strassen_cases import Cut, Sizes, inputs_of, module_of
from tests.lower.tasks import constants_of, summed, task_of

ALLOWED = load_precision("fp32").products_max_error
HALVED = 2 * LEAST_ROWS
_ROWS = st.one_of(st.integers(1, 2 * HALVED), st.sampled_from([HALVED - 1, HALVED, HALVED + 1]))
_SETTINGS = settings(max_examples=16, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def _check(
    rows: int, images: int | None, depth: int, cut: Cut, epilogue: str = "bias", machine: CpuMachine = AVX512
) -> None:
    inputs = inputs_of(module_of(Sizes(images or 2, rows, depth, 64), epilogue))
    dims = {"S": rows} if images else {"N": 2, "S": rows}
    check_module(module_of(Sizes(images, None, depth, 64), epilogue), inputs, dims, machine, cut.chooser())


@pytest.mark.numerics
@_SETTINGS
@given(
    _ROWS,
    st.sampled_from([1, 3, None]),
    st.sampled_from([3, 4, 9]),
    st.sampled_from(["", "bias erf", "residual"]),
    st.sampled_from([AVX512, AVX2]),
)
def test_product_when_its_rows_are_not_known_then_agrees_with_the_reference(
    rows: int, images: int | None, tile: int, epilogue: str, machine: CpuMachine
) -> None:
    _check(rows, images, 96, Cut(tile, 2, 2, 16), epilogue, machine)


@pytest.mark.numerics
@pytest.mark.parametrize("rows", [340, 341, 342, 401, 1023])  # one block holds 341 rows of this depth
def test_blocks_when_rows_are_not_known_then_differ_by_a_row_and_agree(rows: int) -> None:
    _check(rows, 1, 1536, Cut(8, 2, 2, 384), "bias residual")


@pytest.mark.numerics
@pytest.mark.parametrize("rows", [0, 3, HALVED - 1, HALVED, 61])
def test_product_when_interpreted_then_agrees_and_writes_every_row(rows: int) -> None:
    module = replace(module_of(Sizes(2, None, 64, 32), "bias"), dims={"S": (0, None)})
    inputs = inputs_of(module_of(Sizes(2, rows, 64, 32), "bias")) if rows else {"x": np.ones((2, 0, 64), np.float32)}
    (found,), lowered = run_tiles(module, inputs, {"S": rows}, AVX512, Cut(4, 1, 2, 32).chooser())
    assert len(lowered.launches[0]) == 3
    (wanted,) = reference.run(module, "main", inputs).values()
    assert float(np.abs(np.subtract(found.reshape(wanted.shape), wanted)).max(initial=0.0)) < 1e-4


@pytest.mark.unit
@pytest.mark.parametrize("depth", [64, 768, 1536, 8192])
def test_blocks_when_rows_are_any_number_then_cover_them_and_each_is_worth_halving(depth: int) -> None:
    product = product_of(summed(module_of(Sizes(1, None, depth, 64)))[1])
    assert product is not None
    for rows in (0, 1, *range(HALVED, 1200), 5000):
        dims = {"S": rows}
        count = evaluate(product.blocks, dims)
        begins = [evaluate(product.begin(block), dims) for block in range(count + 1)]
        heights = [evaluate(product.height, dims | {product.block: block}) for block in range(count)]
        assert (begins[0], begins[-1], heights) == (0, rows, list(np.diff(begins)))
        assert max(-(-height // 2) for height in heights) == evaluate(product.largest[0], dims) <= product.largest[1]
        assert rows < HALVED or min(heights) >= HALVED


@pytest.mark.numerics
def test_product_when_there_are_no_rows_then_gives_none() -> None:
    module = replace(module_of(Sizes(2, None, 96, 64), "bias"), dims={"S": (0, None)})
    code = compile_module(module, AVX512, Cut(4, 2, 2, 16).chooser())
    for rows in (0, 1, HALVED):  # a run without rows leaves the next ones as they are
        x = np.ones((2, rows, 96), np.float32)
        assert code.run({"x": x}, {"S": rows})["y"].shape == (2, rows, 64)


@pytest.mark.numerics
@pytest.mark.parametrize("rows", [7, 53])
def test_bits_when_neighbours_in_a_batch_tiles_or_threads_differ_then_are_the_same(rows: int) -> None:
    module, inputs = module_of(Sizes(None, None, 96, 64), "bias"), inputs_of(module_of(Sizes(3, rows, 96, 64), "bias"))

    def run(tile: int, threads: int, first: int, last: int) -> bytes:
        part = {"x": inputs["x"][first:last]}
        code = compile_module(module, AVX512, Cut(tile, 2, 2, 16).chooser())
        return code.run(part, {"N": last - first, "S": rows}, threads)["y"].tobytes()

    whole = [run(tile, threads, 0, 3) for tile, threads in ((4, 1), (4, 2), (11, 1))]
    assert len(set(whole)) == 1
    assert whole[0] == b"".join(run(4, 1, image, image + 1) for image in range(3))


def _tokens(shape: tuple[Extent, ...], order: tuple[int, ...] = (0, 1, 2), mixed: bool = True) -> Module:
    """A product of x in another order of its axes, and the largest of its results along the second axis of them."""
    rng, b = np.random.default_rng(3), GraphBuilder()
    x = b.input("x", tensor(F32, *shape))
    x = x if order == (0, 1, 2) else b.op("transpose", x, perm=order)
    y = b.op("matmul", x, b.constant(rng.standard_normal((768, 768)).astype(np.float32)))
    b.output("y", y)
    if mixed:
        b.output("largest", b.op("reduce", y, kind="max", axes=(1,), keepdims=False))
    return b.finish()


def _halved(module: Module) -> bool:
    """Whether the default schedule halves the product."""
    lowered = lower_module(module, AVX512, choose=derived_within(Bounds(products=ALLOWED)))
    return any(w.layout.startswith("v1:strassen(") for w in lowered.weights)


_N, _S = symbol("N"), symbol("S")


@pytest.mark.unit
def test_bundle_when_rows_are_not_known_then_holds_weights_once() -> None:
    module = _tokens((_N, _S, 768))
    halved = lower_module(module, AVX512, choose=derived_within(Bounds(products=ALLOWED)))
    direct = lower_module(module, AVX512, choose=derived_within(Bounds()))
    assert len(halved.launches[0]) == 4  # sums of rows, halves, few rows; the largest
    assert sum(w.array.nbytes for w in halved.weights) == sum(w.array.nbytes for w in direct.weights)


@pytest.mark.unit
def test_versions_when_rows_are_known_to_be_enough_or_too_few_then_are_no_more_than_can_run() -> None:
    for low, high, launches in ((HALVED, None, 3), (1, HALVED, 4)):
        module = replace(_tokens((_N, _S, 768)), dims={"S": (low, high)})
        lowered = lower_module(module, AVX512, choose=derived_within(Bounds(products=ALLOWED)))
        assert len(lowered.launches[0]) == launches
    assert not _halved(replace(_tokens((_N, _S, 768)), dims={"S": (1, HALVED - 1)}))


@pytest.mark.unit
def test_rule_when_rows_may_be_requests_then_takes_the_direct_sum() -> None:
    """What leads an input may be a batch, wherever a transposition puts it; so may what is never combined."""
    assert _halved(_tokens((_N, _S, 768)))
    assert _halved(_tokens((_S, _N, 768), (1, 0, 2), mixed=False)) is False
    assert _halved(_tokens((_N, _S, 768), (1, 0, 2))) is False
    assert _halved(_tokens((_N, _S, 768), mixed=False)) is False
    assert _halved(_tokens((1, _N * _S, 768), mixed=False)) is False


@pytest.mark.unit
def test_memory_when_a_dim_has_a_bound_then_is_that_of_the_rows() -> None:
    module = replace(_tokens((1, _S, 768)), dims={"S": (1, 8192)})
    lowered = lower_module(module, AVX512, choose=derived_within(Bounds(products=ALLOWED)))
    ((_, most),) = [bounds(entry.arena_bytes, {"S": (1, 8192)}) for entry in lowered.variant.entries]
    assert most is not None
    assert 8192 * 768 * 4 <= most < 1.2 * 8192 * 768 * 4  # sums of half the rows and depth, four of them


@pytest.mark.unit
def test_rule_when_rows_are_read_from_data_then_takes_the_direct_sum() -> None:
    module = module_of(Sizes(1, None, 768, 768))
    setting = Setting(task_of(module), {}, constants_of(module), {"S": (1, None)}, mixed=frozenset({"S"}))
    choose = derived_within(Bounds(products=ALLOWED))
    step = choose(setting, AVX512).rewritten()
    assert step is not None
    assert step.algorithm == STRASSEN
    assert choose(replace(setting, unbounded=frozenset({"S"})), AVX512).rewritten() is None


@pytest.mark.errors
@pytest.mark.parametrize("cut", [Cut(LEAST_ROWS + 1, 1, 2, 16), Cut(4, 1, 2, 16, group=2)])
def test_trace_when_rows_are_not_known_then_tiles_fit_the_fewest_and_are_one_group(cut: Cut) -> None:
    with pytest.raises(ScheduleRejectedError):
        compile_module(module_of(Sizes(1, None, 96, 64)), AVX2, cut.chooser())


@pytest.mark.errors
def test_trace_when_rows_are_read_from_data_then_is_refused() -> None:
    """The halves' sums would need memory that nobody can set aside before the run."""
    nodes = [
        helper.make_node("Tile", ["x", "times"], ["repeated"]),
        helper.make_node("Reshape", ["repeated", "shape"], ["rows"]),
        helper.make_node("MatMul", ["rows", "w"], ["y"]),
    ]
    constants = {"w": np.ones((96, 64), np.float32), "shape": np.array([1, -1, 96])}
    model = make_model(nodes, {"x": (np.float32, (1, "S", 96)), "times": (np.int64, (3,))}, ["y"], constants)
    module = run_passes(read_onnx(model))
    with pytest.raises(ScheduleRejectedError, match="rows that is read from data"):
        compile_module(module, AVX512, Cut(4, 2, 2, 16).chooser())


@pytest.mark.numerics
def test_few_rows_when_a_quarter_is_stored_as_a_difference_then_err_as_little_as_halves() -> None:
    module = module_of(Sizes(1, None, 768, 128))
    x = np.random.default_rng(7).standard_normal((1, 9, 768)).astype(np.float32)
    (weights,) = module.constants.values()
    exact = x.astype(np.float64) @ weights.astype(np.float64)
    found = compile_module(module, AVX512, Cut(8, 2, 2, 384).chooser()).run({"x": x}, {"S": 9})["y"]
    assert float(np.abs(np.subtract(found, exact)).max() / exact.std()) < ALLOWED / 4
