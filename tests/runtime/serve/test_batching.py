"""Requests that share a run: each gets its own rows, errors stay with their cause, unsuitable models are refused."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tessera_build
from tessera_runtime import CancelHandle, DeadlineError, RunError, load
from tessera_runtime.serve.batching import Batcher, check_rows, leading_dim
from tests.models.bundles import DIGITS, digits_images
from tests.runtime.serve.client import Array, serving, tensor


def build(folder: Path, nodes: list[onnx.NodeProto], shape: list[Any], elem: int = TensorProto.FLOAT) -> Path:
    """A bundle of a small graph from `x` to `y`."""
    value = helper.make_tensor_value_info
    weights = [helper.make_tensor("table", TensorProto.FLOAT, [4, 2], [float(i) for i in range(8)])]
    graph = helper.make_graph(nodes, "g", [value("x", elem, shape)], [value("y", TensorProto.FLOAT, None)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, folder / "m.onnx")
    out = folder / "m.tessera"
    tessera_build.build(folder / "m.onnx", ["native"], out, verify=False, workers=1)
    return out


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits") / "digits.tessera"
    return tessera_build.build(DIGITS / "digits.onnx", ["native"], path, verify=False, workers=1).path


def at_once(work: list[Any]) -> None:
    """Call all of these in threads of their own."""
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


@pytest.mark.numerics
def test_requests_when_combined_then_each_gets_the_rows_that_it_gets_alone(digits: Path) -> None:
    images = digits_images(24)
    with load(digits, threads=1) as model:
        leading = leading_dim(model.main)
        assert leading is not None
        check_rows(model.main, leading)
        alone = [model.run(image=images[first : first + 3])["probabilities"] for first in range(0, 24, 3)]
        batcher, found = Batcher(model.main, 24, 5.0, CancelHandle()), dict[int, Array]()

        def ask(index: int) -> None:
            part = images[3 * index : 3 * index + 3]
            found[index] = batcher.run({"image": part}, time.monotonic() + 30)["probabilities"]

        begin = time.monotonic()
        at_once([lambda index=index: ask(index) for index in range(8)])
    assert batcher.batches == 1
    assert time.monotonic() - begin < 5  # a full batch does not wait for the delay to end
    for index in range(8):
        assert float(np.abs(found[index].astype(np.float64) - alone[index].astype(np.float64)).max()) <= 1e-6


@pytest.mark.unit
def test_requests_when_they_are_more_than_a_batch_then_run_in_several(digits: Path) -> None:
    images = digits_images(12)
    with load(digits, threads=1) as model:
        batcher, found = Batcher(model.main, 8, 1.0, CancelHandle()), list[Array]()
        due = time.monotonic() + 30
        requests = [{"image": images[first : first + 3]} for first in range(0, 12, 3)]
        at_once([lambda feeds=feeds: found.append(batcher.run(feeds, due)["probabilities"]) for feeds in requests])
    assert batcher.batches == 2
    assert [array.shape for array in found] == [(3, 10)] * 4


@pytest.mark.unit
def test_request_when_its_deadline_passes_in_the_queue_then_ends_with_it(digits: Path) -> None:
    images = digits_images(2)
    with load(digits, threads=1) as model:
        batcher, ends = Batcher(model.main, 8, 3.0, CancelHandle()), list[str]()

        def ask(seconds: float) -> None:
            try:
                batcher.run({"image": images}, time.monotonic() + seconds)
                ends.append("answer")
            except DeadlineError:
                ends.append("late")

        leader = threading.Thread(target=ask, args=(30,))
        leader.start()
        time.sleep(0.1)
        begin = time.monotonic()
        ask(0.05)
        assert time.monotonic() - begin < 2.5
        leader.join(30)
    assert ends == ["late", "answer"]


@pytest.mark.unit
def test_request_when_it_leads_then_waits_for_others_no_longer_than_its_own_deadline(digits: Path) -> None:
    with load(digits, threads=1) as model:
        batcher, begin = Batcher(model.main, 8, 20.0, CancelHandle()), time.monotonic()
        with pytest.raises(DeadlineError):
            batcher.run({"image": digits_images(2)}, begin + 0.2)
    assert time.monotonic() - begin < 10


@pytest.mark.errors
def test_request_when_its_deadline_has_passed_then_is_not_run(digits: Path) -> None:
    with load(digits, threads=1) as model:
        batcher = Batcher(model.main, 8, 20.0, CancelHandle())
        for _ in range(100):  # a run this short would often end before anything could stop it
            with pytest.raises(DeadlineError):
                batcher.run({"image": digits_images(2)}, time.monotonic() - 1e-3)


@pytest.mark.errors
def test_request_when_it_fails_then_its_neighbours_are_answered(tmp_path: Path) -> None:
    gather = [helper.make_node("Gather", ["table", "x"], ["y"])]
    bundle = build(tmp_path, gather, ["N", 1], TensorProto.INT64)
    table = np.arange(8.0, dtype=np.float32).reshape(4, 2)
    with serving(bundle, max_batch=8, batch_delay=0.5, name="m") as running:
        answers: dict[int, Any] = {}

        def ask(row: int) -> None:
            answers[row] = running.client.infer({"inputs": [tensor("x", np.array([[row]]), "INT64")]})

        at_once([lambda row=row: ask(row) for row in (0, 1, 2, 3, 99)])
    assert {row: answer.status for row, answer in answers.items()} == {0: 200, 1: 200, 2: 200, 3: 200, 99: 400}
    for row in range(4):
        np.testing.assert_array_equal(answers[row].json()["outputs"][0]["data"], table[row])
    assert answers[99].json()["code"] == "INDEX_OUT_OF_RANGE"


@pytest.mark.errors
def test_model_when_its_rows_influence_each_other_then_is_not_batched(tmp_path: Path) -> None:
    bundle = build(tmp_path, [helper.make_node("Softmax", ["x"], ["y"], axis=0)], ["N", 4])
    with load(bundle, threads=1) as model:
        leading = leading_dim(model.main)
        assert leading is not None
        with pytest.raises(RunError, match="BATCHING_UNSOUND"):
            check_rows(model.main, leading)


@pytest.mark.unit
@pytest.mark.parametrize(("op", "shape"), [("Relu", [4, 2]), ("Relu", []), ("Relu", ["N", "N"])])
def test_model_when_it_has_no_leading_dimension_of_its_own_then_is_not_batched(
    tmp_path: Path, op: str, shape: list[Any]
) -> None:
    with load(build(tmp_path, [helper.make_node(op, ["x"], ["y"])], shape), threads=1) as model:
        assert leading_dim(model.main) is None


@pytest.mark.errors
def test_batch_when_a_request_has_more_rows_than_allowed_then_is_refused(digits: Path) -> None:
    with serving(digits, max_batch=2) as running:
        for rows, status in ((2, 200), (3, 400)):
            answer = running.client.infer({"inputs": [tensor("image", digits_images(rows), "FP32")]})
            assert answer.status == status
