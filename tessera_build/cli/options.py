"""Options that several commands share, and how their values are read.

Takes: the words a person typed.
Gives: names and values; a word of the wrong form is a usage error that shows the right one.
Invariant: files are opened by the commands, never here.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import click

FILE = click.Path(path_type=Path)
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), help="Threads to run on. Default: what this process may use."
)
entry_option = click.option("--entry", help="Which of the bundle's entries. Default: the main one, or the first.")

_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMGT]?)(i?)B?")
_SIZE = re.compile(r"(\d+)(?:(?:\.\.|:)(\d+))?")


def split_targets(values: Sequence[str]) -> list[str]:
    """Target names from `--target a,b --target c`."""
    names = [name.strip() for value in values for name in value.split(",") if name.strip()]
    if values and not names:
        raise click.BadParameter("no target is named", param_hint="--target")
    return names


def read_dims(values: Sequence[str]) -> dict[str, int | tuple[int, int]]:
    """`N=4` fixes a dim, `N=1:64` (or `N=1..64`) bounds it; several are separated by commas, and each is said once."""
    found: dict[str, int | tuple[int, int]] = {}
    for word in (part for value in values for part in value.split(",")):
        name, equals, text = word.strip().rpartition("=")
        size = _SIZE.fullmatch(text)
        if not equals or not name or size is None:
            raise click.BadParameter(f"{word!r} is neither NAME=SIZE nor NAME=LOW:HIGH", param_hint="--dims")
        if name in found:
            raise click.BadParameter(f"dim {name} is given twice", param_hint="--dims")
        low, high = size.groups()
        found[name] = int(low) if high is None else (int(low), int(high))
    return found


def read_sizes(values: Sequence[str]) -> dict[str, int]:
    """`N=4` only."""
    found = read_dims(values)
    ranges = [name for name, size in found.items() if not isinstance(size, int)]
    if ranges:
        raise click.BadParameter(f"{ranges[0]} needs one size here: NAME=SIZE", param_hint="--dims")
    return {name: size for name, size in found.items() if isinstance(size, int)}


def read_seconds(_: click.Context, __: click.Parameter, value: float) -> float:
    """A time that ends."""
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is no finite number")
    return value


seconds_option = click.option(
    "--seconds",
    type=click.FloatRange(min=0.1),
    callback=read_seconds,
    default=5.0,
    show_default=True,
    help="How long to measure.",
)


def read_amount(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    """A number that other numbers can be compared with."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("it is not a number")
    return value


def read_bytes(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    """`16GiB`, `500 MB` or a plain number of bytes."""
    if value is None:
        return None
    found = _BYTES.fullmatch(value.strip())
    if found is None:
        raise click.BadParameter(f"{value!r} is no size: write it as 16GiB or 500MB")
    number, prefix, binary = found.groups()
    power = "KMGT".index(prefix.upper()) + 1 if prefix else 0
    return int(float(number) * (1024 if binary else 1000) ** power)
