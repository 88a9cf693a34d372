"""Schedules of named tasks as text: what a person writes to override some, and what a bundle's schedule level prints.

Takes text: `"tsched.task"() <{node = "name", trace = [{step = …}, …]}>`, one after the other or inside a
`"tsched.program"`, each with or without its definitions; gives names and schedules in their order. Invariant: what a
bundle prints parses, and what is printed here parses to what was printed; definitions are passed over, not believed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tessera_build.ir.core.attributes import Attr
from tessera_build.ir.core.text.lexer import Lexer
from tessera_build.ir.core.text.literals import print_dictionary
from tessera_build.ir.core.text.values import ValueParser
from tessera_build.ir.schedule.trace import Schedule
from tessera_build.ir.schedule.trace_text import decode_step, step_attributes

TASK: Final = "tsched.task"
PROGRAM: Final = "tsched.program"
_CLOSING: Final = {"(": ")", "{": "}"}


@dataclass(frozen=True, slots=True)
class NamedSchedule:
    """The schedule of the task that begins at a node of this name."""

    node: str
    schedule: Schedule


def print_named(entries: Iterable[NamedSchedule]) -> str:
    """One task a line."""
    lines: list[str] = []
    for entry in entries:
        trace = tuple(step_attributes(step) for step in entry.schedule.steps)
        lines.append(f'"{TASK}"() <{print_dictionary({"node": entry.node, "trace": trace})}>\n')
    return "".join(lines)


def parse_named(text: str) -> tuple[NamedSchedule, ...]:
    """Every task's name and schedule; a `TextError` points at what is wrong."""
    return _Reader(text).tasks("end")


class _Reader:
    """A cursor over one file."""

    def __init__(self, text: str) -> None:
        self._lexer = Lexer(text)
        self._values = ValueParser(self._lexer)

    def tasks(self, end: str) -> tuple[NamedSchedule, ...]:
        """Tasks until the text, or the program around them, ends."""
        found: list[NamedSchedule] = []
        while self._lexer.token.kind != end and not self._lexer.at(end):
            found += self._operation()
        return tuple(found)

    def _operation(self) -> tuple[NamedSchedule, ...]:
        lexer, offset = self._lexer, self._lexer.token.offset
        name = self._values.string()
        if name not in {TASK, PROGRAM}:
            lexer.fail(f'"{TASK}" belongs here', offset)
        lexer.expect("(")
        lexer.expect(")")
        if name == PROGRAM:
            lexer.expect("(")
            lexer.expect("{")
            found = self.tasks("}")
            lexer.expect("}")
            lexer.expect(")")
        else:
            found = (self._task(),)
        self._signature()
        return found

    def _task(self) -> NamedSchedule:
        lexer = self._lexer
        lexer.expect("<")
        offset = lexer.token.offset
        fields = self._values.dictionary()
        lexer.expect(">")
        node, trace = fields.get("node"), fields.get("trace")
        if not isinstance(node, str) or not isinstance(trace, tuple):
            lexer.fail('a task has node = "its name" and trace = [its steps]', offset)
        steps = tuple(decode_step(_fields(step), lexer, offset) for step in trace)
        if lexer.at("("):
            self._skip()
        return NamedSchedule(node, Schedule(steps))

    def _skip(self) -> None:
        """Step over the definitions: everything up to the parenthesis that closes this one."""
        open_: list[str] = []
        while True:
            token = self._lexer.token
            if token.kind == "end":
                self._lexer.fail("the definitions of a task do not end")
            if token.kind == "sign" and token.text in _CLOSING:
                open_.append(_CLOSING[token.text])
            elif token.kind == "sign" and token.text in _CLOSING.values() and open_.pop() != token.text:
                self._lexer.fail("this closes nothing that is open")
            self._lexer.advance()
            if not open_:
                return

    def _signature(self) -> None:
        """`: () -> ()`, which a person may leave out."""
        if self._lexer.accept(":"):
            for sign in ("(", ")", "->", "(", ")"):
                self._lexer.expect(sign)


def _fields(value: Attr) -> dict[str, Attr]:
    return dict(value) if isinstance(value, dict) else {}
