"""The source tree as data: its Python files and the sizes of their functions.

Takes: the repository's own files. Gives: measurements, sorted; run as a module, it prints the ten largest of each,
where a reviewer looks first. Invariant: only files that git would carry are seen, so build products cannot fail a test.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("benchmarks", "bundle_format", "examples", "packaging", "tessera", "tessera_build", "tessera_runtime", "tests")


@dataclass(frozen=True, order=True, slots=True)
class Size:
    """How many lines a file or a function has, and where it stands."""

    lines: int
    where: str


def python_files() -> list[Path]:
    """Every Python file of the house, sorted."""
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def file_sizes() -> list[Size]:
    """The files, the longest first."""
    sizes = [Size(path.read_text(encoding="utf-8").count("\n"), _name(path)) for path in python_files()]
    return sorted(sizes, reverse=True)


def function_sizes() -> list[Size]:
    """The functions, the longest first; decorators are not counted, docstrings are."""
    return sorted(
        (size for path in python_files() for size in functions_of(path.read_text("utf-8"), _name(path))), reverse=True
    )


def functions_of(source: str, name: str) -> Iterator[Size]:
    """The functions of one file's text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield Size(lines, f"{name}:{node.lineno} {node.name}")


def _name(path: Path) -> str:
    """The path as a person writes it from the top of the tree."""
    return path.relative_to(ROOT).as_posix()


def main() -> None:
    """Print the ten largest files and the ten largest functions."""
    for title, sizes in (("files", file_sizes()), ("functions", function_sizes())):
        print(f"ten largest {title}")
        for size in sizes[:10]:
            print(f"  {size.lines:4}  {size.where}")


if __name__ == "__main__":
    main()
