"""pow against its bound and against IEEE 754's list of special cases, and its compiled code against numpy's run.

Takes bases and exponents over the whole range; gives errors in ULP. Invariant: results cover the denormal ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import tessera_runtime
from tessera_build.driver.build import build
from tessera_build.ir.core.math.expand import EXPANSIONS, expand
from tessera_build.ir.core.math.numpy_emitter import NumpyEmitter
from tessera_build.ir.core.types import F32
from tests.backend_llvm_emit.tools import KernelBuilder, run_kernel
from tests.frontends_onnx.oracle import make_model
from tests.math.reference import LIMITS, SPECIALS, Single, errors
from tests.math.test_expansions import KernelEmitter

pytestmark = pytest.mark.numerics


def power(x: Single, y: Single, fused: bool = True) -> np.ndarray:
    emitter = NumpyEmitter(fused)
    return emitter.values[expand("pow", emitter, emitter.add(x), emitter.add(y))]


def exact(x: Single, y: Single) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.power(x.astype(np.float64), y.astype(np.float64))


def samples(count: int, seed: int) -> tuple[Single, Single]:
    """Bases of every size and near one; exponents that bring the result anywhere between 0 and infinity."""
    random = np.random.default_rng(seed)
    parts = (random.uniform(0, 4, count), np.exp(random.uniform(-80, 80, count)), random.uniform(0.9, 1.1, count))
    x = np.concatenate(parts).astype(np.float32)
    target = random.uniform(-104, 90, x.size)
    with np.errstate(all="ignore"):
        y = (target / np.log(x.astype(np.float64))).astype(np.float32)
    y[::5] = random.uniform(-3, 3, y[::5].size)
    return x, y


def special_pairs() -> tuple[Single, Single]:
    values = [*SPECIALS, *LIMITS, 2, 3, -2, -3, 0.5, -0.5, 1e30, -1e30, 16777217, -16777215, 1 / 3, 0.75]
    table = np.array(values, np.float32)
    return np.repeat(table, table.size), np.tile(table, table.size)


@pytest.mark.parametrize("fused", [True, False])
def test_power_when_swept_then_stays_within_its_bound(fused: bool) -> None:
    x, y = samples(100_000, 1)
    bound = EXPANSIONS["pow"].ulp
    assert bound is not None
    assert np.max(errors(power(x, y, fused), exact(x, y))) <= bound


@pytest.mark.parametrize("fused", [True, False])
def test_power_when_operands_are_special_then_follows_the_standard(fused: bool) -> None:
    x, y = special_pairs()
    assert np.max(errors(power(x, y, fused), exact(x, y))) <= 1.5


def test_power_when_the_base_is_a_negative_zero_then_only_odd_exponents_keep_its_sign() -> None:
    x = np.full(4, -0.0, np.float32)
    y = np.array([3, 2, -3, -2], np.float32)
    np.testing.assert_array_equal(np.signbit(power(x, y)), [True, False, True, False])


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double is no wider than f64 here")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_power_when_compiled_without_fused_multiply_adds_then_stays_within_its_bound(
    dtype: type[np.floating], tmp_path: Path
) -> None:
    """Where results are largest, what the logarithm loses counts most."""
    random = np.random.default_rng(5)
    x = np.exp(random.uniform(-20, 20, 4096)).astype(dtype)
    y = (random.uniform(-87, 88, x.size) / np.log(x.astype(np.float64))).astype(dtype)
    node = helper.make_node("Pow", ["x", "y"], ["z"])
    model = make_model([node], dict.fromkeys(("x", "y"), (dtype, x.shape)), ["z"])
    build(model, ["x86-64-v2"], tmp_path / "m", workers=1, verify=False)
    with tessera_runtime.load(tmp_path / "m", threads=1) as loaded:
        found = loaded.run({"x": x, "y": y})["z"]
    wide = np.power(x.astype(np.longdouble), y.astype(np.longdouble))
    assert np.max(np.abs(found.astype(np.longdouble) - wide) / wide) <= 1.5 * float(np.finfo(dtype).eps)


@pytest.mark.slow
@pytest.mark.parametrize("fused", [True, False])
def test_power_when_swept_densely_then_stays_within_its_bound(fused: bool) -> None:
    for seed in range(20):
        x, y = samples(1_000_000, seed + 100)
        assert np.max(errors(power(x, y, fused), exact(x, y))) <= 1.5


def test_power_when_compiled_then_gives_the_bits_of_the_numpy_run(tmp_path: Path) -> None:
    pairs = [np.concatenate(both) for both in zip(samples(3000, 7), special_pairs(), strict=True)]
    x, y = (array[: array.size // 16 * 16] for array in pairs)
    builder = KernelBuilder([F32, F32, F32])
    left, right, target = builder.buffers

    def body(position: int) -> Sequence[int]:
        operands = (builder.load(left, position, 16), builder.load(right, position, 16))
        builder.store(target, position, expand("pow", KernelEmitter(builder), *operands))
        return []

    builder.loop(builder.number(0), builder.number(x.size), 16, [], body)
    out = np.zeros_like(x)
    assert run_kernel(builder.finish(), tmp_path, [x, y, out]) == 0
    expected = power(x, y)
    both_nan = np.isnan(out) & np.isnan(expected)
    assert np.all((out.view(np.int32) == expected.view(np.int32)) | both_nan)
