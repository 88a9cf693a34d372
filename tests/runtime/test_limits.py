"""Runs that end before they are done: by a deadline, by a handle, and what is left afterwards."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import tessera_build
from tessera_runtime import CancelHandle, CancelledError, DeadlineError, Model, RunError, load
from tests.models.bundles import DIGITS, digits_images
from tests.runtime.sample import SCALE, SHIFT

X = np.ones(1, np.float32)
ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


def check_sound(model: Model) -> None:
    """The model still answers, with and without limits."""
    plain, timed = model.run({"x": ROWS}), model.run({"x": ROWS}, timeout=60)
    handled = model.run({"x": ROWS}, cancel=CancelHandle())
    for answer in (plain, timed, handled):
        np.testing.assert_array_equal(answer["y"], ROWS * SCALE + SHIFT)


@pytest.mark.unit
def test_run_when_its_deadline_passes_then_ends_with_the_node_and_the_model_goes_on(model: Model) -> None:
    begin = time.monotonic()
    with pytest.raises(DeadlineError) as caught:
        model.entries["wait"].run({"x": X}, timeout=0.05)
    assert (caught.value.code, caught.value.where) == ("DEADLINE_EXCEEDED", "gather_rows")
    assert 0.05 <= time.monotonic() - begin < 10
    check_sound(model)


@pytest.mark.unit
def test_run_when_another_thread_cancels_then_all_its_runs_end(model: Model) -> None:
    handle, ended = CancelHandle(), list[str]()

    def wait() -> None:
        try:
            model.entries["wait"].run({"x": X}, cancel=handle, timeout=60)
        except CancelledError as error:
            ended.append(error.code)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    assert not ended
    handle.cancel()
    for thread in threads:
        thread.join(10)
    assert ended == ["CANCELLED"] * 3
    with pytest.raises(CancelledError, match="before it began"):
        model.run({"x": ROWS}, cancel=handle)
    check_sound(model)


@pytest.mark.unit
def test_runs_when_deadlines_differ_then_each_ends_at_its_own(model: Model) -> None:
    ended: dict[float, float] = {}

    def wait(seconds: float) -> None:
        begin = time.monotonic()
        with pytest.raises(DeadlineError):
            model.entries["wait"].run({"x": X}, timeout=seconds)
        ended[seconds] = time.monotonic() - begin

    # The longest first: a later call with an earlier deadline must wake the watching thread.
    threads = [threading.Thread(target=wait, args=(seconds,)) for seconds in (1.5, 0.3, 0.05)]
    for thread in threads:
        thread.start()
        time.sleep(0.01)
    for thread in threads:
        thread.join(10)
    assert sorted(ended) == [0.05, 0.3, 1.5]
    assert all(spent >= seconds for seconds, spent in ended.items())
    assert ended[0.05] < 1.4


@pytest.mark.errors
def test_timeout_when_spent_or_not_a_number_then_nothing_runs(model: Model) -> None:
    for timeout in (0.0, -1.0):
        with pytest.raises(DeadlineError):
            model.run({"x": ROWS}, timeout=timeout)
    with pytest.raises(RunError, match="ARGUMENT"):
        model.run({"x": ROWS}, timeout=float("nan"))
    np.testing.assert_array_equal(model.run({"x": ROWS}, timeout=float("inf"))["last"], [4])


@pytest.mark.unit
def test_code_when_a_run_has_no_limit_then_sees_no_flag(model: Model) -> None:
    with pytest.raises(RunError, match="BAD_ARGUMENT"):
        model.entries["wait"].run({"x": X})
    with pytest.raises(DeadlineError):
        model.entries["wait"].run({"x": X}, timeout=0.01)
    with pytest.raises(RunError, match="BAD_ARGUMENT"):
        model.entries["wait"].run({"x": X})


@pytest.mark.unit
def test_state_when_a_run_is_cancelled_then_is_as_before(model: Model) -> None:
    step, handle = model.entries["step"], CancelHandle()
    state = step.new_state({"s": np.full(3, 5, np.float32)})
    handle.cancel()
    with pytest.raises(CancelledError):
        step.run({"x": np.ones(3, np.float32)}, state=state, cancel=handle)
    np.testing.assert_array_equal(step.run({"x": np.ones(3, np.float32)}, state=state, timeout=60)["y"], np.full(3, 6))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
@pytest.mark.unit
def test_deadlines_when_the_process_forks_then_pass_in_parent_and_child(bundle: Path) -> None:
    def is_late() -> bool:
        try:
            model.entries["wait"].run({"x": X}, timeout=0.05)
        except DeadlineError:
            return True
        return False

    with load(bundle, threads=2) as model:
        assert is_late()
        child = os.fork()
        if child == 0:
            os._exit(0 if is_late() and is_late() else 1)
        assert is_late()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.unit
def test_handle_when_runs_have_ended_then_holds_none_of_them(model: Model) -> None:
    handle = CancelHandle()
    for _ in range(3):
        model.run({"x": ROWS}, cancel=handle)
    assert handle.runs == 0
    assert not handle.cancelled


@pytest.mark.numerics
@pytest.mark.parametrize("threads", [1, 2])
def test_compiled_code_when_its_deadline_passes_then_ends_at_a_node_and_runs_again(
    tmp_path: Path, threads: int
) -> None:
    path = tmp_path / "digits.tessera"
    tessera_build.build(DIGITS / "digits.onnx", ["native"], path, verify=False, workers=1)
    images = digits_images(8)
    many = np.tile(images, (1000, 1, 1, 1))
    with load(path, threads=threads) as model:
        expected = model.run(image=images)["probabilities"]
        begin = time.perf_counter()
        model.run(image=many)
        whole = time.perf_counter() - begin
        for _ in range(5):
            with pytest.raises(DeadlineError) as caught:
                model.run({"image": many}, timeout=whole / 50)
            # Either a launch was refused, and names its node, or the time was up before the first one.
            assert caught.value.code == "DEADLINE_EXCEEDED"
            answer = model.run({"image": images}, timeout=60)["probabilities"]
            np.testing.assert_array_equal(answer, expected)
