"""Calls on arrays: compiled once, with parameters as they are, from and to other libraries without copies."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from tessera import executor, f32, graph, op
from tessera.errors import LanguageError
from tessera.executor import Compiled
from tessera_build.driver import executor as shipped
from tessera_build.driver.executor import EXECUTOR, Compiler
from tessera_build.ir.graph.nodes import Array, Module

Floats = NDArray[np.float32]


class Counting:
    """The compiler, with what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.read_onnx = EXECUTOR.read_onnx
        self.read_weights = EXECUTOR.read_weights
        self.write_weights = EXECUTOR.write_weights

    def compiled(self, module: Module, entry: str) -> Compiled:
        """Remember the types of the inputs."""
        function = module.entries[entry]
        self.asked.append(tuple(str(function.types[arg]) for arg in function.args))
        return EXECUTOR.compiled(module, entry)


class Net(graph.Module):
    """A layer with parameters that have no names yet."""

    def __init__(self) -> None:
        self.weight = op.tensor((4, 3), f32, init=op.init.normal(seed=1))
        self.bias = op.tensor((3,), f32, init=op.init.zeros())
        self.traced = 0

    def forward(self, x: Floats, scale: float = 1.0) -> object:  # type: ignore[override]
        """Counts how often it is traced."""
        self.traced += 1
        return {"y": op.tanh(x @ self.weight + self.bias) * scale, "x": x}  # type: ignore[operator]


def _numbers(rows: int) -> Floats:
    return np.random.default_rng(rows).normal(size=(rows, 4)).astype(np.float32)


def _wanted(net: Net, x: Floats, scale: float = 1.0) -> Floats:
    weight, bias = (np.asarray(parameter.array, np.float32) for parameter in (net.weight, net.bias))
    return (np.tanh(x @ weight + bias) * np.float32(scale)).astype(np.float32)


def _y(found: object) -> Floats:
    assert isinstance(found, Mapping)
    return np.asarray(found["y"], np.float32)


@pytest.mark.numerics
def test_module_when_called_on_arrays_then_is_compiled_and_sees_parameters_that_change() -> None:
    net, x = Net(), _numbers(5)
    with executor.using(Counting()):
        np.testing.assert_allclose(_y(net(x)), _wanted(net, x), atol=1e-6)
        net.bias.assign(np.asarray([1, 2, 3], np.float32))
        np.testing.assert_allclose(_y(net(x)), _wanted(net, x), atol=1e-6)
        np.testing.assert_allclose(_y(net(x, scale=3.0)), _wanted(net, x, 3.0), atol=1e-5)
    with executor.using(None):
        np.testing.assert_allclose(_y(net(x)), _wanted(net, x), atol=1e-6)
    assert net.traced == 4


@pytest.mark.numerics
def test_jit_when_called_again_then_traces_for_new_signatures_alone() -> None:
    net, asked = Net(), Counting()
    fast = graph.jit(lambda x, scale=1.0: net(x, scale))
    with executor.using(asked):
        for scale in (1.0, 1.0, 2.0):
            for rows in (5, 7, 5):
                x = _numbers(rows)
                np.testing.assert_allclose(_y(fast(x, scale)), _wanted(net, x, scale), atol=1e-5)
        net.weight.assign(np.ones((4, 3), np.float32))
        np.testing.assert_allclose(_y(fast(_numbers(5), 1.0)), _wanted(net, _numbers(5)), atol=1e-6)
    assert net.traced == 4
    assert len(asked.asked) == 4


@pytest.mark.numerics
def test_entries_when_they_are_traced_alike_then_are_compiled_once() -> None:
    compiler, builds = Compiler(), 0
    first, second = Net(), Net()
    second.weight.assign(np.ones((4, 3), np.float32))

    class Watching(Counting):
        def compiled(self, module: Module, entry: str) -> Compiled:
            nonlocal builds
            before = len(compiler.loaded)
            run = compiler.compiled(module, entry)
            builds += len(compiler.loaded) - before
            return run

    with executor.using(Watching()):
        for net in (first, second, first):
            np.testing.assert_allclose(_y(net(_numbers(5))), _wanted(net, _numbers(5)), atol=1e-6)
    assert builds == 1


@pytest.mark.numerics
def test_torch_tensors_when_given_and_taken_then_share_memory() -> None:
    torch = pytest.importorskip("torch")
    net, seen = Net(), list[int]()

    class Looking(Counting):
        def compiled(self, module: Module, entry: str) -> Compiled:
            run = EXECUTOR.compiled(module, entry)

            def watched(feeds: Mapping[str, Array]) -> dict[str, Array]:
                seen.append(feeds["argument0"].ctypes.data)
                return run(feeds)

            return watched

    given = torch.tensor(_numbers(5))
    with executor.using(Looking()):
        found = _y(net(given))
        turned = _y(net(given.T.contiguous().T))
    assert seen[0] == given.data_ptr()
    np.testing.assert_allclose(found, _wanted(net, _numbers(5)), atol=1e-6)
    np.testing.assert_allclose(turned, found, atol=1e-6)
    taken = torch.from_dlpack(found)
    assert taken.data_ptr() == found.ctypes.data
    taken += 1
    np.testing.assert_allclose(found, _wanted(net, _numbers(5)) + 1, atol=1e-6)


@pytest.mark.numerics
def test_torch_tensors_when_they_are_bf16_then_bits_are_shared_both_ways() -> None:
    torch = pytest.importorskip("torch")

    class Doubled(graph.Module):
        def forward(self, x: Array) -> object:  # type: ignore[override]
            return x + x  # type: ignore[operator]

    doubled = Doubled()

    given = torch.tensor(_numbers(5)).bfloat16()
    found = cast(Array, doubled(given))
    assert found.dtype.name == "bfloat16"
    taken = torch.from_numpy(found.view(np.uint16)).view(torch.bfloat16)
    assert taken.data_ptr() == found.ctypes.data
    assert torch.equal(taken, given + given)
    np.testing.assert_array_equal(cast(Array, doubled(given.T.contiguous().T)).view(np.uint16), found.view(np.uint16))


@pytest.mark.parametrize(
    ("change", "text"),
    [("requires_grad_()", "detach"), ("to('meta')", "meta")],
)
def test_torch_tensor_when_it_cannot_be_spoken_then_says_why(change: str, text: str) -> None:
    torch = pytest.importorskip("torch")
    tensor = eval(f"torch.ones(2, 4).{change}", {"torch": torch})
    with pytest.raises(LanguageError) as refused:
        Net()(tensor)
    assert refused.value.code == "ARRAY_NOT_SPOKEN"
    assert text in refused.value.diagnostics()
    assert "test_calls.py" in str(refused.value.where)


def test_files_when_no_compiler_is_there_then_are_refused(tmp_path: Path) -> None:
    with executor.using(None), pytest.raises(LanguageError, match="NO_COMPILER"):
        graph.save(Net(), tmp_path / "w.safetensors")


def test_process_when_it_called_a_module_then_ends_quietly(tmp_path: Path) -> None:
    file = tmp_path / "called.py"
    file.write_text(
        "import numpy as np\nfrom tessera import graph, op\n\n\n"
        "@graph.jit\ndef twice(x):\n    return x + x\n\n\nprint(twice(np.ones(2, np.float32)))\n",
        encoding="utf-8",
    )
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[2. 2.]\n", "")


def test_parameter_when_it_has_no_numbers_then_a_call_says_so() -> None:
    free = op.tensor((4, 3))
    with pytest.raises(LanguageError, match="PARAMETER_WITHOUT_VALUE"):
        graph.jit(lambda x: x @ free)(_numbers(2))


def test_executor_when_threads_ask_for_more_entries_than_it_keeps_then_all_get_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Loaded:
        """Stands for a model, whose entry is its own name."""

        def __init__(self, module: object) -> None:
            self.main = SimpleNamespace(run=module)

    monkeypatch.setattr(shipped, "_key", lambda module, _entry: module)
    monkeypatch.setattr(shipped, "_loaded", Loaded)
    compiler, wrong = Compiler(), list[object]()

    def ask(thread: int) -> None:
        try:
            for number in range(5000):
                wanted = thread, number % 70
                assert compiler.compiled(wanted, "main") == wanted  # type: ignore[arg-type]
        except Exception as error:
            wrong.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert wrong == []
    assert len(compiler.loaded) <= 64


def test_compiler_when_it_is_there_but_broken_then_a_call_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> object:
        raise ImportError("libLLVM.so: cannot open shared object file")

    monkeypatch.setattr(executor, "import_module", broken)
    with pytest.raises(ImportError, match="libLLVM"):
        executor.in_use()
