"""A model to be compared: where its file, its inputs and what peers make of it lie.

Takes a folder, a name and a number of threads; gives paths and inputs. Invariant: artifacts of other numbers of threads
are other files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tessera_build.ir.graph.nodes import Array


@dataclass(frozen=True, slots=True)
class Case:
    """A model in `folder`: NAME.onnx and NAME.npz; what peers make of it goes into `folder`/artifacts."""

    name: str
    folder: Path
    threads: int

    @property
    def model(self) -> Path:
        """The ONNX file."""
        return self.folder / f"{self.name}.onnx"

    def feeds(self) -> dict[str, Array]:
        """The inputs by name."""
        with np.load(self.folder / f"{self.name}.npz") as found:
            return {name: found[name] for name in found.files}

    def artifact(self, peer: str, suffix: str) -> Path:
        """Where a peer's artifact lies."""
        folder = self.folder / "artifacts"
        folder.mkdir(exist_ok=True)
        return folder / f"{self.name}.{peer}.{self.threads}.{suffix}"
