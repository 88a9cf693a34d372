"""Runs an author's file in a namespace of its own.

Takes a path; gives the file's names and the files that it was made of, for as long as the `with` lasts. Invariant: the
process is afterwards as before: no module of the author's stays imported, and what the file prints goes to standard
error, never among a command's results.
"""

from __future__ import annotations

import contextlib
import linecache
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType

from bundle_format.errors import TesseraError
from tessera.errors import LanguageError
from tessera.model.site import Site, traceback_site
from tessera.model.sources import recording
from tessera_build.frontends.python.hints import hint_of

_PREFIX = "tessera_author_"


@dataclass(frozen=True, slots=True)
class Executed:
    """The names that a file defines, in order, the files in its folder that it imported, and those that it read."""

    path: Path
    names: dict[str, object]
    local: tuple[Path, ...]
    read: list[Path]

    @property
    def imported(self) -> tuple[Path, ...]:
        """All files that the model is made of so far, but for its own."""
        return (*self.local, *self.read)


@contextmanager
def executed(path: Path) -> Generator[Executed]:
    """Run the file; raises `LanguageError` at the line that fails."""
    source = _source(path)
    linecache.checkcache()
    module = ModuleType(_PREFIX + path.stem)
    module.__file__ = str(path)
    folder = str(path.parent.resolve())
    known = set(sys.modules)
    sys.modules[module.__name__] = module
    sys.path.insert(0, folder)
    try:
        with recording() as read:
            with author_errors(path), contextlib.redirect_stdout(sys.stderr):
                exec(_compiled(source, path), module.__dict__)
            yield Executed(path, dict(module.__dict__), _local(known, Path(folder)), read)
    finally:
        sys.path.remove(folder)
        for name in [n for n, m in sys.modules.items() if n not in known and _inside(m, Path(folder))]:
            del sys.modules[name]
        sys.modules.pop(module.__name__, None)


@contextmanager
def author_errors(path: Path) -> Generator[None]:
    """Whatever the author's code raises becomes a `LanguageError` at its innermost line in the author's files."""
    try:
        yield
    except LanguageError:
        raise
    except TesseraError as error:
        site = traceback_site(error.__traceback__)
        raise LanguageError(
            error.code, error.message, site=site, expected=error.expected, found=error.found, hint=error.hint
        ) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        site = traceback_site(error.__traceback__) or Site(str(path), 1)
        raise LanguageError(
            "AUTHOR_CODE_FAILED", f"{type(error).__name__}: {error}"[:500], site=site, hint=hint_of(error)
        ) from error


def _source(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise LanguageError("NO_MODEL", f"the model cannot be read: {reason}: {path}", site=None) from error


def _compiled(source: bytes, path: Path) -> CodeType:
    try:
        return compile(source, str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        column = getattr(error, "offset", None) or 1
        site = Site(str(path), line, max(1, column))
        raise LanguageError("PYTHON_SYNTAX", f"the file is no Python: {error.args[0]}", site=site) from error


def _local(known: set[str], folder: Path) -> tuple[Path, ...]:
    """Files of the folder that were imported beside the model."""
    found = [m.__file__ for n, m in list(sys.modules.items()) if n not in known and _inside(m, folder)]
    return tuple(sorted(Path(name) for name in found if name))


def _inside(module: object, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and Path(file).resolve().is_relative_to(folder) and "site-packages" not in file
