"""What one build is asked for, beyond the model itself.

Takes: a YAML file (`tessera build --config`). Gives: a frozen `BuildConfig`, every field of which has a default.
Invariant: the defaults here and those shown in `configs/build/default.yaml` are the same; a test compares them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tessera_build.config.document import find_document, read_document
from tessera_build.config.kinds import WORD, choice, integer, words
from tessera_build.config.section import Section

LEVELS: Final = ("graph", "schedule", "tile", "target")


@dataclass(frozen=True, slots=True)
class DimBounds:
    """The sizes a symbolic dimension may take, both ends included; `maximum` None: no bound."""

    name: str
    minimum: int = 1
    maximum: int | None = None


@dataclass(frozen=True, slots=True)
class BuildConfig:
    """A build's options. `precision` names a policy or a file; `threads` None: as many as this process may use.

    `threads` is the number of compile workers; it never changes the bytes of the bundle.
    """

    targets: tuple[str, ...] = ("native",)
    precision: str = "fp32"
    threads: int | None = None
    dims: tuple[DimBounds, ...] = ()
    levels: tuple[str, ...] = ("graph", "schedule", "tile")


def load_build(name_or_path: str | Path) -> BuildConfig:
    """Build options from a YAML file; `ConfigError` for anything that is not understood."""
    top = read_document(find_document("build", name_or_path))
    default = BuildConfig()
    config = BuildConfig(
        targets=top.get_or("targets", words(WORD), default.targets),
        precision=top.get_or("precision", WORD, default.precision),
        threads=top.get_or("threads", integer(1), default.threads),
        dims=_dims(top.section("dims")),
        levels=top.get_or("levels", words(choice(*LEVELS)), default.levels),
    )
    if not config.targets:
        top.refuse("targets", "'targets' is empty", "at least one target")
    top.finish()
    return config


def _dims(section: Section) -> tuple[DimBounds, ...]:
    """The bounds of each named dimension, in the order of the file."""
    bounds: list[DimBounds] = []
    for name in section.names():
        dim = section.section(name)
        minimum = dim.get_or("min", integer(0), 1)
        maximum = dim.get_or("max", integer(0), None)
        if maximum is not None and maximum < minimum:
            dim.refuse("max", f"the bounds of dimension '{name}' are empty", f"a max of at least {minimum}")
        bounds.append(DimBounds(name, minimum, maximum))
    return tuple(bounds)
