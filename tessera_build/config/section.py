"""One mapping of a settings file, read key by key with a stated kind.

Takes: a YAML mapping node. Gives: a `Section`; the loader of a record calls `get` for each of its fields, then
`finish`. Invariant: when `finish` returns, every key of the file was asked for and every value was of the asked kind;
otherwise it raises one `ConfigError` that holds every problem of the file. So no record outlives a problem.
"""

import difflib
from dataclasses import dataclass, field
from typing import TypeVar

from yaml.nodes import MappingNode, Node, ScalarNode

from tessera_build.config.errors import ConfigError
from tessera_build.config.kinds import Kind

T = TypeVar("T")
D = TypeVar("D")


@dataclass(slots=True)
class Findings:
    """What the sections of one file share: the problems so far, each with its place, and the open sections."""

    problems: list[tuple[int, ConfigError]] = field(default_factory=list[tuple[int, ConfigError]])
    sections: "list[Section]" = field(default_factory=list["Section"])


class Section:
    """A mapping at `path` ("" at the top of the file). Its keys may be read in any order."""

    def __init__(self, node: MappingNode, file: str, path: str = "", findings: Findings | None = None) -> None:
        self._node = node
        self._file = file
        self._path = path
        self._findings = findings or Findings()
        self._findings.sections.append(self)
        self._asked: list[str] = []
        self._entries: dict[str, Node] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self._add(key, "CONFIG_KEY", "a key is one word", expected="a word")
            elif key.value in self._entries:
                self._add(key, "CONFIG_KEY_DOUBLED", f"'{self._name(key.value)}' is set twice", expected="one value")
            else:
                self._entries[key.value] = value

    def names(self) -> tuple[str, ...]:
        """The keys of this mapping, in file order."""
        return tuple(self._entries)

    def get(self, key: str, kind: Kind[T]) -> T:
        """The value of a key that must be set; a placeholder after a problem, which `finish` will raise."""
        if key in self._entries:
            return self.get_or(key, kind, kind.placeholder)
        self._asked.append(key)
        self._add(self._node, "CONFIG_KEY_MISSING", f"'{self._name(key)}' is not set", expected=kind.expected)
        return kind.placeholder

    def get_or(self, key: str, kind: Kind[T], default: D) -> T | D:
        """The value of a key, or `default` where it is absent or wrong."""
        self._asked.append(key)
        node = self._entries.get(key)
        if node is None:
            return default
        value = kind.read(node)
        if value is None:
            self._add(node, "CONFIG_VALUE", f"'{self._name(key)}' has a wrong value", expected=kind.expected)
            return default
        return value

    def section(self, key: str) -> "Section":
        """The mapping below a key; where it is absent, an empty one whose keys are absent in turn."""
        self._asked.append(key)
        node = self._entries.get(key)
        if node is not None and not isinstance(node, MappingNode):
            self._add(node, "CONFIG_VALUE", f"'{self._name(key)}' has a wrong value", expected="`key: value` lines")
            node = None
        absent = MappingNode("tag:yaml.org,2002:map", [], self._node.start_mark, self._node.end_mark)
        return Section(node or absent, self._file, self._name(key), self._findings)

    def refuse(self, key: str, message: str, expected: str) -> None:
        """Note that the value of a key, right by itself, does not fit the others."""
        self._add(self._entries.get(key, self._node), "CONFIG_VALUE", message, expected=expected)

    def finish(self) -> None:
        """Raise one `ConfigError` for every problem and every unknown key of the whole file, in file order."""
        for section in self._findings.sections:
            section._note_unknown_keys()
        problems = [problem for _, problem in sorted(self._findings.problems, key=lambda entry: entry[0])]
        if problems:
            raise ConfigError.of(problems)

    def _note_unknown_keys(self) -> None:
        """Note each key that no one asked for, with the nearest key that is known."""
        for node, _ in self._node.value:
            if isinstance(node, ScalarNode) and node.value not in self._asked:
                close = difflib.get_close_matches(str(node.value), self._asked, n=1)
                hint = f"did you mean '{close[0]}'?" if close else "remove it"
                message = f"unknown key '{self._name(node.value)}'"
                self._add(node, "CONFIG_KEY_UNKNOWN", message, expected=", ".join(self._asked), hint=hint)

    def _name(self, key: str) -> str:
        """The key with the sections it lies in, such as `cache_bytes.l1`."""
        return f"{self._path}.{key}" if self._path else key

    def _add(self, node: Node, code: str, message: str, *, expected: str, hint: str | None = None) -> None:
        """Note a problem at `file:line:column` of a node, counted from 1 as editors do."""
        mark = node.start_mark
        where = f"{self._file}:{mark.line + 1}:{mark.column + 1}"
        found = node.value if isinstance(node, ScalarNode) else None
        problem = ConfigError(code, message, where=where, expected=expected, found=found, hint=hint)
        self._findings.problems.append((mark.index, problem))
