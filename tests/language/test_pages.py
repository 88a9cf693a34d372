"""Every block of the page of examples is a model that builds with proof and runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import tessera_build
import tessera_runtime
from tessera_runtime import EntryPoint

PAGE = Path(__file__).parents[2] / "docs" / "language-by-example.md"
BLOCKS = dict(re.findall(r"^## (.*?)\n.*?```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S | re.M))


def _feeds(point: EntryPoint) -> dict[str, np.ndarray]:
    """Normal numbers in the type of each input, unknown dims 3."""
    generator, feeds = np.random.default_rng(0), dict[str, np.ndarray]()
    for value in point.inputs:
        shape = [extent if isinstance(extent, int) else 3 for extent in value.shape]
        feeds[value.name] = generator.standard_normal(shape).astype(np.float32) * 0.3
    return feeds


@pytest.mark.numerics
@pytest.mark.parametrize("title", BLOCKS)
def test_page_when_a_block_is_built_then_it_is_proved_and_runs(title: str, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(BLOCKS[title], encoding="utf-8")
    bundle = tmp_path / "out.tessera"
    result = tessera_build.build(tmp_path / "model.py", ["native"], bundle, workers=1)
    assert result.verification[0].cases
    with tessera_runtime.load(bundle, threads=1) as model:
        for point in model.entries.values():
            if not point.states and all(value.dtype == "f32" for value in point.inputs):
                assert all(np.isfinite(array).all() for array in point.run(_feeds(point)).values())
