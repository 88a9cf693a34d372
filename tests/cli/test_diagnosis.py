"""Every command of docs/diagnosis.md and what it says it does."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.cli.conftest import Tessera
from tests.driver.models import mlp

pytestmark = pytest.mark.cli
TEXT = (Path(__file__).parents[2] / "docs/diagnosis.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [line.split()[1:] for block in BLOCKS for line in block.splitlines()]


def test_commands_when_run_in_order_then_all_succeed(
    tessera: Tessera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(mlp(), "model.onnx")
    np.savez("inputs.npz", x=np.random.default_rng(0).standard_normal((5, 20)).astype(np.float32))
    assert len(COMMANDS) == 7
    for words in COMMANDS:
        done = tessera(*words)
        assert done.exit_code == 0, (words, done.stderr)
