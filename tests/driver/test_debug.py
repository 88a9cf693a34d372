"""Debug builds: the node that gives NaN, an infinity, or writes past the end of its result is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import tessera_build
import tessera_runtime
from bundle_format.errors import TesseraError
from tessera_build.lower.program.places import Placer, Places
from tessera_runtime.errors import RunError
from tests.driver.models import model_of


def _logs() -> onnx.ModelProto:
    """y = reduced sum of exp(log(x) * 2): NaN for a negative x, an infinity inside for 0."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="product"),
        helper.make_node("Log", ["a"], ["b"], name="logarithm"),
        helper.make_node("Transpose", ["b"], ["c"], name="turn", perm=[1, 0]),
        helper.make_node("MatMul", ["c", "b"], ["d"], name="square"),
        helper.make_node("Relu", ["d"], ["y"], name="gate"),
    ]
    return model_of(nodes, {"w": np.eye(24, dtype=np.float32)}, ["n", 24], [24, 24])


def _run(path: Path, x: np.ndarray) -> np.ndarray:
    with tessera_runtime.load(path, threads=2) as model:
        return np.array(model.run(x=x)["y"])


@pytest.mark.numerics
@pytest.mark.parametrize("size", [1, 5, 40])
def test_debug_build_when_all_is_well_then_gives_the_same_bits(tmp_path: Path, kernel_cache: Path, size: int) -> None:
    tessera_build.build(_logs(), ["x86-64-v3"], tmp_path / "plain", cache=kernel_cache, verify=False)
    tessera_build.build(_logs(), ["x86-64-v3"], tmp_path / "debug", cache=kernel_cache, debug="nan,inf,bounds")
    x = np.random.default_rng(size).random((size, 24), np.float32) + 0.1
    np.testing.assert_array_equal(_run(tmp_path / "plain", x), _run(tmp_path / "debug", x))


@pytest.mark.errors
@pytest.mark.parametrize(("bad", "checks", "code"), [(-1.0, "nan", "NOT_FINITE"), (0.0, "inf", "NOT_FINITE")])
def test_debug_build_when_a_node_gives_no_number_then_names_it(
    tmp_path: Path, kernel_cache: Path, bad: float, checks: str, code: str
) -> None:
    tessera_build.build(_logs(), ["x86-64-v3"], tmp_path / "m", cache=kernel_cache, verify=False, debug=checks)
    x = np.ones((7, 24), np.float32)
    x[6, 23] = bad
    with pytest.raises(RunError) as caught:
        _run(tmp_path / "m", x)
    assert (caught.value.code, caught.value.where) in {(code, "product"), (code, "logarithm")}


@pytest.mark.errors
def test_debug_build_when_only_nan_is_looked_for_then_infinities_pass(tmp_path: Path, kernel_cache: Path) -> None:
    tessera_build.build(_logs(), ["x86-64-v3"], tmp_path / "m", cache=kernel_cache, verify=False, debug="nan")
    x = np.full((7, 24), 1.0, np.float32)
    x[0, 0] = np.inf
    assert np.isfinite(_run(tmp_path / "m", np.ones((7, 24), np.float32))).sum() >= 0
    with tessera_runtime.load(tmp_path / "m") as model, pytest.raises(RunError, match="NaN"):
        model.run(x=x)  # infinity times the zeros of the identity is NaN


@pytest.mark.errors
def test_debug_build_when_a_node_writes_past_its_value_then_names_it(
    tmp_path: Path, kernel_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = Placer.run

    def short(self: Placer) -> Places:
        places = sound(self)
        # 64 bytes less: what is written past the end is the zone and nothing that belongs to this process otherwise.
        places.sizes.update({root: size - 16 for root, size in places.sizes.items() if isinstance(size, int)})
        return places

    monkeypatch.setattr(Placer, "run", short)
    model = _logs()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 64
    tessera_build.build(model, ["x86-64-v3"], tmp_path / "m", cache=kernel_cache, verify=False, debug="bounds")
    with pytest.raises(RunError) as caught:
        _run(tmp_path / "m", np.ones((64, 24), np.float32))
    assert caught.value.code == "OUT_OF_BOUNDS"
    assert caught.value.where in {"product", "logarithm", "turn"}


@pytest.mark.errors
def test_debug_build_when_a_check_is_unknown_then_lists_them(tmp_path: Path) -> None:
    with pytest.raises(TesseraError, match="no check 'nans'") as caught:
        tessera_build.build(_logs(), ["x86-64-v3"], tmp_path / "m", debug="nans")
    assert "bounds" in (caught.value.expected or "")
