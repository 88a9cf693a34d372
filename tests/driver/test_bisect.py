"""`tessera verify --bisect`: the first wrong group on a user's input, cut out of its model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import tessera_build
from tessera_build.config import ConfigError
from tessera_build.driver.bisect import BisectRequest, bisect
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.ir.schedule.nodes import Compute
from tessera_build.lower.graph_to_schedule import definitions
from tests.driver.models import digits, embedding, mlp

X = {"image": np.random.default_rng(3).random((5, 1, 8, 8), np.float32)}


def _broken_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = definitions._TABLE["reduce_window"]

    def broken(node: GraphNode, context: definitions.Context) -> tuple[Compute, ...]:
        return tuple(replace(d, combine="min") if d.combine == "max" else d for d in sound(node, context))

    monkeypatch.setitem(definitions._TABLE, "reduce_window", broken)


def _inputs() -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(digits()))
    (only,) = session.get_inputs()
    return {only.name: X["image"].reshape([5, *only.shape[1:]])}


@pytest.mark.numerics
def test_bisect_when_one_group_is_wrong_then_names_it_and_cuts_it_out(
    tmp_path: Path, kernel_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _broken_pools(monkeypatch)
    path, out = tmp_path / "d.tessera", tmp_path / "out"
    tessera_build.build(digits(), ["x86-64-v3"], path, cache=kernel_cache, verify=False)
    found = bisect(BisectRequest(path, digits(), _inputs(), out, {}))
    assert found.first is not None
    assert max(found.outputs.values()) > 1e-3
    assert not any(r for r in found.groups if r.launch < found.first.launch and not r.accepted)
    assert {p.name for p in found.written} >= {"group.npz", "group.mlir", "kernel.mlir", "model.onnx", "inputs.npz"}
    assert "reduce_window" in (out / "group.mlir").read_text()
    # The small model shows the error by itself: onnxruntime and Tessera disagree on it.
    part, feeds = onnx.load(out / "model.onnx"), dict(np.load(out / "inputs.npz"))
    wanted = onnxruntime.InferenceSession(str(out / "model.onnx")).run(None, feeds)
    assert len(part.graph.node) < len(onnx.load(digits()).graph.node)
    tessera_build.build(out / "model.onnx", ["x86-64-v3"], tmp_path / "p.tessera", cache=kernel_cache, verify=False)
    again = bisect(BisectRequest(tmp_path / "p.tessera", out / "model.onnx", feeds, tmp_path / "out2", {}))
    assert again.first is not None
    np.testing.assert_array_equal(next(iter(np.load(out / "expected.npz").values())), wanted[0])


@pytest.mark.numerics
def test_bisect_when_nothing_is_wrong_then_says_so_and_writes_nothing(tmp_path: Path, kernel_cache: Path) -> None:
    path = tmp_path / "m.tessera"
    onnx.save(mlp(), tmp_path / "m.onnx")
    tessera_build.build(tmp_path / "m.onnx", ["x86-64-v3"], path, cache=kernel_cache)
    x = np.random.default_rng(1).standard_normal((7, 20)).astype(np.float32)
    found = bisect(BisectRequest(path, tmp_path / "m.onnx", {"x": x}, tmp_path / "out", {}))
    assert (found.first, found.written, (tmp_path / "out").exists()) == (None, (), False)
    assert {r.node for r in found.groups} >= {"first", "second"}


@pytest.mark.errors
def test_bisect_when_the_model_is_another_then_is_refused(tmp_path: Path, kernel_cache: Path) -> None:
    path = tmp_path / "m.tessera"
    tessera_build.build(mlp(), ["x86-64-v3"], path, cache=kernel_cache, verify=False)
    with pytest.raises(ConfigError, match="another model"):
        bisect(BisectRequest(path, embedding(), {}, tmp_path / "out", {}))
