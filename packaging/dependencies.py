"""A hook of hatchling: what tessera-build depends on.

Takes: the requirements of `[tool.hatch.metadata.hooks.custom]`. Gives: those and `tessera-runtime`, which owns the
packages `bundle_format` and `tessera_runtime`, so that no file belongs to two distributions.
Invariant: a wheel made for others (`TESSERA_RELEASE=1`) names the runtime by version; one made from a tree, by
`pip install .`, takes it from the same tree, for no index has a runtime that fits an unreleased compiler.
"""

import os
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Dependencies(MetadataHookInterface):
    """Fills in `project.dependencies`, which the settings declare to be dynamic."""

    def update(self, metadata: dict[str, object]) -> None:
        """Add the runtime to the requirements."""
        folder = Path(self.root) / "packaging" / "runtime"
        runtime = f"== {metadata['version']}" if os.environ.get("TESSERA_RELEASE") else f"@ {folder.as_uri()}"
        metadata["dependencies"] = [*self.config["requirements"], f"tessera-runtime {runtime}"]
