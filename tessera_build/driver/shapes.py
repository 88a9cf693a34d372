"""The shapes of a model's values, without building it.

Takes a path to a model in the language, dims and names of entries.
Gives `ModelShapes`. Invariant: what is shown is what a build with the same options would begin with.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tessera_build.frontends.python import ModelShapes, shapes_of


def shapes(
    model: str | Path,
    *,
    dims: Mapping[str, int | tuple[int, int]] | None = None,
    entries: Sequence[str] = (),
    all_values: bool = False,
) -> ModelShapes:
    """One row for each value of the model."""
    return shapes_of(model, dims=dims, entries=entries, all_values=all_values)
