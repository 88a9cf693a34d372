"""Schedules as text: one step a line, each as MLIR prints a dictionary; the text of a file that overrides a schedule.

Takes a `Schedule`; gives text, and takes it back. Invariant: parsing what was printed gives an equal schedule, and a
step that this module has never heard of cannot be printed, because the table is made from the union of all steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast, get_args, get_origin

from tessera_build.ir.core.attributes import Attr, decode_fields, encode_fields, field_annotations
from tessera_build.ir.core.text.lexer import Lexer
from tessera_build.ir.core.text.literals import print_dictionary
from tessera_build.ir.core.text.values import ValueParser
from tessera_build.ir.schedule.trace import Schedule, Step

STEPS: dict[str, type] = {cls.__name__.lower(): cls for cls in get_args(Step)}


def step_attributes(step: Step) -> dict[str, Attr]:
    """A step as a dictionary of attributes."""
    return {"step": type(step).__name__.lower()} | encode_fields(step)


def print_step(step: Step) -> str:
    """One step on one line."""
    return print_dictionary(step_attributes(step))


def print_schedule(schedule: Schedule) -> str:
    """One line a step."""
    return "".join(print_step(step) + "\n" for step in schedule.steps)


def parse_schedule(text: str) -> Schedule:
    """What `print_schedule` printed, or a person wrote; a `TextError` points at what is wrong."""
    lexer = Lexer(text)
    values = ValueParser(lexer)
    steps: list[Step] = []
    while lexer.token.kind != "end":
        offset = lexer.token.offset
        steps.append(decode_step(values.dictionary(), lexer, offset))
    return Schedule(tuple(steps))


def decode_step(fields: Mapping[str, Attr], lexer: Lexer, offset: int) -> Step:
    """The step that a dictionary means; what is wrong with it is at `offset` of the text."""
    name = fields.get("step")
    if not isinstance(name, str) or name not in STEPS:
        lexer.fail(f"no step is called {name!r}; there are {', '.join(sorted(STEPS))}", offset)
    try:
        step = decode_fields({k: v for k, v in fields.items() if k != "step"}, STEPS[name])
    except ValueError as error:
        lexer.fail(str(error), offset)
    for field, annotation in field_annotations(STEPS[name]).items():
        found, words = getattr(step, field), get_args(annotation)
        if get_origin(annotation) is Literal and found not in words:
            lexer.fail(f"the {field} of {name} is {found!r}; there are {', '.join(map(repr, words))}", offset)
    return cast(Step, step)
