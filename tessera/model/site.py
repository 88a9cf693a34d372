"""Places in the author's files: who called the language, from which line and column.

Takes nothing but the interpreter's own frames; gives a `Site` that prints as `file:line:column`, with the source line
and a caret. Invariant: a site is never a line of the language or of the compiler, and its span holds a file's name
alone, so that no folder of this machine enters an IR. A package that is installed is the author's only where the model
lies in it: numpy's lines between a model's line and the language are not.
"""

from __future__ import annotations

import linecache
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import CodeType, FrameType, TracebackType

from tessera_build.ir.core.node import Span

_HOUSE = tuple(
    str(Path(__file__).resolve().parents[2] / room) + "/"
    for room in ("tessera", "tessera_build", "tessera_runtime", "bundle_format")
)
_READER = str(Path(__file__).resolve().parents[2] / "tessera_build/frontends/python") + "/"
_PYTHON = str(Path(linecache.__file__).resolve().parent) + "/"
_INSTALLED = ("/site-packages/", "/dist-packages/")


@dataclass(frozen=True, slots=True)
class Site:
    """A piece of a source file; lines and columns count from 1, the end column is the first one behind it."""

    path: str
    line: int
    column: int = 1
    end_line: int = 0
    end_column: int = 0

    def __str__(self) -> str:
        return str(self.span)

    @property
    def span(self) -> Span:
        """The place as nodes of IR carry it."""
        return Span(Path(self.path).name, self.line, self.column)

    @property
    def text(self) -> str:
        """The source line; empty where the file cannot be read."""
        return linecache.getline(self.path, self.line).rstrip("\n")

    @property
    def expression(self) -> str:
        """The piece itself, cut at the end of its first line."""
        encoded = self.text.encode()
        end = self.end_column - 1 if self.end_line == self.line and self.end_column else len(encoded)
        return encoded[self.column - 1 : end].decode(errors="replace").strip()

    def described(self) -> str:
        """The place with what stands there."""
        expression = self.expression
        return f"{self}: {expression}" if expression else str(self)

    def excerpt(self) -> list[str]:
        """The source line and a caret under the piece, indented for a message; nothing where there is no source."""
        text = self.text
        if not text:
            return []
        margin = f"{self.line:>6} | "
        start = len(text.encode()[: self.column - 1].decode(errors="replace"))
        width = max(1, len(self.expression))
        return [f"{margin}{text}", f"{' ' * 6} | {' ' * start}{'^' * width}"]


def is_ours(path: str) -> bool:
    """Whether a file belongs to the language, to the compiler or to Python itself."""
    if path == "<string>":  # what dataclasses write
        return True
    return path.startswith(_HOUSE) or (path.startswith(_PYTHON) and not _installed(path))


def _installed(path: str) -> bool:
    """Whether a file lies in a package that pip or a distribution installed."""
    return any(folder in path for folder in _INSTALLED)


def author_frame() -> FrameType | None:
    """The innermost frame of the author's code; of an installed package's, where there is none of a file beside it.

    What called the reader of a model, click or pytest, is not the model's.
    """
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    installed: FrameType | None = None
    while frame is not None and not frame.f_code.co_filename.startswith(_READER):
        path = frame.f_code.co_filename
        if not is_ours(path):
            if not _installed(path):
                return frame
            installed = installed or frame
        frame = frame.f_back
    return installed


def here() -> Site | None:
    """The author's expression that is being evaluated; None where there is no author."""
    frame = author_frame()
    return None if frame is None else _site(frame.f_code, frame.f_lasti, frame.f_lineno)


def definition_site(code: CodeType) -> Site:
    """The line that a function is defined on: that of its `def`, below its decorators."""
    line = code.co_firstlineno
    for number in range(line, line + 50):
        text = linecache.getline(code.co_filename, number)
        stripped = text.lstrip()
        if stripped.startswith(("def ", "async def ", "class ", "lambda")) or "lambda" in stripped:
            return Site(code.co_filename, number, len(text) - len(stripped) + 1)
    return Site(code.co_filename, line)


def traceback_site(traceback: TracebackType | None) -> Site | None:
    """The innermost place of the author in the traceback of an exception; of an installed package's, as above."""
    found: Site | None = None
    installed: Site | None = None
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if _installed(code.co_filename) and not is_ours(code.co_filename):
            installed = _site(code, traceback.tb_lasti, traceback.tb_lineno)
        elif not is_ours(code.co_filename) and not code.co_filename.startswith("<"):
            found = _site(code, traceback.tb_lasti, traceback.tb_lineno)
        traceback = traceback.tb_next
    return found or installed


def _site(code: CodeType, instruction: int, fallback: int | None) -> Site:
    """The source positions of one instruction."""
    position = next(islice(code.co_positions(), instruction // 2, None), (None, None, None, None))
    line, end_line, column, end_column = position
    if line is None or column is None:
        return Site(code.co_filename, line or fallback or code.co_firstlineno)
    return Site(code.co_filename, line, column + 1, end_line or line, (end_column or column) + 1)
