"""Models whose answers jump with a rounding: right builds are accepted launch by launch, and wrong ones are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import tessera_build
from tessera_build.config import Tolerance
from tessera_build.frontends.onnx import read_onnx
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph import reference
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.verify import check
from tessera_build.verify.check import FIRST_SEED
from tessera_build.verify.errors import VerificationError
from tessera_build.verify.exact import LARGEST, limits_of_moves
from tessera_build.verify.execute import CompiledProgram, Look, Memory
from tessera_build.verify.groups import Case, GroupResult, Groups
from tessera_build.verify.in_place import compare_in_place
from tessera_build.verify.inputs import make_inputs
from tessera_build.verify.jumps import all_within, jumps
from tests.driver.models import mlp, model_of

pytestmark = pytest.mark.numerics

_DEPTH, _UNITS, _NEAR = 512, 64, 12
_JUMPED = 1e-3  # one unit more or less is at least so much of the largest output


def kinked(compared: bool = True) -> onnx.ModelProto:
    """Units that are on or off, of which some are zero but for the order of their sums; or their sums alone."""
    rng = np.random.default_rng(5)
    weights = rng.standard_normal((_DEPTH, _UNITS)).astype(np.float32)
    second = rng.standard_normal((_UNITS, 16)).astype(np.float32)
    second[:_NEAR] *= 0.2
    x = make_inputs(read_onnx(_model(weights, second, compared)), "main", {}, FIRST_SEED)["x"].astype(np.float64)
    near = weights[:, :_NEAR].astype(np.float64)
    weights[:, :_NEAR] = near - x.T @ (x @ near) / (x @ x.T)
    return _model(weights, second, compared)


def _model(weights: Array, second: Array, compared: bool) -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"], name="sums"),
        helper.make_node("Greater", ["z", "zero"], ["on"], name="sides"),
        helper.make_node("Cast", ["on"], ["units"], name="units", to=onnx.TensorProto.FLOAT),
        helper.make_node("MatMul", ["units" if compared else "z", "v"], ["y"], name="answers"),
    ]
    constants = {"w": weights, "v": second, "zero": np.zeros((), np.float32)}
    return model_of(nodes if compared else [nodes[0], nodes[3]], constants, [1, _DEPTH], [1, 16])


Compare = Callable[[CompiledProgram, Groups, Case, Tolerance], list[GroupResult] | None]


class Disturbed:
    """A program whose memory changes in a whole run: what launch 0 wrote, before or after anyone has looked at it."""

    def __init__(self, program: CompiledProgram, groups: Groups, seen: bool) -> None:
        self._program, self._groups, self._seen = program, groups, seen

    def run(self, entry: str, inputs: Mapping[str, Array], sizes: Mapping[str, int], look: Look) -> dict[str, Array]:
        def disturb(launch: int, phase: int, memory: Memory) -> None:
            if self._seen:
                look(launch, phase, memory)
            if (launch, phase) == (0, 1):
                memory.at(self._groups.records[0].writes[0])[..., -1:] = 1
            if not self._seen:
                look(launch, phase, memory)

        return self._program.run(entry, inputs, sizes, disturb)


def test_build_when_units_are_on_or_off_by_a_rounding_then_is_accepted_launch_by_launch(
    tmp_path: Path, kernel_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = tessera_build.build(kinked(), ["native"], tmp_path / "m", cache=kernel_cache)
    (proof,) = result.verification
    assert _JUMPED < proof.max_error == proof.tolerance["end_to_end"]
    assert proof.max_group_error == 1  # of a unit, which a launch may have summed in another order
    monkeypatch.setattr(check, "compare_in_place", lambda *_: None)  # as for values that take too much memory
    with pytest.raises(VerificationError, match="y"):
        tessera_build.build(kinked(), ["native"], tmp_path / "n", cache=kernel_cache)


@pytest.mark.parametrize("seen", [True, False])
def test_build_when_something_else_changes_memory_in_a_whole_run_then_is_refused(
    tmp_path: Path, kernel_cache: Path, monkeypatch: pytest.MonkeyPatch, seen: bool
) -> None:
    found: Compare = compare_in_place

    def disturbed(program: CompiledProgram, groups: Groups, case: Case, policy: Tolerance) -> list[GroupResult] | None:
        results = found(Disturbed(program, groups, seen), groups, case, policy)  # type: ignore[arg-type]
        assert results is not None
        (wrong,) = [result for result in results if not result.accepted]
        assert (wrong.launch, np.isinf(wrong.error)) == ((1, True) if seen else (0, False))
        return results

    monkeypatch.setattr(check, "compare_in_place", disturbed)
    with pytest.raises(VerificationError, match="y"):
        tessera_build.build(kinked(), ["native"], tmp_path / "m", cache=kernel_cache)


def test_elements_when_roundings_reach_them_then_are_right_and_no_others() -> None:
    low, high = np.array([0.0, 1.0, 0.0]), np.array([0.0, 1.0, 1.0])  # the last one is at the edge
    for found, right in (([0, 1, 0], True), ([0, 1, 1], True), ([0, 1, np.nan], False), ([1, 1, 0], False)):
        assert all_within({3: np.array(found, np.float32)}, {3: (low, high)}, 1e-5) is right
    assert not all_within({4: np.zeros(3, np.float32)}, {3: (low, high)}, 1e-5)


def test_limit_when_answers_do_not_jump_then_is_that_of_roundings() -> None:
    jumping, smooth = read_onnx(kinked()), read_onnx(kinked(compared=False))
    inputs = make_inputs(smooth, "main", {}, FIRST_SEED)
    assert jumps(jumping, "main")
    assert not jumps(smooth, "main")
    assert not jumps(read_onnx(mlp()), "main")
    assert limits_of_moves(smooth, "main", inputs)["y"] < 1e-4 < _JUMPED
    assert _JUMPED < limits_of_moves(jumping, "main", inputs)["y"] <= 0.5


def test_limit_when_one_output_is_zero_but_for_rounding_then_may_be_anything_that_small_and_the_other_not() -> None:
    b = GraphBuilder()
    x = b.input("x", tensor(F32, 64))
    b.output(
        "nothing", b.op("sub", b.op("add", b.op("mul", x, b.scalar(3.0, F32)), x), b.op("mul", x, b.scalar(4.0, F32)))
    )
    both = b.op("mul", x, x)
    b.output("y", both)
    module = b.finish()
    inputs = make_inputs(module, "main", {}, FIRST_SEED)
    limits = limits_of_moves(module, "main", inputs)
    assert limits["nothing"] > 1 > LARGEST > 1e-4 > limits["y"]
    assert limits_of_moves(without(module, "y"), "main", inputs) == {}


def without(module: Module, name: str) -> Module:
    """The module with all outputs but one."""
    function, names = module.entries["main"], module.output_names["main"]
    kept = [index for index, each in enumerate(names) if each != name]
    return replace(
        module,
        entries={"main": replace(function, results=tuple(function.results[i] for i in kept))},
        output_names={"main": tuple(names[i] for i in kept)},
    )


def test_reference_when_values_are_corrected_then_goes_on_with_what_it_is_told() -> None:
    b = GraphBuilder()
    double = b.op("add", b.input("x", tensor(F32, 2)), b.scalar(1.0, F32))
    b.output("y", b.op("neg", double))
    module, met = b.finish(), dict[int, Array]()

    def correct(value: int, array: Array) -> Array:
        met[value] = array
        return np.full_like(array, 7) if value == double else array

    results = module.entries["main"].results
    inputs = {"x": np.zeros(2, np.float32)}
    reference.run_along(module, "main", inputs, results, reference.Course(correct))
    assert met[double].tolist() == [1, 1]
    assert met[results[0]].tolist() == [-7, -7]
    met.clear()
    known = {double: np.full(2, 5, np.float32)}
    reference.run_along(module, "main", inputs, results, reference.Course(correct, known))
    assert {value: array.tolist() for value, array in met.items()} == {results[0]: [-5, -5]}
