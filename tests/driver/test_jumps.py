"""Models whose answers jump with a rounding: right builds are accepted launch by launch, and wrong ones are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import tessera_build
from tessera_build.config import Tolerance
from tessera_build.frontends.onnx import read_onnx
from tessera_build.ir.core.types import F32, I64, tensor
from tessera_build.ir.graph import reference
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.verify import check, exact
from tessera_build.verify.check import FIRST_SEED
from tessera_build.verify.errors import VerificationError
from tessera_build.verify.exact import limits_of_moves
from tessera_build.verify.execute import CompiledProgram, Look, Memory
from tessera_build.verify.groups import Case, GroupResult, Groups
from tessera_build.verify.in_place import compare_in_place
from tessera_build.verify.inputs import make_inputs
from tessera_build.verify.jumps import Moved, Suspect, jittered, judged_by_reach
from tests.driver.models import model_of

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


def test_build_when_a_convolution_reads_what_jumps_then_is_accepted(tmp_path: Path, kernel_cache: Path) -> None:
    """A transposed one of one tap in strides of two, whose result is interleaved with zeros."""
    model = kinked()
    rng = np.random.default_rng(6)
    taps = rng.standard_normal((4, 4, 1, 1)).astype(np.float32)
    taps[0] *= 0.2  # the channel with the units at the edge
    model.graph.initializer.append(numpy_helper.from_array(taps, "taps"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 4, 4, 4]), "shape"))
    model.graph.node[-1].CopyFrom(helper.make_node("Reshape", ["units", "shape"], ["image"]))
    model.graph.node.append(helper.make_node("ConvTranspose", ["image", "taps"], ["y"], strides=[2, 2]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 4, 7, 7]))
    result = tessera_build.build(model, ["native"], tmp_path / "m", cache=kernel_cache)
    assert result.verification[0].max_error > _JUMPED


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


def units() -> tuple[Module, dict[str, Array], int]:
    """Whether sums of two numbers are positive, as floats: the first is zero but for rounding, the others are not."""
    b = GraphBuilder()
    total = b.op("add", b.input("x", tensor(F32, 3)), b.constant(np.array([-0.3, 1, -2], np.float32)))
    b.output("y", b.op("cast", b.op("gt", total, b.scalar(0.0, F32)), dtype=F32))
    module = b.finish()
    return module, {"x": np.array([0.3, 1, 1], np.float32)}, module.entries["main"].results[0]


@pytest.mark.parametrize(
    ("found", "explained"),
    [
        ([0, 1, 0], True),
        ([1, 1, 0], True),  # at the edge
        ([0.5, 1, 0], False),  # between what it can be
        ([np.nan, 1, 0], False),
        ([1, 0, 0], False),
        ([0, 1, 1], False),
    ],
)
def test_elements_when_roundings_reach_them_then_are_right_and_no_others(found: list[float], explained: bool) -> None:
    module, inputs, result = units()
    suspect = Suspect(module, "main", inputs, {}, {result: np.array(found, np.float32)}, 1e-5)
    assert judged_by_reach(suspect)[0] is explained


@pytest.mark.parametrize("error", [0, 1])
def test_integers_when_no_rounding_moves_them_then_are_right_or_wrong(error: int) -> None:
    b = GraphBuilder()
    b.output("y", b.op("add", b.input("x", tensor(I64, 2)), b.scalar(1, I64)))
    module, x = b.finish(), np.array([1 << 62, 5])
    found = {module.entries["main"].results[0]: x + 1 + error}
    assert judged_by_reach(Suspect(module, "main", {"x": x}, {}, found, 1e-3)) == (not error, 0.0)


def test_launch_when_an_element_at_the_edge_hides_wrong_ones_then_roundings_are_not_blamed() -> None:
    module, inputs, result = units()
    inverted = {result: np.array([1, 0, 1], np.float32)}
    assert judged_by_reach(Suspect(module, "main", inputs, {}, inverted, 1e-5)) == (False, 0.0)
    loose = {result: np.array([0.4, 1, 0], np.float32)}
    assert judged_by_reach(Suspect(module, "main", inputs, {}, loose, 1e-5)) == (False, 1.0)


@pytest.mark.parametrize(("off", "explained"), [(6e-8, True), (-6e-8, True), (1e-4, False)])
def test_rest_when_terms_cancel_then_may_be_as_far_off_as_roundings_move_its_neighbours(
    off: float, explained: bool
) -> None:
    b = GraphBuilder()
    b.output("y", b.op("reduce", b.input("x", tensor(F32, 300, 128)), kind="sum", axes=(1,), keepdims=False))
    module, x = b.finish(), np.random.default_rng(1).standard_normal((300, 128))
    x = (0.1 * (x - x.mean(axis=1, keepdims=True))).astype(np.float32)
    (right,) = reference.run(module, "main", {"x": x}).values()
    found = {module.entries["main"].results[0]: np.add(right, np.float32(off))}
    assert judged_by_reach(Suspect(module, "main", {"x": x}, {}, found, 1e-5))[0] is explained


def test_floats_when_moved_then_infinities_and_the_largest_ones_stay() -> None:
    largest = np.finfo(np.float32).max
    array = np.array([-np.inf, np.nan, largest, -largest, 1.0, 0.0], np.float32)
    for of_largest in (False, True):
        for seed in range(20):
            near = jittered(array, np.random.default_rng(seed), of_largest=of_largest)
            np.testing.assert_array_equal(np.isfinite(near), np.isfinite(array))
            assert near[0] == -np.inf
            assert of_largest or (near[5] == 0 and abs(near[4] - 1) < 1e-6)


def test_arrays_when_looked_for_then_are_not_moved() -> None:
    """A launch's run asks of every value of the model whether it is known."""
    array = np.ones(3, np.float32)
    array.setflags(write=False)
    near = Moved({"a": array}, np.random.default_rng(1))
    before = np.random.default_rng(1).bit_generator.state
    assert "a" in near
    assert "b" not in near
    assert list(near) == ["a"]
    assert near._generator.bit_generator.state == before  # pyright: ignore[reportPrivateUsage]


def test_limit_when_answers_do_not_jump_then_is_that_of_roundings() -> None:
    jumping, smooth = read_onnx(kinked()), read_onnx(kinked(compared=False))
    inputs = make_inputs(smooth, "main", {}, FIRST_SEED)
    (y,), (z,) = (reference.run(module, "main", inputs).values() for module in (jumping, smooth))
    assert limits_of_moves(smooth, "main", inputs)["y"] < 1e-4 * np.abs(z).max()
    share = limits_of_moves(jumping, "main", inputs)["y"] / np.abs(y).max()
    assert _JUMPED < share < 0.51


def cancelled(b: GraphBuilder, x: int) -> int:
    """3x + x - 4x."""
    thrice, fourfold = (b.op("mul", x, b.scalar(factor, F32)) for factor in (3.0, 4.0))
    return b.op("sub", b.op("add", thrice, x), fourfold)


def test_limit_when_an_output_is_zero_but_for_rounding_then_may_be_off_by_roundings_and_the_other_not() -> None:
    b = GraphBuilder()
    x = b.input("x", tensor(F32, 64))
    b.output("nothing", cancelled(b, x))
    b.output("y", b.op("mul", x, x))
    module = b.finish()
    inputs = make_inputs(module, "main", {}, FIRST_SEED)
    limits = limits_of_moves(module, "main", inputs)
    assert 0 < limits["nothing"] < 1e-4
    assert 0 < limits["y"] < 1e-4
    assert limits_of_moves(without(module, "y"), "main", inputs) == {}


def test_limit_when_a_comparison_never_turns_then_excuses_no_more_than_without_it() -> None:
    b = GraphBuilder()
    rest = cancelled(b, b.input("x", tensor(F32, 64)))
    b.output("y", b.op("select", b.op("gt", rest, b.scalar(-9.0, F32)), rest, b.scalar(1.0, F32)))
    module = b.finish()
    assert limits_of_moves(module, "main", make_inputs(module, "main", {}, FIRST_SEED)) == {}


def test_limit_when_a_moved_loop_has_no_end_then_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts down to exactly zero, which a moved number never meets."""
    value, boolean, single = helper.make_tensor_value_info, onnx.TensorProto.BOOL, onnx.TensorProto.FLOAT
    body = helper.make_graph(
        [
            helper.make_node("Sub", ["state", "one"], ["next"]),
            helper.make_node("Equal", ["next", "zero"], ["ended"]),
            helper.make_node("Not", ["ended"], ["again"]),
        ],
        "body",
        [
            value("turn", onnx.TensorProto.INT64, []),
            value("on", boolean, []),
            value("state", single, []),
        ],
        [value("again", boolean, []), value("next", single, [])],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Loop", ["", "true", "most"], ["y"], body=body),
    ]
    constants = {"one": np.ones((), np.float32), "zero": np.zeros((), np.float32), "true": np.array(True)}
    module, inputs = read_onnx(model_of(nodes, constants, [2], [])), {"x": np.array([3, 5], np.float32)}
    assert reference.run(module, "main", inputs)["y"] == 0
    monkeypatch.setattr(exact, "MOST_STEPS", 1000)
    assert limits_of_moves(module, "main", inputs) == {}


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
