"""Files that commands write beside bundles: arrays, traces.

Takes: a path and what writes to a file. Gives: the file, all of it or nothing.
Invariant: what the operating system refuses is a `HostError` that names the path.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tessera_build.config import ConfigError, HostError


@contextmanager
def whole_file(path: Path) -> Generator[IO[bytes]]:
    """A file to write; what stood at `path` is replaced where the block ends without an error."""
    partial = path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")
    try:
        with partial.open("xb") as file:
            yield file
        partial.replace(path)
    except OSError as error:
        raise _unwritable(path, error.strerror) from error
    finally:
        partial.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Find out before the work, not after it, that a file has no place to go."""
    if path.is_dir():
        raise _unwritable(path, "it is a folder")
    if not os.access(path.absolute().parent, os.W_OK):
        raise _unwritable(path, "its folder is not there, or may not be written")


def check_apart(path: Path, *read: Path) -> None:
    """Refuse an output that would overwrite a file that the command reads."""
    for other in read:
        if path.exists() and other.exists() and path.samefile(other):
            raise ConfigError(
                "OUTPUT_IS_INPUT",
                "the output would overwrite a file that is read",
                where=str(path),
                hint="choose another path",
            )


def _unwritable(path: Path, reason: str | None) -> HostError:
    return HostError("OUTPUT_UNWRITABLE", f"the file cannot be written: {reason}", where=str(path))
