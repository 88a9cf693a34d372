"""Every command as a person types it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest

import tessera_runtime
from bundle_format.reader import open_bundle
from tessera_build.cli.main import main
from tests.architecture.tree import ROOT
from tests.cli.conftest import Tessera

pytestmark = pytest.mark.cli


@pytest.mark.parametrize("name", sorted(main.commands))
def test_help_when_asked_for_then_shows_an_example(tessera: Tessera, name: str) -> None:
    done = tessera(name, "--help")
    assert done.exit_code == 0
    assert f"tessera {name}" in done.output.partition("Example:")[2]


def test_build_when_done_then_says_where_how_proved_and_how_long(
    tessera: Tessera, model_file: Path, tmp_path: Path
) -> None:
    done = tessera("build", model_file, "--target", "x86-64-v3", "-o", tmp_path / "m.tessera", "--dim", "batch=1..64")
    assert done.exit_code == 0, done.output
    with open_bundle(tmp_path / "m.tessera") as bundle:
        assert f"digest    {bundle.identity}" in done.stdout
        assert bundle.variants[0].config.entries[0].dims[0].max == 64
    assert "verified  x86-64-v3: run here, 2 runs" in done.stdout
    assert done.stderr.splitlines()[0] == "load ..."


def test_build_when_json_then_prints_one_object_and_no_progress(
    tessera: Tessera, model_file: Path, tmp_path: Path
) -> None:
    done = tessera("build", model_file, "--target", "x86-64-v3", "-o", tmp_path / "m", "--no-verify", "--json")
    result = json.loads(done.stdout)
    assert result["targets"] == ["x86-64-v3"]
    assert result["warnings"] == ["the bundle was not verified"]
    assert done.stderr == ""


def test_build_when_config_is_given_then_follows_it(tessera: Tessera, model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "build.yaml").write_text("targets: [x86-64-v2]\ndims:\n  batch: {min: 2, max: 9}\n", encoding="utf-8")
    done = tessera("build", model_file, "-o", tmp_path / "m", "--config", tmp_path / "build.yaml")
    assert done.exit_code == 0, done.output
    with open_bundle(tmp_path / "m") as bundle:
        config = bundle.variants[0].config
    assert (config.target.name, *config.entries[0].dims[0]) == ("x86-64-v2", "batch", 2, 9)


def test_run_when_given_an_input_then_writes_what_the_runtime_gives(
    tessera: Tessera, bundle_file: Path, tmp_path: Path
) -> None:
    x = np.random.default_rng(0).standard_normal((4, 20)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "all.npz", x=x)
    for word in (f"x={tmp_path / 'x.npy'}", tmp_path / "all.npz"):
        done = tessera("run", bundle_file, "--input", word, "--output", tmp_path / "out.npz", "--threads", 1)
        assert done.exit_code == 0, done.output
        assert "y: float32 [4, 5]" in done.stdout
        with np.load(tmp_path / "out.npz") as found, tessera_runtime.load(bundle_file) as model:
            assert np.array_equal(found["y"], model.run(x=x)["y"])


def test_bench_when_the_model_lies_beside_then_compares(tessera: Tessera, bundle_file: Path) -> None:
    words = ("--against", "onnxruntime", "--seconds", "0.1", "--dim", "batch=2", "--threads", "1", "--json")
    found = json.loads(tessera("bench", bundle_file, *words).stdout)
    assert [times["name"] for times in found["times"]] == ["tessera", "onnxruntime"]
    assert all(0 < times["minimum"] <= times["median"] for times in found["times"])
    assert found["ratio"] > 0
    assert found["sizes"] == {"batch": 2}


def test_bench_when_alone_then_shows_one_line_of_times(tessera: Tessera, bundle_file: Path) -> None:
    done = tessera("bench", bundle_file, "--seconds", "0.1")
    assert done.exit_code == 0
    assert "tessera      median" in done.stdout
    assert "batch=1" in done.stdout


def test_verify_when_sound_then_replays_or_compares(tessera: Tessera, bundle_file: Path, model_file: Path) -> None:
    assert "x86-64-v3: replayed 2 runs" in tessera("verify", bundle_file).stdout
    assert "x86-64-v3: compared 2 runs" in tessera("verify", bundle_file, model_file).stdout


def test_inspect_when_digest_then_prints_the_identity_alone(tessera: Tessera, bundle_file: Path) -> None:
    with open_bundle(bundle_file) as bundle:
        assert tessera("inspect", bundle_file, "--digest").stdout == f"{bundle.identity}\n"


def test_inspect_when_plain_then_shows_signature_targets_and_proof(tessera: Tessera, bundle_file: Path) -> None:
    text = tessera("inspect", bundle_file).stdout
    for part in ("main: input x: f32 [batch, 20]", "main: output y: f32 [batch, 5]", "x86-64-v2 (", "proved (native)"):
        assert part in text
    summary = json.loads(tessera("inspect", bundle_file, "--json").stdout)
    assert [variant["target"] for variant in summary["variants"]] == ["x86-64-v2", "x86-64-v3"]
    for variant in summary["variants"]:
        (space,) = variant["workspaces"]
        assert (space["entry"], space["target"], space["most"]) == ("main", variant["target"], None)
        assert f"  workspace of main: at least {space['least']} B, {space['bytes']} bytes" in text


@pytest.mark.parametrize(
    ("level", "part"),
    [
        ("graph", '"tgraph.matmul"'),
        ("schedule", '"tsched.compute"'),
        ("tile", '"ttile.contract"'),
        ("target", '"ttarget.func"'),
        ("asm", "vfmadd"),
    ],
)
def test_inspect_when_level_then_shows_it_whole_or_for_one_operator(
    tessera: Tessera, bundle_file: Path, level: str, part: str
) -> None:
    whole = tessera("inspect", bundle_file, "--level", level, "--target", "x86-64-v3")
    one = tessera("inspect", bundle_file, "--level", level, "--op", "second", "--target", "x86-64-v3")
    assert (whole.exit_code, one.exit_code) == (0, 0), whole.output + one.output
    assert part in whole.stdout
    assert part in one.stdout
    assert 0 < len(one.stdout) < len(whole.stdout)


def test_inspect_when_only_an_operator_then_shows_it_at_every_level(tessera: Tessera, bundle_file: Path) -> None:
    text = tessera("inspect", bundle_file, "--op", "scores").stdout
    assert [line for line in text.splitlines() if line.startswith("// ")] == [
        f"// {level}" for level in ("graph", "schedule", "tile", "target", "asm")
    ]


def test_targets_when_listed_then_says_which_run_here(tessera: Tessera) -> None:
    facts = {fact["name"]: fact for fact in json.loads(tessera("targets", "--json").stdout)}
    assert {"x86-64-v2", "x86-64-v3", "x86-64-v4", "native"} <= facts.keys()
    assert facts["native"]["runs_here"]
    assert "x86-64-v4" in tessera("targets").stdout


def test_quickstart_when_run_then_reports_accuracy_and_latency(tessera: Tessera, tmp_path: Path) -> None:
    done = tessera("quickstart", "-o", tmp_path / "digits.tessera", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["images"] == 540
    assert found["right"] / found["images"] >= 0.97
    assert [bench["sizes"]["batch"] for bench in found["benches"]] == [1, 540]
    assert (tmp_path / "digits.tessera").exists()


def test_command_when_started_as_a_process_then_exit_code_and_streams_are_the_documented(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from tessera_build.cli.main import main; main()", "inspect", "nowhere.tessera"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr.startswith("error[BUNDLE_NOT_FOUND]")


def test_group_when_walked_then_every_command_is_documented() -> None:
    assert isinstance(main, click.Group)
    assert all(command.help for command in main.commands.values())


def test_profile_when_asked_then_shows_a_line_a_kernel_and_writes_the_trace(
    tessera: Tessera, bundle_file: Path, tmp_path: Path
) -> None:
    words = ("profile", bundle_file, "--seconds", "0.1", "--threads", 1, "--dims", "batch=8")
    done = tessera(*words, "--trace", tmp_path / "run.json")
    assert done.exit_code == 0, done.output
    assert "of roof" in done.stdout
    assert "100.0%" not in done.stdout
    assert json.loads((tmp_path / "run.json").read_text())["traceEvents"][0]["name"] == "run"
    found = json.loads(tessera(*words, "--json").stdout)
    assert found["sizes"] == {"batch": 8}
    assert sum(row["share"] for row in found["rows"]) == pytest.approx(1.0)


@pytest.mark.parametrize("level", ["graph", "schedule", "tile", "target", "asm"])
def test_inspect_when_the_operator_was_fused_into_another_then_shows_the_task_that_computes_it(
    tessera: Tessera, bundle_file: Path, level: str
) -> None:
    done = tessera("inspect", bundle_file, "--op", "gate", "--level", level, "--target", "x86-64-v3")
    assert done.exit_code == 0, done.output
    assert len(done.stdout) > 40
