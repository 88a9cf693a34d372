"""Sketches: schedules with named holes, and the decision vectors that fill them.

Takes a trace whose numbers and choices are open; gives complete schedules. A decision vector is a row of integers, one
a decision in their order: each is the position of a choice, so that vectors are sampled, mutated and scored in numpy
without building anything. Invariant: `fill` is total over the vectors of the right length and range, and equal vectors
give equal schedules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt

from tessera_build.ir.schedule.trace import Bind, Interleave, Pack, Reorder, Rewrite, Schedule, Split, Step
from tessera_build.ir.schedule.trace_text import print_step

Vectors = npt.NDArray[np.int64]
Values = Mapping[str, npt.NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Decision:
    """One open choice: what its values mean is for the part of the sketch that mentions it."""

    name: str
    choices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Hole:
    """A step whose number (a split's factor, a panel's width) a decision gives; none where the decision says 0."""

    step: Split | Pack | Interleave
    decision: str

    def steps(self, values: Mapping[str, int]) -> tuple[Step, ...]:
        """The filled step."""
        number = values[self.decision]
        if not number:
            return ()
        field = {"factor": number} if isinstance(self.step, Split) else {"width": number}
        return (replace(self.step, **field),)


@dataclass(frozen=True, slots=True)
class Filled:
    """A step several of whose numbers are open: per field, the decisions of whose values it is the product."""

    step: Split | Pack | Rewrite
    fields: tuple[tuple[str, tuple[str, ...]], ...]

    def steps(self, values: Mapping[str, int]) -> tuple[Step, ...]:
        """The filled step."""
        numbers = {field: math.prod(values[d] for d in decisions) for field, decisions in self.fields}
        return (cast(Step, replace(self.step, **numbers)),)


@dataclass(frozen=True, slots=True)
class Option:
    """Steps that are there where a decision has a value, and those that are there where it has another."""

    decision: str
    value: int
    then: tuple[Step, ...]
    otherwise: tuple[Step, ...] = ()

    def steps(self, values: Mapping[str, int]) -> tuple[Step, ...]:
        """The steps, or none."""
        return self.then if values[self.decision] == self.value else self.otherwise


@dataclass(frozen=True, slots=True)
class Nest:
    """The order of the loops by one decision's position, and how many of the outermost run in parallel by another."""

    orders: tuple[tuple[str, ...], ...]
    order: str
    parallel: str

    def steps(self, values: Mapping[str, int]) -> tuple[Step, ...]:
        """The order and the bindings."""
        axes = self.orders[values[self.order]]
        return (Reorder(axes), *(Bind(axis, "parallel") for axis in axes[: values[self.parallel]]))


Part = Step | Hole | Filled | Option | Nest


@dataclass(frozen=True, slots=True)
class Sketch:
    """The structure of a schedule: `rule` that made it, parts in the order of the trace, decisions in vector order."""

    rule: str
    parts: tuple[Part, ...]
    decisions: tuple[Decision, ...]

    @property
    def size(self) -> int:
        """How many vectors there are, legal or not."""
        total = 1
        for decision in self.decisions:
            total *= len(decision.choices)
        return total

    def position(self, name: str) -> int:
        """Where a decision is in the vector."""
        return next(i for i, decision in enumerate(self.decisions) if decision.name == name)

    def values(self, vectors: Vectors) -> dict[str, npt.NDArray[np.int64]]:
        """What each decision means in each of many vectors."""
        return {
            decision.name: np.asarray(decision.choices, np.int64)[vectors[:, column]]
            for column, decision in enumerate(self.decisions)
        }

    def vector(self, values: Mapping[str, int]) -> Vectors:
        """The vector with these values, or with the nearest choice that is not above, else the first one."""
        found: list[int] = []
        for decision in self.decisions:
            wanted = values.get(decision.name, decision.choices[0])
            below = [i for i, choice in enumerate(decision.choices) if choice <= wanted]
            found.append(max(below, key=lambda i: decision.choices[i], default=0))
        return np.asarray(found, np.int64)

    def fill(self, vector: Sequence[int] | Vectors) -> Schedule:
        """The schedule that a vector stands for."""
        if len(vector) != len(self.decisions):
            raise ValueError(f"{len(vector)} numbers for the {len(self.decisions)} decisions of {self.rule}")
        values: dict[str, int] = {}
        for decision, number in zip(self.decisions, vector, strict=True):
            if not 0 <= number < len(decision.choices):
                raise ValueError(f"{decision.name} of {self.rule} has no choice {number}")
            values[decision.name] = decision.choices[number]
        steps: list[Step] = []
        for part in self.parts:
            steps += part.steps(values) if isinstance(part, (Hole, Filled, Option, Nest)) else (part,)
        return Schedule(tuple(steps))

    def text(self) -> str:
        """The canonical text: what is open, then the trace with `?name` in its holes."""
        lines = [f"sketch {self.rule}"]
        lines += [f"  {d.name} in {' '.join(map(str, d.choices))}" for d in self.decisions]
        for part in self.parts:
            match part:
                case Hole(step, decision):
                    lines.append(f"  {print_step(step)} of ?{decision}")
                case Filled(step, fields):
                    open_ = (f"{field} = {' * '.join(f'?{d}' for d in decisions)}" for field, decisions in fields)
                    lines.append(f"  {print_step(step)} with {', '.join(open_)}")
                case Option(decision, value, then, otherwise):
                    lines += [f"  {print_step(step)} if ?{decision} is {value}" for step in then]
                    lines += [f"  {print_step(step)} if ?{decision} is not {value}" for step in otherwise]
                case Nest(orders, order, parallel):
                    lines += [f"  order {' '.join(axes)} if ?{order} is {i}" for i, axes in enumerate(orders)]
                    lines.append(f"  the outermost ?{parallel} parallel")
                case _:
                    lines.append(f"  {print_step(part)}")
        return "\n".join(lines) + "\n"
