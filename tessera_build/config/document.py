"""A YAML file as a tree of marked nodes, and the names it can be found by.

Takes: the name of a standard file (`fp32`) or a path to a user's own.
Gives: its top mapping, whose nodes remember line and column, as a `Section`.
Invariant: no YAML value is interpreted here; a file that is not one mapping is a `ConfigError`.
"""

import difflib
from pathlib import Path

import yaml
from yaml.nodes import MappingNode, Node

from tessera_build.config.errors import ConfigError
from tessera_build.config.resources import resource
from tessera_build.config.section import Section

SUFFIXES = (".yaml", ".yml")


def standard_names(folder: str) -> tuple[str, ...]:
    """The names of the files in `configs/<folder>`, sorted."""
    return tuple(sorted(path.stem for path in resource(f"configs/{folder}").glob("*.yaml")))


def find_document(folder: str, name_or_path: str | Path) -> Path:
    """The file that a person means: a path if it looks like one, else the name of a standard file."""
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(SUFFIXES) or "/" in text:
        return Path(name_or_path)
    names = standard_names(folder)
    if text in names:
        return resource(f"configs/{folder}/{text}.yaml")
    close = difflib.get_close_matches(text, names, n=1)
    raise ConfigError(
        "CONFIG_NAME_UNKNOWN",
        f"there is no {folder} setting named '{text}'",
        expected=", ".join(names),
        found=text,
        hint=f"did you mean '{close[0]}'?" if close else "use one of these names, or a path that ends in .yaml",
    )


def read_document(path: Path) -> Section:
    """The top mapping of a YAML file."""
    node = _compose(path)
    if not isinstance(node, MappingNode):
        raise ConfigError(
            "CONFIG_NOT_A_MAPPING",
            "a settings file holds `key: value` lines",
            where=str(path),
            expected="a mapping",
            found="an empty file" if node is None else "a list or a single value",
        )
    return Section(node, str(path))


def _compose(path: Path) -> Node | None:
    """YAML's own tree of the file; unreadable files and broken syntax become a `ConfigError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError("CONFIG_UNREADABLE", f"cannot read the settings: {reason}", where=str(path)) from error
    try:
        return yaml.SafeLoader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark is not None else str(path)
        raise ConfigError("CONFIG_SYNTAX", f"not YAML: {error.problem or error.context}", where=where) from error
    except yaml.YAMLError as error:
        raise ConfigError("CONFIG_SYNTAX", "not YAML", where=str(path), found=str(error)) from error
