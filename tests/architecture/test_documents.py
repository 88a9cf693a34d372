"""What the documents claim exists: commands, options, extras, files and exit codes."""

import importlib
import pkgutil
import re
import tomllib
from pathlib import Path

import click
import pytest

import bundle_format
import tessera
import tessera_build
import tessera_runtime
from bundle_format.errors import TesseraError
from tessera_build.cli.main import main
from tests.architecture.tree import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")))
PACKAGES = (bundle_format, tessera, tessera_build, tessera_runtime)


def readme_commands() -> list[str]:
    """The lines of README's fenced blocks that call `tessera`."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("tessera ")]


def command_named(name: str) -> click.Command:
    """The command of the command line that has this name."""
    assert isinstance(main, click.Group)
    assert name in main.commands, f"`tessera {name}` does not exist"
    return main.commands[name]


@pytest.mark.cli
@pytest.mark.parametrize("line", readme_commands())
def test_readme_command_when_looked_up_then_it_and_its_options_exist(line: str) -> None:
    _, name, *words = line.split()
    known = {option for parameter in command_named(name).params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known


@pytest.mark.cli
def test_readme_when_read_then_shows_each_command() -> None:
    shown = {line.split()[1] for line in readme_commands()}
    assert isinstance(main, click.Group)
    assert shown == set(main.commands)


@pytest.mark.unit
def test_readme_extras_when_looked_up_then_they_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = {name for group in re.findall(r"pip install '\.\[([\w,-]+)\]'", README) for name in group.split(",")}
    assert "dev" in named
    assert named <= set(extras)


@pytest.mark.unit
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_when_followed_then_their_files_exist(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def error_classes() -> list[type[TesseraError]]:
    """Every error class that any module of the house defines."""
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)
    found, waiting = [TesseraError], [TesseraError]
    while waiting:
        kinds = waiting.pop().__subclasses__()
        found += kinds
        waiting += kinds
    return [kind for kind in found if not kind.__module__.startswith("tests.")]


@pytest.mark.errors
def test_exit_codes_when_compared_with_the_document_then_both_say_the_same() -> None:
    text = (ROOT / "docs/exit-codes.md").read_text(encoding="utf-8")
    rows = {int(number): row for number, row in re.findall(r"^\| (\d) (\|.*)$", text, flags=re.MULTILINE)}
    named = {(name, number) for number, row in rows.items() for name in re.findall(r"`(\w+Error)`", row)}
    actual = {(kind.__name__, kind.exit_code) for kind in error_classes()}
    assert named <= actual
    assert {number for _, number in actual} <= set(rows)
