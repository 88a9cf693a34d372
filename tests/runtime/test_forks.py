"""Processes that fork after they have loaded: quiet ones, busy ones, ones with observers and deadlines."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tessera_runtime import DeadlineError, Model, load
from tessera_runtime.metrics import Metrics
from tests.runtime.sample import SCALE, SHIFT

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
X = np.arange(300, dtype=np.float32).reshape(100, 3)
CHILD_SECONDS = 30


def is_right(model: Model, timeout: float | None = None) -> bool:
    return bool(np.array_equal(model.run({"x": X}, timeout=timeout)["y"], X * SCALE + SHIFT))


def in_child(check: Callable[[], bool]) -> int:
    """Start a child that leaves with 0 when the check holds; it is killed when it hangs."""
    child = os.fork()
    if child == 0:
        signal.alarm(CHILD_SECONDS)
        code = 1
        try:
            code = 0 if check() else 2
        finally:
            os._exit(code)
    return child


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def from_threads(model: Model, count: int = 4) -> bool:
    """Whether runs from several threads of this process are right."""
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append(is_right(model))) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found == [True] * count


@pytest.mark.numerics
def test_children_when_forked_by_a_process_that_is_running_the_model_then_all_are_right(bundle: Path) -> None:
    metrics, stop, wrong = Metrics(), threading.Event(), list[str]()
    with load(bundle, threads=3, observers=(metrics,)) as model:

        def keep_running() -> None:
            while not stop.is_set():
                if not is_right(model, timeout=60):
                    wrong.append("parent")

        threads = [threading.Thread(target=keep_running) for _ in range(4)]
        for thread in threads:
            thread.start()
        codes: list[int] = []
        for _ in range(12):
            codes.append(exit_code(in_child(lambda: is_right(model, timeout=60) and from_threads(model))))
            time.sleep(0.002)
        stop.set()
        for thread in threads:
            thread.join()
        assert is_right(model)
    assert codes == [0] * 12
    assert not wrong


@pytest.mark.numerics
def test_children_when_forked_after_loading_then_run_at_the_same_time_and_fork_again(bundle: Path) -> None:
    with load(bundle, threads=2) as model:

        def child() -> bool:
            grandchild = in_child(lambda: from_threads(model))
            return from_threads(model) and exit_code(grandchild) == 0

        children = [in_child(child) for _ in range(4)]
        assert from_threads(model)
        assert [exit_code(each) for each in children] == [0] * 4


@pytest.mark.unit
def test_child_when_it_closes_or_is_late_then_the_parent_is_not_concerned(bundle: Path) -> None:
    model = load(bundle, threads=2)

    def child() -> bool:
        try:
            model.entries["wait"].run({"x": X[0, :1]}, timeout=0.02)
        except DeadlineError:
            model.close()
            return True
        return False

    assert exit_code(in_child(child)) == 0
    assert is_right(model, timeout=60)
    model.close()
