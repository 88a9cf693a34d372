"""Entries of derivatives on the command line: asked for, shown and exported like others."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tessera_build.frontends.python import read_python
from tests.cli.conftest import Tessera

pytestmark = pytest.mark.cli

MODEL = """\
from tessera import Tensor, graph, op

W = op.tensor((4, 2), init=op.init.normal(seed=1))


@graph.autodiff
@graph.module("net")
def net(x: Tensor["B", 4]):
    return op.tanh(x @ W)


@graph.autodiff(mode="forward", wrt="x")
@graph.module("wave")
def wave(x: Tensor["B", 4]):
    return op.sin(x)
"""


@pytest.fixture
def model_py(tmp_path: Path) -> Path:
    path = tmp_path / "model.py"
    path.write_text(MODEL, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ([], ["net", "wave", "net_grad", "wave_jvp"]),
        (["net"], ["net", "net_grad"]),
        (["net_grad"], ["net_grad"]),
        (["wave_jvp", "net"], ["wave_jvp", "net", "net_grad"]),
        (["net_grad", "net"], ["net_grad", "net"]),
        (["net_grad", "net_grad"], ["net_grad"]),
    ],
)
def test_entries_when_asked_for_then_an_entry_brings_its_derivatives_and_these_come_alone(
    model_py: Path, asked: list[str], found: list[str]
) -> None:
    assert list(read_python(model_py, entries=asked).module.entries) == found


def test_build_when_gradients_are_named_then_the_bundle_has_them_alone(tessera: Tessera, model_py: Path) -> None:
    bundle = model_py.with_suffix(".tessera")
    done = tessera("build", model_py, "--entry", "net_grad", "--dims", "B=1:8", "-o", bundle)
    assert done.exit_code == 0, done.output
    shown = tessera("inspect", bundle).output
    assert "net_grad: input output_cotangent: f32 [B, 2]" in shown
    assert "net_grad: output W_gradient: f32 [4, 2]" in shown
    assert "net: " not in shown


def test_export_when_gradients_are_named_then_writes_them(tessera: Tessera, model_py: Path) -> None:
    out = model_py.with_suffix(".onnx")
    done = tessera("export", model_py, "--entry", "net_grad", "-o", out)
    assert done.exit_code == 0, done.output
    assert [x.name for x in onnx.load(out).graph.output] == ["output", "x_gradient", "W_gradient"]


def test_shapes_when_entries_have_derivatives_then_shows_these_like_others(tessera: Tessera, model_py: Path) -> None:
    whole = tessera("shapes", model_py).output
    assert [line for line in whole.splitlines() if line.endswith(":")] == ["net:", "wave:", "net_grad:", "wave_jvp:"]
    alone = tessera("shapes", model_py, "--entry", "net_grad").output
    assert [line.split() for line in alone.splitlines()] == [
        ["net_grad:"],
        ["model.py:8:12", "f32[B,", "4]", "x"],
        ["model.py:8:1", "f32[B,", "2]", "output_cotangent"],
        ["model.py:3:5", "f32[4,", "2]", "W"],
        ["model.py:9:20", "f32[B,", "2]", "x", "@", "W"],
        ["model.py:9:12", "f32[B,", "2]", "op.tanh(x", "@", "W)"],
        ["model.py:8:1", "f32[B,", "4]", "x_gradient"],
        ["model.py:8:1", "f32[4,", "2]", "W_gradient"],
        ["dims:", "B", "1.."],
    ]


def test_shapes_when_all_values_are_asked_for_then_those_of_derivatives_have_the_authors_places(
    tessera: Tessera, model_py: Path
) -> None:
    lines = tessera("shapes", model_py, "--entry", "net_grad", "--all").output.splitlines()
    assert ["model.py:9:20", "f32[4,", "2]", "x", "@", "W"] in [line.split() for line in lines]
    assert ["model.py:3:5", "f32[4,", "2]", "W"] in [line.split() for line in lines]


def test_entry_when_misspelt_then_those_of_derivatives_are_offered(tessera: Tessera, model_py: Path) -> None:
    done = tessera("build", model_py, "--entry", "net_grads")
    assert done.exit_code == 2
    assert "did you mean net_grad?" in done.stderr
