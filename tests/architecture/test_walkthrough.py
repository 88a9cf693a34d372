"""docs/architecture.md shows real IR: every line of its `mlir` blocks is in what the command above it prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from tessera_build.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"```mlir\n// tessera (inspect .*?)\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the walkthrough."""
    path = tmp_path_factory.mktemp("walkthrough") / "digits.tessera"
    model = str(ROOT / "examples" / "digits" / "digits.onnx")
    result = CliRunner().invoke(main, ["build", model, "--target", "x86-64-v4", "-o", str(path)])
    assert result.exit_code == 0, result.output
    return path


def test_walkthrough_when_its_commands_run_then_they_print_what_it_shows(digits: Path) -> None:
    blocks = _BLOCK.findall((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 5
    for command, lines in blocks:
        arguments = command.replace("digits.tessera", str(digits)).split()
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        for line in filter(None, lines.splitlines()):
            assert line.strip().removesuffix("…") in result.output, (command, line)
