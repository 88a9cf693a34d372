"""What a model asks of the sizes of its dims, in words that a person can act on.

Takes a module for which no sizes were found; gives the conditions that stand against each other and a next step.
Invariant: a condition is told by the sizes that it leaves of a dim where it is about one dim, else as it is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tessera_build.ir.core.dims import Extent, Range
from tessera_build.ir.graph.nodes import Module
from tessera_build.verify.feasible import MOST, Condition, Values, conditions_of, domain, find_sizes, left_alone

_TOLD = 6  # conditions, and sizes in a list


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there are no sizes: what is asked, the ranges that dims have, and what may help."""

    asked: str
    ranges: str
    hint: str


def why_no_sizes(module: Module, names: Sequence[str], extents: Sequence[Extent]) -> Refusal:
    """The fewest conditions that leave no sizes within the ranges of the dims, and sizes outside of them if any."""
    conditions = conditions_of(module, names, extents)
    ranges = {name: module.dims.get(name, (1, None)) for name in names}
    within = {name: domain(range_) for name, range_ in ranges.items()}
    anywhere = {name: domain((1, None)) for name in names}
    against = _fewest(conditions, within)
    wider = find_sizes(conditions, anywhere)
    told = dict.fromkeys(_told(condition, anywhere) for condition in against[:_TOLD])
    more = f"; and {len(against) - _TOLD} more" if len(against) > _TOLD else ""
    involved = sorted(frozenset[str]().union(*(condition.symbols for condition in against)))
    return Refusal("; ".join(told) + more, "; ".join(_range(n, ranges[n]) for n in involved), _hint(wider, ranges))


def _fewest(conditions: Sequence[Condition], domains: Mapping[str, Values]) -> list[Condition]:
    """Conditions that no sizes satisfy together, none of which could be left out; all if sizes were just not found."""
    kept = list(conditions)
    for condition in conditions:
        rest = [other for other in kept if other is not condition]
        if find_sizes(rest, domains) is None:
            kept = rest
    return kept


def _told(condition: Condition, domains: Mapping[str, Values]) -> str:
    at = f" at {condition.where}" if condition.where else ""
    for name in sorted(condition.symbols):
        sizes = left_alone(condition, name, domains)
        if sizes is not None:
            return f"{name} {described([int(size) for size in sizes])} (else {condition.message}{at})"
    return f"{condition.left} {condition.relation} {condition.right} (else {condition.message}{at})"


def described(sizes: Sequence[int]) -> str:
    """Sizes out of 1 to MOST, in words."""
    if not sizes:
        return "of no size at all"
    if len(sizes) == 1:
        return f"= {sizes[0]}"
    steps = {after - before for before, after in pairwise(sizes)}
    step = steps.pop() if len(steps) == 1 else 0
    first, last = sizes[0], sizes[-1]
    if step == 1:
        return (
            f"of at least {first}" if last == MOST else f"from {first} to {last}" if first > 1 else f"of at most {last}"
        )
    if step and last + step > MOST and first == step:
        return f"a multiple of {step}"
    if step and last + step > MOST:
        return f"one of {first}, {first + step}, {first + 2 * step}, and so on"
    return "one of " + ", ".join(map(str, sizes[:_TOLD])) + (", …" if len(sizes) > _TOLD else "")


def _range(name: str, range_: Range) -> str:
    low, high = 1 if range_[0] is None else range_[0], range_[1]
    return (
        f"{name} of at least {low}"
        if high is None
        else f"{name} = {low}"
        if low == high
        else f"{name} from {low} to {high}"
    )


def _hint(wider: Mapping[str, int] | None, ranges: Mapping[str, Range]) -> str:
    """With sizes that the model would take, those of them that dims may not have now."""
    if wider is None:
        return (
            "the model asks for what cannot be together, or for sizes that were not tried; export it with static "
            "sizes, or name sizes that you know to work: tessera build --dims NAME=SIZE"
        )
    outside = {n: s for n, s in wider.items() if not (ranges[n][0] or 0) <= s <= (ranges[n][1] or s)}
    asked = ",".join(f"{name}={size}" for name, size in (outside or wider).items())
    return f"the model takes other sizes than these ranges hold: tessera build --dims {asked}"
