"""The comparison with peers: its statistics, and one whole comparison of a small network."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.peers.case import Case
from benchmarks.peers.goals import GOALS, SETS, Goal, share_of_memory, standing
from benchmarks.peers.limits import copy
from benchmarks.peers.rounds import best_peer, ratio
from benchmarks.peers.traffic import least_bytes
from tests.driver.models import mlp

ROOT = Path(__file__).parents[2]


def test_ratio_when_rounds_are_noisy_then_the_interval_holds_the_median_and_is_repeatable() -> None:
    rng = np.random.default_rng(1)
    weather = rng.uniform(1, 5, 60)  # both runners of a round meet the same neighbours
    own, peer = weather * rng.normal(1, 0.01, 60), 1.5 * weather * rng.normal(1, 0.01, 60)
    found = ratio(list(peer), list(own))
    assert found == ratio(list(peer), list(own))
    assert found.low < found.median < found.high
    assert found.median == pytest.approx(1.5, abs=0.02)
    assert found.high - found.low < 0.02


def test_best_peer_when_tessera_is_fastest_then_is_the_fastest_other() -> None:
    assert best_peer({"tessera": [1.0], "a": [3.0, 3.0], "b": [2.0, 9.0, 2.0]}) == "b"
    assert best_peer({"tessera": [1.0]}) is None


def test_standing_when_only_some_peers_count_then_the_fastest_of_these_is_compared() -> None:
    samples = {"tessera": [1.0] * 3, "onnxruntime": [2.0] * 3, "openvino": [3.0] * 3, "inductor": [1.1] * 3}
    found = standing(Goal("peer", 1.9, ("onnxruntime", "openvino")), samples, [])
    assert found is not None
    assert (found.against, found.found.median, found.met) == ("onnxruntime", 2.0, True)
    missed = standing(Goal("peer", 1.2), samples, [])
    assert missed is not None
    assert (missed.against, missed.met) == ("inductor", False)


def test_standing_when_the_goal_is_a_limit_then_the_larger_one_of_each_round_counts_and_less_is_better() -> None:
    samples = {"tessera": [3.0, 3.0, 3.0], "copy": [1.0, 2.0, 1.0], "exponentials": [2.0, 1.0, 2.0]}
    found = standing(Goal("limit", 1.25), samples, [])
    assert found is not None
    assert (found.found.median, found.met) == (1.5, False)
    assert standing(Goal("limit", 1.25), {"tessera": [1.0], "copy": [1.0]}, []) is None


def test_standing_when_the_goal_is_the_peak_then_is_the_share_of_what_the_same_rounds_measured() -> None:
    found = standing(Goal("peak", 0.82, operations=2_000), {"tessera": [2e-6, 2e-6]}, [1.0 * 1.25, 1.0 * 1.25])
    assert found is not None
    assert found.found.median == pytest.approx(0.8)
    assert not found.met


def test_share_of_memory_when_half_of_what_it_gives_is_read_then_is_half() -> None:
    found = share_of_memory(Goal("memory", 0.9), [1e-3, 2e-3], 10_000_000, [20.0, 10.0])
    assert (found.found.median, found.met) == (pytest.approx(0.5), False)


def test_least_bytes_when_rows_of_a_table_are_taken_then_it_counts_for_nothing(tmp_path: Path) -> None:
    table, weight = np.ones((100, 8), np.float32), np.ones((8, 16), np.float32)
    nodes = [helper.make_node("Gather", ["table", "ids"], ["x"]), helper.make_node("MatMul", ["x", "w"], ["y"])]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [3])
    weights = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(weight, "w")]
    graph = helper.make_graph(nodes, "g", [ids], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], weights)
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    feeds = {"ids": np.zeros(3, np.int64), "unused": np.zeros(1000)}
    assert least_bytes(tmp_path / "m.onnx", feeds) == weight.nbytes + 3 * 8


def test_recipe_when_named_with_a_batch_then_its_inputs_have_it() -> None:
    recipes = pytest.importorskip("benchmarks.peers.export", reason="recipes need PyTorch")
    assert recipes.recipe("mlp").inputs["x"].shape == (1, 784)
    assert recipes.recipe("mlp_batch4").inputs["x"].shape == (4, 784)


def test_sets_when_named_then_every_recipe_says_whether_it_has_a_goal() -> None:
    assert set(SETS["all"]) <= set(GOALS)
    recipes = pytest.importorskip("benchmarks.peers.export", reason="recipes need PyTorch")
    for name in (*SETS["kernels"], *SETS["networks"]):
        assert recipes.recipe(name).inputs


def test_copy_when_run_then_gives_the_input_at_another_place(tmp_path: Path) -> None:
    value = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.savez(tmp_path / "rows.npz", x=value)
    case = Case("rows", tmp_path, 1)
    (taken,) = copy(case, tmp_path / "rows.npz")()
    assert taken.ctypes.data % 64 == 0
    np.testing.assert_array_equal(taken, value)


def test_peers_when_run_on_a_file_then_writes_figures_of_every_runner_and_one_page(tmp_path: Path) -> None:
    (tmp_path / "small.onnx").write_bytes(mlp(8).SerializeToString(deterministic=True))
    np.savez(tmp_path / "small.npz", x=np.random.default_rng(0).standard_normal((8, 20)).astype(np.float32))
    words = ["--models", str(tmp_path / "small.onnx"), "--runners", "tessera,onnxruntime", "--seconds", "0.1"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.peers", *words, "--out", str(tmp_path / "out")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"small: [\d.]+ \([\d.]+ to [\d.]+\) x onnxruntime", done.stdout)
    report = json.loads((tmp_path / "out" / "peers.json").read_text())
    (case,) = report["cases"]
    assert case["rounds"] >= 15
    for runner in case["runners"]:
        assert runner["error"] == ""
        assert runner["difference"] < 1e-5
        assert min(runner["median"], runner["build_seconds"], runner["peak_mb"], runner["first_seconds"]) > 0
    assert math.isclose(sum(row["share"] for row in case["kernels"]), 1)
    page = (tmp_path / "out" / "peers.html").read_text()
    assert page.count("<svg") == 3
    assert "small · onnxruntime" in page
