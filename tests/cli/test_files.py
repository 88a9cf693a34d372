"""Files in the wrong places of a command, and options that contradict each other: nothing of the user's is lost."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Tessera

pytestmark = [pytest.mark.cli, pytest.mark.errors]


@pytest.fixture
def own(tmp_path: Path, model_file: Path, bundle_file: Path) -> Path:
    """A folder with copies that a command may spoil."""
    (tmp_path / "m.onnx").write_bytes(model_file.read_bytes())
    (tmp_path / "m.tessera").write_bytes(bundle_file.read_bytes())
    np.savez(tmp_path / "x.npz", x=np.ones((2, 20), np.float32))
    (tmp_path / "notes.txt").write_text("precious", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", ["m.onnx", "notes.txt", "x.npz"])
def test_build_when_another_file_is_where_the_bundle_goes_then_it_stays(tessera: Tessera, own: Path, name: str) -> None:
    """`-o model.onnx` replaced the model by its bundle."""
    before = {path: path.read_bytes() for path in own.iterdir()}
    done = tessera("build", own / "m.onnx", "-o", own / name)
    assert (done.exit_code, "error[TARGET_EXISTS]" in done.stderr) == (2, True)
    assert {path: path.read_bytes() for path in own.iterdir()} == before


def test_build_when_a_folder_of_other_work_is_where_the_bundle_goes_then_the_request_is_wrong(
    tessera: Tessera, own: Path
) -> None:
    """It was found out after the work, and called a damaged bundle."""
    done = tessera("build", own / "m.onnx", "-o", own)
    assert (done.exit_code, "error[TARGET_EXISTS]" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    "words",
    [
        ("run", "m.tessera", "--input", "x.npz", "--output", "m.tessera"),
        ("run", "m.tessera", "--input", "x.npz", "--output", "x.npz"),
        ("profile", "m.tessera", "--trace", "m.tessera", "--seconds", "0.1"),
        ("export", "m.onnx", "-o", "m.onnx"),
    ],
)
def test_command_when_it_would_write_over_what_it_reads_then_says_so(
    tessera: Tessera, own: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own)
    before = {path: path.read_bytes() for path in own.iterdir()}
    done = tessera(*words)
    assert (done.exit_code, "error[OUTPUT_IS_INPUT]" in done.stderr) == (2, True)
    assert {path: path.read_bytes() for path in own.iterdir()} == before


@pytest.mark.parametrize("command", ["run", "inspect", "verify", "bench", "profile"])
@pytest.mark.parametrize("name", ["m.onnx", "notes.txt"])
def test_command_when_the_bundle_is_another_file_then_asks_for_the_right_one(
    tessera: Tessera, own: Path, command: str, name: str
) -> None:
    done = tessera(command, own / name)
    assert (done.exit_code, "is it the right one?" in done.stderr) == (6, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("x=notes.txt",), "neither of them"),
        (("x=x.npz",), "x.npz without a name"),
        (("x.npz", "x=x.npy"), "'x' is given twice"),
        (("x=x.npy", "x=x.npy"), "'x' is given twice"),
    ],
)
def test_run_when_its_inputs_are_not_as_they_should_be_then_says_what_is_wrong(
    tessera: Tessera, own: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    """A text was called a pickle that may be loaded unsafely; of two files for one input the last was taken."""
    np.save(own / "x.npy", np.ones((2, 20), np.float32))
    monkeypatch.chdir(own)
    done = tessera("run", "m.tessera", *(part for word in words for part in ("--input", word)))
    assert (done.exit_code, said in done.stderr) == (2, True)


@pytest.mark.parametrize(
    "words",
    [
        ("--checks", "nan"),
        ("--debug", "--checks", ""),
        ("--debug", "--checks", "foo"),
        ("--target", ""),
        ("--target", ","),
        ("--proof-operations", "nan"),
        ("--proof-operations", "-1"),
        ("--dims", "bach=2"),
        ("--dims", "batch=8:1"),
        ("--dims", "batch=0"),
    ],
)
def test_build_when_options_make_no_sense_then_the_request_is_wrong(
    tessera: Tessera, own: Path, words: tuple[str, ...]
) -> None:
    """Some were passed over, others called an error of Tessera's or of the model."""
    done = tessera("build", own / "m.onnx", "-o", own / "new.tessera", *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert not (own / "new.tessera").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("verify", "m.tessera", "m.onnx", "--input", "x.npz"), 2, "for --bisect"),
        (("verify", "m.tessera", "--dims", "batch=2"), 2, "for --bisect"),
        (("verify", "m.tessera", "m.onnx", "--bisect", "--input", "wide.npz"), 8, "expected: "),
        (("verify", "m.tessera", "m.onnx", "--bisect", "--input", "z=x.npy"), 8, "other names"),
        (("bench", "m.tessera", "--model", "m.onnx"), 2, "--against onnxruntime"),
        (("bench", "m.tessera", "--against", "onnxruntime", "--model", "notes.txt"), 2, "error[PEER_FAILED]"),
        (("doctor", "m.onnx", "--target", "foo"), 2, "error[CONFIG_NAME_UNKNOWN]"),
        (("export", "m.onnx", "-o", "no/m.onnx"), 7, "error[OUTPUT_UNWRITABLE]"),
        (("export", "m.onnx", "-o", "."), 7, "error[OUTPUT_UNWRITABLE]"),
        (("inspect", "m.tessera", "--target", "foo"), 2, "x86-64-v2, x86-64-v3"),
        (("inspect", "m.tessera", "--digest", "--level", "tile"), 2, "leave out --level"),
        (("inspect", "m.tessera", "--op", "foo"), 2, "error[OPERATOR_UNKNOWN]"),
    ],
)
def test_command_when_options_do_not_fit_each_other_or_the_bundle_then_says_so(
    tessera: Tessera, own: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int, said: str
) -> None:
    np.save(own / "x.npy", np.ones((2, 20), np.float32))
    np.savez(own / "wide.npz", x=np.ones((2, 20), np.float64))
    monkeypatch.chdir(own)
    done = tessera(*words)
    assert (done.exit_code, done.stdout) == (code, "")
    assert said in done.stderr


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (("--digest",), {"digest"}),
        (("--level", "tile"), {"tile"}),
        (("--op", "second"), {"graph", "schedule", "tile", "target", "asm"}),
        (("--target", "x86-64-v2"), {"x86-64-v2"}),
    ],
)
def test_inspect_when_json_is_asked_for_then_prints_one_object_of_what_was_asked(
    tessera: Tessera, own: Path, words: tuple[str, ...], keys: set[str]
) -> None:
    """Levels came as text."""
    found = json.loads(tessera("inspect", own / "m.tessera", *words, "--json").stdout)
    variants = {variant["target"] for variant in found.get("variants", ())}
    assert (found.get("levels", {}).keys() or variants or found.keys()) == keys
