"""How commands speak: results on standard output, progress and errors on standard error.

Takes: events of a build, values to show.
Gives: a progress bar with an ETA on a terminal, plain lines elsewhere, JSON for machines.
Invariant: standard output holds the result and nothing else, so that it can be piped.
"""

import json
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import cast

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bundle_format.digest import Digest
from tessera_build.driver.footprint import Workspace
from tessera_build.driver.result import Event

Watch = Callable[[Event], None]

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")


def print_json(value: object) -> None:
    """One JSON object on standard output."""
    click.echo(json.dumps(plain(value), indent=2, sort_keys=True))


def plain(value: object) -> object:
    """Records, paths and digests as what JSON has."""
    if isinstance(value, Digest | Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in cast("Sequence[object]", value)]
    return value


@contextmanager
def watching(quiet: bool = False) -> Generator[Watch]:
    """What a build reports to: bars on a terminal, a line a stage elsewhere, nothing when quiet."""
    if quiet:
        yield lambda _event: None
    elif not sys.stderr.isatty():
        yield _line
    else:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description:<9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            yield _Bars(progress)


def _line(event: Event) -> None:
    """A line at the beginning of each stage and at each tenth of a long one."""
    if event.total == 0:
        click.echo(f"{event.stage} ...", err=True)
    elif event.total >= 20 and event.done * 10 // event.total > (event.done - 1) * 10 // event.total:
        click.echo(f"{event.stage} {event.done}/{event.total}", err=True)


class _Bars:
    """One bar a stage."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None, detail="")
        self._stage = ""

    def __call__(self, event: Event) -> None:
        if event.stage != self._stage:
            self._stage = event.stage
            self._progress.remove_task(self._task)
            self._task = self._progress.add_task(event.stage, total=None, detail="")
        detail = event.detail[:40]
        self._progress.update(self._task, completed=event.done, total=event.total or None, detail=detail)


def workspace_text(found: Workspace) -> str:
    """The peak of an entry's working memory as a person reads it."""
    if found.bytes == str(found.most):
        return f"{found.entry}: {human_bytes(found.least)}"
    limits = f"at least {human_bytes(found.least)}"
    if found.most is not None:
        limits = f"{human_bytes(found.least)} to {human_bytes(found.most)}"
    return f"{found.entry}: {limits}, {found.bytes} bytes"


def human_bytes(count: int) -> str:
    """A size as a person reads it."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def human_seconds(seconds: float) -> str:
    """A time as a person reads it."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1 or unit == "µs":
            return f"{seconds * factor:.3g} {unit}"
    raise AssertionError
