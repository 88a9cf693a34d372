"""The rule for chains: products around a window, row by row, each stage by the rule that it would have alone.

Condition: the workload has stages. Decisions: rows of a block, which is what threads share, and for every stage the
decisions of its own sketch for one row of one image, by the stage's number and their names. Invariant: a stage adds up
in the order in which it would alone, so that every candidate gives the bits of the stages one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np

from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.trace import Bind, Block, Pack, Pair, Reorder, Split, Stage, Tensorise
from tessera_build.space.chain import BATCH, MOST_TWICE, ROWS, Shape, twice_made
from tessera_build.space.features import FEATURES, complete, idle_share
from tessera_build.space.nest import Floats, covered_bytes, weight_bytes
from tessera_build.space.rules.pairs import STAGE_PAIRS
from tessera_build.space.rules.product import PRODUCT
from tessera_build.space.rules.rule import Features, Flags, Rule
from tessera_build.space.rules.window import WINDOW
from tessera_build.space.sketch import Decision, Filled, Hole, Nest, Option, Part, Sketch, Values
from tessera_build.space.workload import Workload

_STAGE_RULES = (STAGE_PAIRS, PRODUCT, WINDOW)
_MOST_BLOCKS = 16
# What adds up over rows; of the others, the largest stage counts, or what is said of the whole chain.
_ADDED = frozenset(FEATURES) - {
    "registers", "code", "waste", "calls", "idle", "l2_bytes", "memory_bytes", "weight_bytes"
}  # fmt: skip


def chain_sketch(work: Workload, machine: CpuMachine) -> Sketch | None:
    """The sketch: the chain's own loops, then every stage's steps after its number."""
    shape = work.chain
    if shape is None:
        return None
    height = shape.target[0]
    counts = [n for n in range(1, min(height, _MOST_BLOCKS) + 1) if twice_made(shape, n) <= MOST_TWICE]
    decisions = [Decision("rows", tuple(sorted({-(-height // n) for n in counts})))]
    parts: list[Part] = [Hole(Split(ROWS, 1), "rows"), Bind(BATCH, "parallel"), Bind(ROWS, "parallel")]
    for index, stage in enumerate(work.stages):
        _, own = _stage(stage, machine)
        decisions += [Decision(_named(index, d.name), d.choices) for d in own.decisions]
        parts += [Stage(index), *(_renamed(index, part) for part in own.parts)]
    return Sketch("chain", tuple(parts), tuple(decisions))


@lru_cache(maxsize=256)
def _stage(work: Workload, machine: CpuMachine) -> tuple[Rule, Sketch]:
    """What a stage would have alone, without what only whole tasks have: parallel loops, panels that are asked for."""
    found = [(rule, rule.sketch(work, machine)) for rule in _STAGE_RULES]
    rule, sketch = next((rule, sketch) for rule, sketch in found if sketch is not None)
    (nest,) = [part for part in sketch.parts if isinstance(part, Nest)]
    orders = {tuple(a for a in axes if a not in (BATCH, ROWS)): axes for axes in reversed(nest.orders)}
    kept = tuple(axes for axes in nest.orders if axes in orders.values())
    open_ = {nest.order: tuple(range(len(kept))), nest.parallel: (0,)}
    parts = tuple(
        replace(part, orders=kept) if part is nest else part
        for part in sketch.parts
        if isinstance(part, Hole | Filled | Option | Nest | Split | Reorder | Pack | Tensorise | Block | Pair)
    )
    decisions = tuple(replace(d, choices=open_.get(d.name, d.choices)) for d in sketch.decisions)
    return rule, Sketch(sketch.rule, parts, decisions)


def _named(index: int, decision: str) -> str:
    return f"{index}.{decision}"


def _renamed(index: int, part: Part) -> Part:
    """The part by the chain's names of its decisions."""
    match part:
        case Hole() | Option():
            return replace(part, decision=_named(index, part.decision))
        case Nest():
            return replace(part, order=_named(index, part.order), parallel=_named(index, part.parallel))
        case Filled():
            fields = tuple((f, tuple(_named(index, d) for d in decisions)) for f, decisions in part.fields)
            return replace(part, fields=fields)
        case _:
            return part


def _own(index: int, values: Values) -> Values:
    prefix = _named(index, "")
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def chain_legal(work: Workload, machine: CpuMachine, values: Values) -> Flags:
    """Every stage is legal."""
    fits = np.ones(len(values["rows"]), np.bool_)
    for index, stage in enumerate(work.stages):
        rule, _ = _stage(stage, machine)
        fits &= rule.legal(stage, machine, _own(index, values))
    return fits


def chain_features(work: Workload, machine: CpuMachine, _sketch: Sketch, values: Values) -> Features:
    """The features of a batch: those of a row of every stage, as often as rows are made."""
    shape, count = _shape(work), len(values["rows"])
    total = {name: np.zeros(count) for name in FEATURES}
    made = _rows_made(work, values)
    for index, stage in enumerate(work.stages):
        rule, sketch = _stage(stage, machine)
        found = rule.features(stage, machine, sketch, _own(index, values))
        for name, column in found.items():
            total[name] = total[name] + column * made[index] if name in _ADDED else np.maximum(total[name], column)
    blocks = -(-shape.target[0] // values["rows"])
    calls = np.asarray(work.extents.get(BATCH, 1) * blocks, np.float64)
    wanted = sum(stage.points * rows for stage, rows in zip(work.stages, _rows_wanted(work), strict=True))
    points = np.zeros(count)
    for stage, rows in zip(work.stages, made, strict=True):
        points = points + stage.points * rows
    whole = {"calls": calls, "idle": idle_share(calls), "waste": points / max(1, wanted) - 1.0}
    return complete({**total, **whole, **_moved(work, machine, made)}, count)


def _shape(work: Workload) -> Shape:
    assert work.chain is not None, "the rule has a sketch"
    return work.chain


def _rows_wanted(work: Workload) -> list[int]:
    """Rows of every stage, over all images."""
    shape, images = _shape(work), work.extents.get(BATCH, 1)
    first = [shape.source[0] * images] if shape.around[0] else []
    return first + [shape.target[0] * images] * (len(work.stages) - len(first))


def _rows_made(work: Workload, values: Values) -> list[Floats]:
    """Rows that blocks make: windows reach over into the next one, and the last block moves back inside."""
    shape, images = _shape(work), work.extents.get(BATCH, 1)
    blocks, walk = -(-shape.target[0] // values["rows"]), shape.walks[0]
    last = np.asarray(images * blocks * values["rows"], np.float64)
    over = (blocks - 1) * (walk.reach - walk.stride) + (blocks * values["rows"] - shape.target[0]) * walk.stride
    first = [np.asarray(images * (shape.source[0] + over), np.float64)] if shape.around[0] else []
    return first + [last] * (len(work.stages) - len(first))


def _moved(work: Workload, machine: CpuMachine, made: list[Floats]) -> Mapping[str, Floats]:
    """What leaves the chain or comes from outside; weights come again with every row where they leave the cache."""
    weights = sum(weight_bytes(stage) for stage in work.stages)
    read = covered_bytes(work.stages[0], [o for o in work.stages[0].main if not o.constant]) * made[0]
    written = covered_bytes(work.stages[-1], work.stages[-1].others) * made[-1]
    rows = made[-1] if 2 * weights > machine.l2_bytes else np.ones(len(made[-1]))
    return {
        "l2_bytes": read + written + weights * rows,
        "memory_bytes": read + written + weights,
        "weight_bytes": np.full(len(rows), weights),
    }


def chain_start(work: Workload, machine: CpuMachine) -> dict[str, int]:
    """One block, and what every stage starts with."""
    found = {"rows": _shape(work).target[0]}
    for index, stage in enumerate(work.stages):
        rule, _ = _stage(stage, machine)
        found |= {_named(index, name): value for name, value in rule.start(stage, machine).items()}
    return found


def _blocks(sketch: Sketch) -> tuple[tuple[str, ...], ...]:
    """The rows, then tiles of every stage, then the rest of every stage."""
    names = [d.name for d in sketch.decisions[1:]]
    found: dict[tuple[str, bool], list[str]] = {}
    for name in names:
        stage, _, own = name.partition(".")
        found.setdefault((stage, own.startswith("tile") or own == "columns" or own == "unroll"), []).append(name)
    return (("rows",), *(tuple(group) for group in found.values()))


CHAIN = Rule("chain", chain_sketch, chain_legal, chain_features, chain_start, _blocks)
