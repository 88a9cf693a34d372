"""Every command of docs/schedules.md, and that its table has every step."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import onnx
import pytest

from tessera_build.ir.schedule.program_text import parse_named
from tessera_build.ir.schedule.trace_text import STEPS
from tests.architecture.tree import ROOT
from tests.cli.conftest import Tessera
from tests.driver.models import mlp

pytestmark = pytest.mark.cli
TEXT = (ROOT / "docs/schedules.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^(?:tessera|python) .*$", TEXT, re.M)


def test_commands_when_run_in_order_then_all_succeed(
    tessera: Tessera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(mlp(), "model.onnx")
    assert len(COMMANDS) == 4
    for command in COMMANDS:
        words, _, file = command.partition(" > ")
        program, *rest = shlex.split(words)
        if program == "python":
            first = _python(rest)
            known = Path(rest[-1]).read_bytes()
            assert "1 of 1 tasks" in first
            assert _python(rest) == first  # all is known
            assert Path(rest[-1]).read_bytes() == known
            continue
        result = tessera(*rest)
        assert result.exit_code == 0, (words, result.stderr)
        if file:
            Path(file).write_text(result.stdout, encoding="utf-8")


def _python(words: list[str]) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *words], env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.unit
def test_document_when_read_then_its_table_has_every_step_and_field() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", TEXT, re.M))
    assert rows.keys() == STEPS.keys()
    for name, cells in rows.items():
        wanted = {field.name for field in fields(STEPS[name])} - {"effect"}
        assert wanted == set(re.findall(r"`(\w+)`", cells)), name


@pytest.mark.unit
def test_document_when_its_example_is_parsed_then_it_is_a_schedule() -> None:
    (example,) = re.findall(r"^```mlir\n(// comments.*?)^```$", TEXT, re.M | re.S)
    (entry,) = parse_named(example)
    assert entry.schedule.factors() == {"_d0": 4, "_d1": 16}
