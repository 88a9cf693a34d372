"""The files beside a model that it was made of, so that a build can name them all.

Takes paths as they are read; gives them to whoever runs the author's file. Invariant: a file that decides what is built
is part of the digest of its sources.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_READ: ContextVar[list[Path] | None] = ContextVar("tessera_sources", default=None)


@contextmanager
def recording() -> Generator[list[Path]]:
    """The files that are read inside the `with`, in order."""
    found: list[Path] = []
    token = _READ.set(found)
    try:
        yield found
    finally:
        _READ.reset(token)


def note_read(paths: Iterable[Path]) -> None:
    """Remember files, where somebody records."""
    found = _READ.get()
    if found is not None:
        found += [path for path in paths if path not in found]
