"""Misuse of the command line: one clear message, the documented exit code, nothing left behind."""

from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Tessera
from tests.driver.models import unsupported

pytestmark = [pytest.mark.cli, pytest.mark.errors]


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """Inputs of which one fits the model."""
    arrays = {
        "fits": np.ones((2, 20), np.float32),
        "shape": np.ones((2, 21), np.float32),
        "rank": np.ones(20, np.float32),
        "dtype": np.ones((2, 20), np.float64),
    }
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    return {name: tmp_path / f"{name}.npy" for name in arrays}


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("x={shape}", "INPUT_SHAPE"),
        ("x={rank}", "INPUT_RANK"),
        ("x={dtype}", "INPUT_DTYPE"),
        ("z={fits}", "INPUT_MISSING"),
    ],
)
def test_run_when_an_input_does_not_fit_then_says_what_was_expected(
    tessera: Tessera, bundle_file: Path, inputs: dict[str, Path], tmp_path: Path, word: str, code: str
) -> None:
    before = sorted(tmp_path.iterdir())
    done = tessera("run", bundle_file, "--input", word.format(**inputs), "--output", tmp_path / "out.npz")
    assert done.exit_code == 8
    assert done.stderr.startswith(f"error[{code}]")
    assert "expected:" in done.stderr
    assert "'x'" in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_run_when_no_input_is_given_then_names_the_missing_one(tessera: Tessera, bundle_file: Path) -> None:
    done = tessera("run", bundle_file)
    assert (done.exit_code, "f32 [batch, 20]" in done.stderr) == (8, True)


@pytest.mark.parametrize("word", ["x={missing}", "x={text}", "{fits}"])
def test_run_when_a_file_is_no_input_then_says_so(
    tessera: Tessera, bundle_file: Path, inputs: dict[str, Path], tmp_path: Path, word: str
) -> None:
    (tmp_path / "text.npy").write_text("not numpy", encoding="utf-8")
    files = {**inputs, "missing": tmp_path / "missing.npy", "text": tmp_path / "text.npy"}
    done = tessera("run", bundle_file, "--input", word.format(**files))
    assert done.exit_code == 2
    assert "error[INPUT_FILE]" in done.stderr


def test_run_when_outputs_have_no_folder_then_says_so(
    tessera: Tessera, bundle_file: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "no" / "out.npz"
    done = tessera("run", bundle_file, "--input", f"x={inputs['fits']}", "--output", out)
    assert (done.exit_code, "OUTPUT_UNWRITABLE" in done.stderr) == (7, True)


def test_build_when_an_operator_is_unknown_then_names_the_node(tessera: Tessera, tmp_path: Path) -> None:
    (tmp_path / "match.onnx").write_bytes(unsupported().SerializeToString())
    done = tessera("build", tmp_path / "match.onnx", "-o", tmp_path / "m")
    assert done.exit_code == 4
    assert "RegexFullMatch is not built" in done.stderr
    assert not (tmp_path / "m").exists()


def test_build_when_the_file_is_no_model_then_says_so(tessera: Tessera, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("this is no protobuf", encoding="utf-8")
    done = tessera("build", tmp_path / "text.onnx", "-o", tmp_path / "m")
    assert (done.exit_code, "error[BAD_MODEL]" in done.stderr) == (3, True)


def test_build_when_a_config_key_is_unknown_then_suggests_the_nearest(
    tessera: Tessera, model_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "build.yaml").write_text("targtes: [native]\n", encoding="utf-8")
    done = tessera("build", model_file, "-o", tmp_path / "m", "--config", tmp_path / "build.yaml")
    assert done.exit_code == 2
    assert "did you mean 'targets'?" in done.stderr
    assert "build.yaml:1:1" in done.stderr


@pytest.mark.parametrize(
    "words",
    [("--target", "x86-64-v9"), ("--dim", "batch"), ("--dim", "batch=a..b"), ("--workers", "0"), ("--nonsense",)],
)
def test_build_when_words_are_wrong_then_is_a_usage_error(
    tessera: Tessera, model_file: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    done = tessera("build", model_file, "-o", tmp_path / "m", *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["run", "verify", "inspect", "bench"])
def test_command_when_the_bundle_is_damaged_then_says_so(
    tessera: Tessera, bundle_file: Path, tmp_path: Path, command: str
) -> None:
    data = bytearray(bundle_file.read_bytes())
    data[700] ^= 1
    (tmp_path / "damaged.tessera").write_bytes(data)
    done = tessera(command, tmp_path / "damaged.tessera")
    assert done.exit_code == 6
    assert done.stderr.startswith("error[")


def test_inspect_when_the_operator_is_unknown_then_suggests(tessera: Tessera, bundle_file: Path) -> None:
    done = tessera("inspect", bundle_file, "--level", "tile", "--op", "secnd")
    assert (done.exit_code, "did you mean second" in done.stderr) == (2, True)


def test_inspect_when_the_target_is_absent_then_lists_those_there(tessera: Tessera, bundle_file: Path) -> None:
    done = tessera("inspect", bundle_file, "--level", "tile", "--target", "x86-64-v4")
    assert (done.exit_code, "x86-64-v2, x86-64-v3" in done.stderr) == (2, True)


def test_bench_when_the_model_is_nowhere_then_asks_for_it(tessera: Tessera, bundle_file: Path, tmp_path: Path) -> None:
    (tmp_path / "alone.tessera").write_bytes(bundle_file.read_bytes())
    done = tessera("bench", tmp_path / "alone.tessera", "--against", "onnxruntime")
    assert (done.exit_code, "--model model.onnx" in done.stderr) == (2, True)


def test_command_when_something_unexpected_happens_then_prints_the_traceback(
    tessera: Tessera, bundle_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_path: Path) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr("tessera_build.cli.inspect.identity", fail)
    done = tessera("inspect", bundle_file, "--digest")
    assert done.exit_code == 1
    assert "KeyError: 'surprise'" in done.stderr
    assert "error[INTERNAL]" in done.stderr


def test_bisect_when_there_is_no_input_then_is_a_usage_error(tessera: Tessera, bundle_file: Path) -> None:
    done = tessera("verify", bundle_file, "--bisect")
    assert (done.exit_code, "--input" in done.stderr) == (2, True)


def test_command_when_interrupted_then_says_so_in_one_line_with_a_code_of_its_own(
    tessera: Tessera, bundle_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    np.save(tmp_path / "x.npy", np.ones((2, 20), np.float32))
    words = ("--input", f"x={tmp_path / 'x.npy'}", "--output", tmp_path / "out.npz")
    done = tessera("run", bundle_file, *words)
    assert (done.exit_code, done.stderr) == (130, "interrupted: nothing half-written was left behind\n")
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]
