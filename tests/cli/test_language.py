"""Models in the language on the command line."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Tessera

EMPTY = """\
from tessera import Tensor, bf16, graph, op

class Net(graph.Module):
    def __init__(self):
        self.w = op.tensor((4, 3), bf16)

    def forward(self, x: Tensor["B", 4, bf16]):
        return op.relu(x @ self.w)

net = Net()
"""
MODEL = """
from tessera import Tensor, graph, op

W = op.tensor((4, 2), init=op.init.normal(seed=1))


@graph.module("first")
def first(x: Tensor["B", 4]):
    return x @ W


@graph.module("second")
def second(x: Tensor["B", 4]):
    return op.relu(x @ W)
"""


@pytest.fixture
def model_py(tmp_path: Path) -> Path:
    path = tmp_path / "model.py"
    path.write_text(MODEL, encoding="utf-8")
    return path


@pytest.mark.cli
def test_build_when_an_entry_is_named_then_the_bundle_has_it_alone(tessera: Tessera, model_py: Path) -> None:
    bundle = model_py.with_suffix(".tessera")
    done = tessera("build", model_py, "--entry", "second", "--dims", "B=1:8", "-o", bundle, "--json")
    assert done.exit_code == 0, done.output
    shown = tessera("inspect", bundle)
    assert "second: input x" in shown.output
    assert "first" not in shown.output
    assert "dim B: 1 to 8" in shown.output


@pytest.mark.cli
def test_build_when_the_weights_change_then_so_does_the_models_digest(tessera: Tessera, model_py: Path) -> None:
    digests: set[str] = set()
    for value in (0, 1):
        header = b'{"W":{"dtype":"F32","shape":[4,2],"data_offsets":[0,32]}}'
        raw = len(header).to_bytes(8, "little") + header + bytes([0, 0, 128 * value, 63 * value]) * 8
        model_py.with_suffix(".safetensors").write_bytes(raw)
        done = tessera("build", model_py, "--no-verify", "-o", model_py.with_suffix(".tessera"), "--json")
        digests.add(json.loads(done.stdout)["digest"])
    assert len(digests) == 2


@pytest.mark.cli
def test_shapes_when_parameters_have_no_numbers_then_prints_them_and_finds_what_does_not_fit(
    tessera: Tessera, tmp_path: Path
) -> None:
    path = tmp_path / "model.py"
    path.write_text(EMPTY, encoding="utf-8")
    done = tessera("shapes", path)
    assert "model.py:5:18  bf16[4, 3]" in done.stdout
    assert "model.py:8:16  bf16[B, 3]" in done.stdout
    path.write_text(EMPTY.replace('["B", 4', '["B", 5'), encoding="utf-8")
    wrong = tessera("shapes", path)
    assert wrong.exit_code == 2
    assert "error[TYPE_MISMATCH]" in wrong.stderr
    assert "model.py:8:24" in wrong.stderr


@pytest.mark.cli
def test_shapes_when_asked_then_prints_each_value_with_its_line(tessera: Tessera, model_py: Path) -> None:
    done = tessera("shapes", model_py, "--entry", "second", "--dims", "B=3")
    assert done.exit_code == 0
    assert [line.split() for line in done.output.splitlines()][:2] == [
        ["second:"],
        ["model.py:13:15", "f32[3,", "4]", "x"],
    ]
    assert "model.py:14:12  f32[3, 2]  op.relu(x @ W)" in done.output


@pytest.mark.cli
def test_build_when_the_model_is_wrong_then_shows_the_line_and_exits_with_two(tessera: Tessera, model_py: Path) -> None:
    model_py.write_text(MODEL.replace("x @ W)", "x + W)"), encoding="utf-8")
    done = tessera("build", model_py)
    assert done.exit_code == 2
    assert "at:       model.py:14:20" in done.stderr
    assert "                   ^^^^^" in done.stderr


@pytest.mark.cli
@pytest.mark.parametrize("words", [("doctor",), ("build", "--dims", "N=4")])
def test_command_when_it_does_not_fit_a_model_py_then_says_so(
    tessera: Tessera, model_py: Path, words: tuple[str, ...]
) -> None:
    done = tessera(*words, model_py)
    assert done.exit_code == 2
    assert ("NOT_ONNX" if words == ("doctor",) else "DIM_UNKNOWN") in done.stderr
