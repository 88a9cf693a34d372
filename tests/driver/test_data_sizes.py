"""Bundles of models whose shapes come from data: proved, run from many threads, and nothing is left behind."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import tessera_build
import tessera_runtime
from tessera_runtime import RunError
from tessera_runtime.arrays import Array
from tessera_runtime.cpu import memory
from tessera_runtime.serve.batching import leading_dim
from tests.frontends_onnx.oracle import make_model

pytestmark = pytest.mark.bundle

X = np.arange(28, dtype=np.float32).reshape(4, 7)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = exp of rows s..e of x, tiled by r and summed along rows into z; two intermediate values have no bound."""
    nodes = [
        helper.make_node("Slice", ["x", "s", "e"], ["part"], name="part"),
        helper.make_node("Tile", ["part", "r"], ["wide"], name="wide"),
        helper.make_node("Exp", ["wide"], ["grown"], name="grown"),
        helper.make_node("Softmax", ["grown"], ["y"], name="y", axis=1),
        helper.make_node("ReduceMax", ["grown"], ["z"], name="z", axes=[1], keepdims=0),
    ]
    inputs = {"x": (np.float32, ("A", 7)), **{name: (np.int64, (n,)) for name, n in (("s", 1), ("e", 1), ("r", 2))}}
    model = make_model(nodes, inputs, ["y", "z"])
    path = tmp_path_factory.mktemp("sizes") / "sizes.tessera"
    tessera_build.build(model, None, path, workers=1)
    return path


def feeds(start: int, end: int, rows: int, columns: int) -> dict[str, Array]:
    return {
        "x": X / 28,
        **{k: np.array(v, np.int64) for k, v in (("s", [start]), ("e", [end]), ("r", [rows, columns]))},
    }


def expected(start: int, end: int, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    grown = np.exp(np.tile(X[start:end] / 28, (rows, columns)).astype(np.float64))
    powers = np.exp(grown)
    return powers / powers.sum(1, keepdims=True), grown.max(1, initial=-np.inf)


def assert_near(found: Array, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found.astype(np.float64), wanted, rtol=1e-5)


CASES = [(0, 4, 1, 1), (1, 3, 2, 3), (3, 4, 5, 1), (2, 2, 3, 3), (0, 4, 0, 2), (-3, -1, 2, 2)]


@pytest.mark.parametrize("case", CASES)
def test_bundle_when_shapes_are_data_then_gives_exactly_shaped_arrays(
    bundle: Path, case: tuple[int, int, int, int]
) -> None:
    with tessera_runtime.load(bundle, threads=2) as model:
        found = model.run(feeds(*case))
    for array, wanted in zip((found["y"], found["z"]), expected(*case), strict=True):
        assert array.shape == wanted.shape
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert_near(array, wanted)


def test_signature_when_shapes_are_data_then_names_the_sizes(bundle: Path) -> None:
    with tessera_runtime.load(bundle) as model:
        assert [spec.name for spec in model.outputs] == ["y", "z"]
        assert all("size" in str(spec.shape[0]) for spec in model.outputs)


def test_outputs_when_given_then_are_filled_if_they_fit_and_refused_if_not(bundle: Path) -> None:
    with tessera_runtime.load(bundle, threads=1) as model:
        y = np.zeros((4, 21), np.float32)
        found = model.run(feeds(1, 3, 2, 3), out={"y": y})
        assert found["y"] is y
        assert_near(y, expected(1, 3, 2, 3)[0])
        with pytest.raises(RunError, match="does not fit"):
            model.run(feeds(0, 4, 2, 3), out={"y": y})
        with pytest.raises(RunError, match="does not fit"):
            model.run(feeds(0, 4, 2, 3), out={"y": y.astype(np.float64)})
        given = feeds(0, 4, 1, 1)
        with pytest.raises(RunError, match="shares memory"):
            model.run(given, out={"y": given["x"]})


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How much the C library's heap gave and took back through the runtime."""
    counts = {"taken": 0, "given": 0}
    take, give, lock = memory._aligned_alloc, memory._free, threading.Lock()  # type: ignore[attr-defined]

    def counting_take(*arguments: int) -> int:
        pointer = take(*arguments)
        with lock:
            counts["taken"] += bool(pointer)
        return pointer

    def counting_give(pointer: int) -> None:
        give(pointer)
        with lock:
            counts["given"] += 1

    monkeypatch.setattr(memory, "_aligned_alloc", counting_take)
    monkeypatch.setattr(memory, "_free", counting_give)
    return counts


def test_memory_when_runs_end_well_or_badly_then_all_of_it_goes(bundle: Path, counted: dict[str, int]) -> None:
    with tessera_runtime.load(bundle, threads=1) as model:
        kept = model.run(feeds(0, 4, 2, 2))["y"]
        first = kept[:1]
        wanted = expected(0, 4, 2, 2)[0]
        for case in CASES * 3:
            model.run(feeds(*case))
        for rows in (-1, 1 << 50):
            with pytest.raises(RunError):
                model.run(feeds(0, 4, 2, rows))
        with pytest.raises(RunError, match="not enough memory"):
            model.run(feeds(0, 4, 1 << 21, 1 << 21))
        gc.collect()
        assert_near(kept, wanted)
        assert counted["taken"] - counted["given"] == 1
        del kept
        assert counted["taken"] - counted["given"] == 1  # a view still looks at it
    assert_near(first, wanted[:1])
    del first
    assert counted["taken"] == counted["given"] > len(CASES)


def test_run_when_cancelled_then_gives_its_memory_back(bundle: Path, counted: dict[str, int]) -> None:
    handle = tessera_runtime.CancelHandle()
    handle.cancel()
    with tessera_runtime.load(bundle, threads=1) as model:
        with pytest.raises(tessera_runtime.CancelledError):
            model.run(feeds(0, 4, 2, 2), cancel=handle)
        assert counted["taken"] == counted["given"]
        assert model.run(feeds(0, 4, 2, 2))["y"].shape == (8, 14)


def test_run_when_a_size_is_negative_then_names_the_node(bundle: Path) -> None:
    with tessera_runtime.load(bundle) as model, pytest.raises(RunError) as caught:
        model.run(feeds(0, 4, 2, -1))
    assert (caught.value.code, caught.value.where, caught.value.found) == ("SIZE_BEYOND_BOUND", "wide", "-1")


def test_run_when_called_from_eight_threads_then_every_answer_is_right(bundle: Path, counted: dict[str, int]) -> None:
    failures: list[BaseException] = []
    wanted = {case: expected(*case) for case in CASES}

    def serve(seed: int) -> None:
        try:
            for turn in range(60):
                case = CASES[(seed + turn) % len(CASES)]
                found = model.run(feeds(*case))
                for array, answer in zip((found["y"], found["z"]), wanted[case], strict=True):
                    assert_near(array, answer)
        except BaseException as error:
            failures.append(error)

    with tessera_runtime.load(bundle, threads=2) as model:
        workers = [threading.Thread(target=serve, args=(seed,)) for seed in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert not failures
    gc.collect()
    assert counted["taken"] == counted["given"] >= 8 * 60 * 2


def test_requests_when_a_shape_depends_on_all_rows_then_are_not_combined(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMax", ["k"], ["most"], axes=[0], keepdims=1),
        helper.make_node("Slice", ["x", "zero", "most", "one"], ["y"]),
    ]
    inputs = {"x": (np.float32, ("A", 7)), "k": (np.int64, ("A",))}
    model = make_model(nodes, inputs, ["y"], {"zero": np.array([0]), "one": np.array([1])})
    tessera_build.build(model, None, tmp_path / "rows.tessera", workers=1, verify=False)
    with tessera_runtime.load(tmp_path / "rows.tessera") as loaded:
        assert leading_dim(loaded.entries["main"]) is None
        assert loaded.run(x=X, k=np.array([1, 3, 2, 0]))["y"].shape == (4, 3)
