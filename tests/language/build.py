"""Models in the language as tests use them: text becomes a file, the file a bundle that runs.

Takes the source of a model.py and inputs; gives outputs of compiled code. Invariant: what is compared is compiled code,
never the reference interpreter, unless a test says so.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

import tessera_build
import tessera_runtime
from tessera_build.ir.graph.nodes import Array

Floats = NDArray[np.float32]
HEAD = """\
from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f16, f32, f64, graph, i32, i64, op, u64
"""


def written(folder: Path, body: str, name: str = "model.py") -> Path:
    """The file of a model whose first line imports the language."""
    path = folder / name
    path.write_text(HEAD + textwrap.dedent(body), encoding="utf-8")
    return path


def compiled(
    folder: Path,
    body: str,
    inputs: Mapping[str, Array],
    *,
    entry: str | None = None,
    entries: Sequence[str] = (),
    verify: bool = False,
) -> dict[str, Floats]:
    """Build the model and run one entry of it on these inputs."""
    bundle = folder / "model.tessera"
    path = written(folder, body)
    tessera_build.build(path, targets=["native"], out=bundle, verify=verify, workers=1, entries=entries)
    with tessera_runtime.load(bundle, threads=1) as model:
        point = model.entries[entry] if entry else model.main
        found = point.run({name: np.array(array, order="C") for name, array in inputs.items()})
        return {name: cast(Floats, np.array(array)) for name, array in found.items()}


def draw(seed: int, *shape: int) -> Floats:
    """Standard normal numbers in float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
