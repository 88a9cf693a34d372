"""Options that several commands share, and how their values are read.

Takes: the words a person typed.
Gives: names and values; a word of the wrong form is a usage error that shows the right one.
Invariant: files are opened by the commands, never here.
"""

from collections.abc import Sequence
from pathlib import Path

import click

FILE = click.Path(path_type=Path)
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), help="Threads to run on. Default: what this process may use."
)


def split_targets(values: Sequence[str]) -> list[str]:
    """Target names from `--target a,b --target c`."""
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def read_dims(values: Sequence[str]) -> dict[str, int | tuple[int, int]]:
    """`N=4` fixes a dim, `N=1..64` bounds it."""
    found: dict[str, int | tuple[int, int]] = {}
    for value in values:
        name, equals, text = value.rpartition("=")
        low, dots, high = text.partition("..")
        if not equals or not name or not low.isdigit() or (dots and not high.isdigit()):
            raise click.BadParameter(f"{value!r} is neither NAME=SIZE nor NAME=LOW..HIGH", param_hint="--dim")
        found[name] = (int(low), int(high)) if dots else int(low)
    return found


def read_sizes(values: Sequence[str]) -> dict[str, int]:
    """`N=4` only."""
    found = read_dims(values)
    ranges = [name for name, size in found.items() if not isinstance(size, int)]
    if ranges:
        raise click.BadParameter(f"{ranges[0]} needs one size here: NAME=SIZE", param_hint="--dim")
    return {name: size for name, size in found.items() if isinstance(size, int)}
