"""The import contracts can fail: each is broken once, in a small house made for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT

# Contract -> (file that breaks it, its import).
BREACHES = {
    "Data flows down the house, imports never go back up": ("tessera_build/lower/low", "tessera_build.driver"),
    "The runtime shares only bundle_format with the compiler": ("tessera_runtime/host", "tessera_build.ir.core.node"),
    "Only what executes a bundle asks the runtime": ("tessera_build/frontends/odd", "tessera_runtime.host"),
    "Only frontends.python and kernels import the language": ("tessera_build/space/odd", "tessera.tile"),
    "In lower/, the graph level is seen by": ("tessera_build/lower/tile_to_target/a", "tessera_build.ir.graph.nodes"),
    "In lower/, the schedule level is seen by": (
        "tessera_build/lower/tile_to_target/b",
        "tessera_build.ir.schedule.nodes",
    ),
    "In lower/, the tile level is seen by": ("tessera_build/lower/graph_to_schedule/a", "tessera_build.ir.tile.nodes"),
    "In lower/, the target level is seen by": (
        "tessera_build/lower/graph_to_schedule/b",
        "tessera_build.ir.target.nodes",
    ),
    "Back ends see only Target IR and machine descriptions": (
        "tessera_build/backends/llvm/odd",
        "tessera_build.ir.tile.nodes",
    ),
    "Back ends do not know each other": ("tessera_build/backends/cuda/odd", "tessera_build.backends.llvm.emit"),
    "onnx is read and written in one room": ("tessera_build/verify/odd", "onnx"),
    "The reference runtime is asked in one room": ("tessera_build/cli/odd", "onnxruntime"),
    "Only back ends emit LLVM": ("tessera_build/lower/odd", "llvmlite"),
    "YAML is read in one room": ("tessera_build/tuner/odd", "yaml"),
    "Only the command line talks to a terminal": ("tessera_build/driver", "rich"),
    "The two packages of tessera-runtime need numpy and zstandard, nothing else": ("bundle_format/odd", "ml_dtypes"),
}


def build_house(top: Path, imports: dict[str, str]) -> None:
    """A tree of packages in which each file holds one import; what is imported exists, empty."""
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (top / "pyproject.toml").write_text(settings, encoding="utf-8")
    levels = tuple(f"tessera_build/ir/{level}" for level in ("graph", "schedule", "tile", "target"))
    for room in (
        "bundle_format",
        "tessera",
        "tessera_runtime",
        "tessera_build/lower",
        "tessera_build/backends",
        *levels,
    ):
        (top / room).mkdir(parents=True, exist_ok=True)
    own = [module.replace(".", "/") for module in imports.values() if module.startswith("tessera")]
    for path in (*own, *imports):
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / f"{path}.py").write_text(f"import {imports[path]}\n" if path in imports else "", encoding="utf-8")
    for folder in (path for path in top.rglob("*") if path.is_dir()):
        (folder / "__init__.py").touch()


def lint(top: Path) -> str:
    """What import-linter says of a tree."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    wide = os.environ | {"COLUMNS": "200"}  # a verdict stands on one line
    done = subprocess.run(command, cwd=top, capture_output=True, text=True, check=False, env=wide)
    assert "Contracts" in done.stdout, done.stdout + done.stderr
    return done.stdout


@pytest.mark.unit
def test_contracts_when_nothing_breaks_them_then_all_are_kept(tmp_path: Path) -> None:
    build_house(tmp_path, {"tessera_build/driver": "tessera_build.lower.low"})
    assert " 0 broken" in lint(tmp_path)


@pytest.mark.unit
def test_contracts_when_each_is_broken_then_each_says_so(tmp_path: Path) -> None:
    build_house(tmp_path, dict(BREACHES.values()))
    verdicts = [line for line in lint(tmp_path).splitlines() if line.endswith((" KEPT", " BROKEN"))]
    assert [line for line in verdicts if line.endswith(" KEPT")] == []
    assert len(verdicts) == len(BREACHES)
    for contract in BREACHES:
        assert any(line.startswith(contract) for line in verdicts), contract
