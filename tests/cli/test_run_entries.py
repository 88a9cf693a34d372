"""`tessera run` on entries that are not the main one, and on those that carry a state."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Tessera

pytestmark = pytest.mark.cli

MODEL = """\
from tessera import State, Tensor, f32, graph, op


@graph.module("sums")
def sums(x: Tensor[3, f32], total: State[3, f32]):
    following = total.value + x
    return following * 2, total.set(following)


@graph.autodiff
@graph.module("net")
def net(x: Tensor[3, f32]):
    return op.exp(x)
"""
Arrays = dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]


@pytest.fixture(scope="module")
def bundle(tessera: Tessera, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("entries") / "model.py"
    path.write_text(MODEL, encoding="utf-8")
    done = tessera("build", path, "--target", "native", "--no-verify", "-o", path.with_suffix(".tessera"))
    assert done.exit_code == 0, done.output
    return path.with_suffix(".tessera")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", np.arange(3, dtype=np.float32))
    np.save(tmp_path / "ones.npy", np.ones(3, np.float32))
    return tmp_path


def _read(path: Path) -> Arrays:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def test_run_when_an_entry_is_named_then_runs_that_one(tessera: Tessera, bundle: Path, files: Path) -> None:
    words = ("--input", f"x={files / 'x.npy'}", "--input", f"output_cotangent={files / 'ones.npy'}")
    done = tessera("run", bundle, "--entry", "net_grad", *words, "--output", files / "out.npz")
    assert done.exit_code == 0, done.output
    found = _read(files / "out.npz")
    np.testing.assert_allclose(found["x_gradient"], np.exp(np.arange(3)), rtol=1e-6)
    assert "x_gradient: float32 [3], from 1.0 to" in done.stdout


def test_run_when_the_entry_has_a_state_then_it_begins_as_zeros_and_is_written_for_the_next_run(
    tessera: Tessera, bundle: Path, files: Path
) -> None:
    x, first, second = f"x={files / 'x.npy'}", files / "first.npz", files / "second.npz"
    done = tessera("run", bundle, "--input", x, "--output", first)
    assert done.exit_code == 0, done.output
    assert "state total: float32 [3], from 0.0 to 2.0" in done.stdout
    np.save(files / "total.npy", _read(first)["total"])
    done = tessera("run", bundle, "--input", x, "--input", f"total={files / 'total.npy'}", "--output", second, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["state"]["total"]["max"] == 4.0
    assert json.loads(done.stdout)["entry"] == "sums"
    found = _read(second)
    assert {name: array.tolist() for name, array in found.items()} == {"output_0": [0, 4, 8], "total": [0, 2, 4]}


def test_run_when_the_entry_is_misspelt_then_says_which_there_are(tessera: Tessera, bundle: Path, files: Path) -> None:
    done = tessera("run", bundle, "--entry", "net_grat", "--input", f"x={files / 'x.npy'}")
    assert done.exit_code == 2
    assert "sums, net, net_grad" in done.stderr
    assert "did you mean net_grad" in done.stderr
