"""What the language must refuse: each file below `models` is one misuse, with the error written under its place.

    return x @ W
    #      ^ TYPE_MISMATCH: matmul's contracted extents differ

The caret stands below the column that the error names, in the line before; `#^` names the column of its own `#`, and
`# line 1` the file's first line. A comment on top may give `dims` or an `entry`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tessera.errors import LanguageError
from tessera_build.cli.options import read_dims
from tessera_build.frontends.python import read_python

MODELS = sorted((Path(__file__).parent / "models").glob("*.py"))
_MARK = re.compile(r"^ *#(?: line (?P<line>\d+)| *(?P<caret>\^)) (?P<code>[A-Z_]+): (?P<message>.*)$")


@dataclass(frozen=True, slots=True)
class Expected:
    """The error that a file states."""

    where: str
    code: str
    message: str


def expected_of(path: Path) -> Expected:
    """Read the mark of a file."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        mark = _MARK.match(line)
        if mark is None:
            continue
        sign = "#" if "#^" in line or mark["caret"] is None else "^"
        column = 1 if mark["line"] else line.index(sign) + 1
        place = int(mark["line"]) if mark["line"] else number
        return Expected(f"{path.name}:{place}:{column}", mark["code"], mark["message"])
    raise AssertionError(f"{path.name} states no error")


def options_of(path: Path) -> tuple[list[str], list[str]]:
    """Dims and entries that a file asks for."""
    text = path.read_text(encoding="utf-8")
    return re.findall(r"^# dims (.*)$", text, re.MULTILINE), re.findall(r"^# entry (.*)$", text, re.MULTILINE)


@pytest.mark.errors
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_misuse_when_read_then_is_refused_at_the_authors_place(path: Path) -> None:
    expected = expected_of(path)
    dims, entries = options_of(path)
    with pytest.raises(LanguageError) as caught:
        read_python(path, dims=read_dims(dims), entries=entries)
    error = caught.value
    assert (error.code, error.where) == (expected.code, expected.where), error.diagnostics()
    assert error.message.startswith(expected.message)
    assert "^" in error.diagnostics() or expected.where.endswith(":1:1")


@pytest.mark.errors
def test_misuse_when_counted_then_forty_kinds_are_refused() -> None:
    assert len(MODELS) >= 40


@pytest.mark.errors
def test_file_when_it_is_no_python_then_the_place_of_the_mistake_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text('@graph.module("m")\ndef m(x: Tensor["B", 4]:\n    return x\n', encoding="utf-8")
    with pytest.raises(LanguageError) as caught:
        read_python(path)
    assert (caught.value.code, caught.value.where) == ("PYTHON_SYNTAX", "broken.py:2:24")
    assert '     2 | def m(x: Tensor["B", 4]:' in caught.value.diagnostics()


@pytest.mark.errors
def test_annotation_when_it_is_a_text_that_cannot_be_read_then_the_error_says_why(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    text = 'from tessera import Tensor, graph\n\n\n@graph.module("m")\ndef m(x: "Tensor[3, f99]"):\n    return x\n'
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LanguageError) as caught:
        read_python(path)
    assert (caught.value.code, caught.value.where) == ("INPUT_WITHOUT_TYPE", "model.py:5:1")
    assert "name 'f99' is not defined" in caught.value.diagnostics()
