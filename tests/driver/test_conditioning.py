"""Models whose own formulas cancel: judged by what float32 can do, and still not excused for a wrong build."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tessera_build
from tessera_build.driver.verify_bundle import verify_bundle
from tessera_build.frontends.onnx import read_onnx
from tessera_build.ir.graph import reference
from tessera_build.verify.check import FIRST_SEED
from tessera_build.verify.errors import VerificationError
from tessera_build.verify.exact import LARGEST, noise_of, widened_limit
from tessera_build.verify.inputs import SEED_STEP, make_inputs
from tests.driver.models import model_of

pytestmark = pytest.mark.numerics


def variance(spread: float) -> onnx.ModelProto:
    """E[z²] - E[z]² of numbers around 1, the way a layer norm is exported from JAX."""
    weights = {"spread": np.float32(spread), "one": np.float32(1), "axis": np.array([1])}
    nodes = [
        helper.make_node("Mul", ["x", "spread"], ["near"]),
        helper.make_node("Add", ["near", "one"], ["z"]),
        helper.make_node("Mul", ["z", "z"], ["square"]),
        helper.make_node("ReduceSum", ["square", "axis"], ["squares"]),
        helper.make_node("ReduceSum", ["z", "axis"], ["total"]),
        helper.make_node("Mul", ["total", "total"], ["product"]),
        helper.make_node("Mul", ["squares", "count"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "product"], ["y"], name="variance"),
    ]
    weights["count"] = np.float32(512)
    return model_of(nodes, {n: np.asarray(a) for n, a in weights.items()}, ["n", 512], ["n", 1])


def test_build_when_float32_cannot_do_better_then_is_accepted_and_says_what_it_was_held_to(
    tmp_path: Path, kernel_cache: Path
) -> None:
    result = tessera_build.build(variance(0.02), ["x86-64-v3"], tmp_path / "m", cache=kernel_cache)
    (proof,) = result.verification
    assert proof.tolerance["end_to_end"] == pytest.approx(proof.max_error)
    assert 1e-4 < proof.max_error < LARGEST


def half_floats(offset: float) -> onnx.ModelProto:
    """Layers in f16 between inputs and outputs in f32, as onnxruntime's converter leaves them."""
    rng = np.random.default_rng(4)
    weights = {f"w{i}": (rng.standard_normal((64, 64)) / 8).astype(np.float16) for i in range(4)}
    nodes = [helper.make_node("Cast", ["x"], ["h0"], to=TensorProto.FLOAT16)]
    for i in range(4):
        nodes += [helper.make_node("MatMul", [f"h{i}", f"w{i}"], [f"m{i}"])]
        nodes += [helper.make_node("Tanh", [f"m{i}"], [f"h{i + 1}"])]
    nodes += [helper.make_node("Add", ["h4", "offset"], ["far"]), helper.make_node("Sub", ["far", "offset"], ["near"])]
    nodes += [helper.make_node("Cast", ["near"], ["y"], to=TensorProto.FLOAT)]
    return model_of(nodes, {**weights, "offset": np.asarray(np.float16(offset))}, ["n", 64], ["n", 64])


def test_build_when_a_model_of_floats_computes_in_half_floats_then_is_held_to_what_those_leave(
    tmp_path: Path, kernel_cache: Path
) -> None:
    result = tessera_build.build(half_floats(0), ["x86-64-v3"], tmp_path / "m", cache=kernel_cache)
    (proof,) = result.verification
    assert 1e-4 < proof.max_error < LARGEST
    with pytest.raises(VerificationError) as caught:
        tessera_build.build(half_floats(1e3), ["x86-64-v3"], tmp_path / "n", cache=kernel_cache)
    assert caught.value.code == "ILL_CONDITIONED"


def masked() -> onnx.ModelProto:
    """A softmax in f16 over two scores, of which a mask takes away any: of rows without either, nothing is left."""
    rows = {"scores": np.array([1, 4], np.float16), "values": np.array([[1], [3]], np.float16)}
    numbers = {"one": np.asarray(np.float16(1)), "lowest": np.asarray(np.float16(-65504))}
    nodes = [
        helper.make_node("Cast", ["x"], ["seen"], to=TensorProto.FLOAT16),
        helper.make_node("Sub", ["one", "seen"], ["unseen"]),
        helper.make_node("Mul", ["unseen", "lowest"], ["far"]),
        helper.make_node("Add", ["far", "scores"], ["total"]),
        helper.make_node("Softmax", ["total"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "values"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["y"], to=TensorProto.FLOAT),
    ]
    return model_of(nodes, {**rows, **numbers}, ["n", 2], ["n", 1], TensorProto.INT64)


def test_build_when_half_floats_leave_nothing_of_rows_that_are_masked_then_others_prove_it(
    tmp_path: Path, kernel_cache: Path
) -> None:
    onnx.save(masked(), tmp_path / "m.onnx")
    result = tessera_build.build(tmp_path / "m.onnx", ["x86-64-v3"], tmp_path / "m", cache=kernel_cache)
    (proof,) = result.verification
    assert proof.max_error < LARGEST
    assert {case.seed // SEED_STEP - FIRST_SEED // SEED_STEP for case in proof.cases} >= {1}
    (check,) = verify_bundle(tmp_path / "m", tmp_path / "m.onnx").variants
    assert check.method == "compared"


def test_build_when_nothing_of_the_answer_is_left_then_is_refused(tmp_path: Path, kernel_cache: Path) -> None:
    with pytest.raises(VerificationError) as caught:
        tessera_build.build(variance(1e-4), ["x86-64-v3"], tmp_path / "m", cache=kernel_cache)
    assert caught.value.code == "ILL_CONDITIONED"


@pytest.mark.parametrize("mean", [1e6, 1e7])
def test_build_when_attention_has_nothing_of_its_answer_left_then_blames_no_code(
    tmp_path: Path, kernel_cache: Path, mean: float
) -> None:
    """Scores that float32 rounds to a tenth and more, and a softmax over their differences."""
    keys = mean + np.random.default_rng(2).standard_normal((1, 1, 9, 4))
    values = np.random.default_rng(3).standard_normal((1, 1, 9, 4))
    weights = {"k": keys.astype(np.float32), "v": values.astype(np.float32)}
    nodes = [helper.make_node("Attention", ["x", "k", "v"], ["y"], name="a")]
    model = model_of(nodes, weights, [1, 1, 64, 4], [1, 1, 64, 4])
    model.opset_import[0].version = 23
    with pytest.raises(VerificationError) as caught:
        tessera_build.build(model, ["native"], tmp_path / "m", cache=kernel_cache)
    assert (caught.value.code, caught.value.where) == ("ILL_CONDITIONED", "y")


def test_limit_when_the_reference_is_accurate_then_is_the_policy_s() -> None:
    assert widened_limit(1e-4, 1e-7) == 1e-4
    assert widened_limit(1e-4, 1e-5) == pytest.approx(6.4e-4)
    assert widened_limit(1e-4, 1.0) == LARGEST


def test_noise_when_nothing_cancels_then_is_rounding() -> None:
    nodes = [helper.make_node("Exp", ["x"], ["e"]), helper.make_node("Sum", ["e", "e"], ["y"])]
    module = read_onnx(model_of(nodes, {}, ["n", 9], ["n", 9]))
    inputs = make_inputs(module, "main", {"n": 5}, 1)
    assert 0 < noise_of(module, "main", inputs, reference.run(module, "main", inputs))["y"] < 1e-6


def test_inputs_when_compared_with_many_numbers_then_are_of_as_many_kinds() -> None:
    nodes = [
        helper.make_node("Unsqueeze", ["x", "axis"], ["column"]),
        helper.make_node("Equal", ["column", "codes"], ["same"]),
        helper.make_node("Cast", ["same"], ["y"], to=TensorProto.FLOAT),
    ]
    codes = {"codes": np.arange(257).reshape(1, 257), "axis": np.array([1])}
    module = read_onnx(model_of(nodes, codes, ["n"], ["n", 257], TensorProto.INT64))
    x = make_inputs(module, "main", {"n": 5000}, 1)["x"]
    assert (x.min(), x.max()) == (0, 256)


def test_inputs_when_their_sum_is_an_index_then_are_ones() -> None:
    """A mask that says how many tokens a row has: its elements are no indices, however long the table is."""
    nodes = [
        helper.make_node("ReduceSum", ["x", "axis"], ["length"], keepdims=0),
        helper.make_node("Sub", ["length", "one"], ["last"]),
        helper.make_node("Gather", ["table", "last"], ["y"]),
    ]
    weights = {"table": np.ones((500, 4), np.float32), "axis": np.array([1]), "one": np.array(1)}
    module = read_onnx(model_of(nodes, weights, ["n", "m"], ["n", 4], TensorProto.INT64))
    assert np.all(make_inputs(module, "main", {"n": 3, "m": 7}, 1)["x"] == 1)


def vanishing(scale: float) -> onnx.ModelProto:
    """Three products of 512 terms, each of which makes numbers smaller by about `scale`: untrained layers do."""
    rng = np.random.default_rng(6)
    weights = {f"w{i}": (rng.standard_normal((512, 512)) * scale / 22).astype(np.float32) for i in range(3)}
    names = ["x", "m1", "m2", "y"]
    nodes = [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(3)]
    return model_of(nodes, weights, ["n", 512], ["n", 512])


@pytest.mark.parametrize("scale", [1e-13, 2e-14, 3e-15, 1e-16])
def test_build_when_numbers_are_too_small_for_their_digits_then_steps_that_floats_have_there_are_no_error(
    tmp_path: Path, kernel_cache: Path, scale: float
) -> None:
    result = tessera_build.build(vanishing(scale), ["x86-64-v3"], tmp_path / "m", cache=kernel_cache)
    assert result.verification[0].max_error <= 1e-4
