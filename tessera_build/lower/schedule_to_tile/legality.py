"""Whether a trace fits a task: everything that replay would otherwise ignore, misread or stumble over.

Takes a task, its schedule and the domain after grouping; raises `ScheduleRejectedError` with the reason. Invariant: a
trace that passes makes a tile program that computes the task's definitions, or is rejected for an index that is not
affine; nothing in it is silently without effect.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence

from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import F32, int_extent
from tessera_build.ir.machine.instructions import QUAD
from tessera_build.ir.schedule.nodes import Compute
from tessera_build.ir.schedule.trace import (
    Bind,
    Block,
    Clip,
    Group,
    Interleave,
    Pack,
    Pair,
    Prefetch,
    Reorder,
    Rewrite,
    Schedule,
    ScheduleRejectedError,
    Split,
    Stage,
    Stagger,
    Tensorise,
)
from tessera_build.lower.graph_to_schedule.tasks import Task
from tessera_build.lower.schedule_to_tile.crossed import crossed_tiles
from tessera_build.lower.schedule_to_tile.halves import strides_of
from tessera_build.lower.schedule_to_tile.indices import coefficient
from tessera_build.lower.schedule_to_tile.nest import Nest
from tessera_build.lower.schedule_to_tile.pair_columns import has_scaled_columns
from tessera_build.lower.schedule_to_tile.pairs import paired_product
from tessera_build.lower.schedule_to_tile.rewrite import check_rewrite
from tessera_build.space.contraction import is_byte_product, is_product
from tessera_build.space.pairs import BEHIND, MOST_SCALE, TURN, Paired
from tessera_build.space.passes import passes_in_turns
from tessera_build.space.winograd_plan import STACK_BYTES

# More turns than this make more code than a compiler takes in a second.
MOST_TURNS_UNROLLED = 256
# Vectors that a tile is emitted as, once for each step of a reduction and each turn of loops that are emitted. Sketches
# stay below 500; 4096 took 5 s and 350 MB to compile, and 4,000,000 had 15 GB after 10 minutes.
MOST_VECTORS = 2048


def check_groups(task: Task, schedule: Schedule) -> None:
    """A group divides an axis of known extent, and only accumulations have them."""
    names = {f"_d{i}": extent for i, extent in enumerate(task.domain)}
    for step in schedule.steps:
        if not isinstance(step, Group):
            continue
        extent = names.get(step.axis)
        if task.kind != "contraction" or not isinstance(extent, int) or step.size < 1 or extent % step.size:
            raise _rejected("GROUP", task, f"axis {step.axis} of extent {extent} in groups of {step.size}")


def check_trace(nest: Nest, schedule: Schedule, constants: Container[int]) -> None:
    """Every other step of the trace, over the axes after grouping; `constants` are the values that can be packed."""
    rule, task, domain = _Rules(nest, schedule, constants), nest.task, nest.domain
    for step in schedule.steps:
        match step:
            case Split():
                rule.split(step)
            case Reorder():
                if sorted(step.axes) != sorted(domain):
                    raise _rejected("ORDER", task, f"the order {step.axes} of the axes {tuple(domain)}")
            case Bind():
                rule.bind(step)
            case Tensorise():
                rule.tensorise(step)
            case Block():
                rule.block(step)
            case Prefetch():
                rule.prefetch(step)
            case Clip():
                rule.clip(step)
            case Interleave():
                if step.axis not in rule.reduced or task.kind != "row" or step.width != nest.lanes:
                    raise _rejected("INTERLEAVE", task, f"{step.width} partial results along {step.axis}")
            case Stagger():
                rule.stagger(step)
            case Pair():
                rule.pair(step)
            case Rewrite():
                check_rewrite(nest, schedule, step, constants)
            case Stage():
                raise _rejected("STAGE", task, f"stage {step.index} of a task that is no chain")
            case _:
                pass
    if schedule.rewritten() is None:  # which has looked at all steps together
        rule.final()


class _Rules:
    def __init__(self, nest: Nest, schedule: Schedule, constants: Container[int]) -> None:
        self._nest = nest
        self._constants = constants
        self._task = task = nest.task
        self._schedule = schedule
        self._domain = nest.domain
        nodes = [n for n in task.function.nodes if isinstance(n, Compute) and n.combine != "none"]
        self._node = nodes[0] if task.kind == "contraction" and nodes else None
        self._reduction: dict[str, Extent] = {a.name: a.extent for a in self._node.reduction} if self._node else {}
        self.reduced = {f"_d{i}" for i in task.reduced} if task.kind == "row" else set(self._reduction)

    def split(self, step: Split) -> None:
        """Before replay: the axis exists and the factor is a size."""
        chunked = step.axis.removesuffix("_chunk")
        known = step.axis in self._domain or step.axis in self._reduction
        chunk = step.axis.endswith("_chunk") and chunked in self._domain
        chunk = chunk and (self._task.kind != "contraction" or has_scaled_columns(self._schedule))
        phase = self._schedule.rewritten() is not None and step.axis.removesuffix("_phase") in self._domain
        if not known and not phase and (not chunk or chunked in self.reduced):
            raise _rejected("AXIS", self._task, f"a split of {step.axis}, which is no axis of it")
        if step.factor < 1:
            raise _rejected("FACTOR", self._task, f"{step.axis} in tiles of {step.factor}")

    def stagger(self, step: Stagger) -> None:
        """Rows one by one, in chunks, in the innermost loop around the passes; few of them, the first only reads."""
        order = self._schedule.order() or tuple(self._domain)
        kept, factors = [a for a in order if a not in self.reduced], self._schedule.factors()
        inside = self._task.kind == "row" and kept[-1:] == [step.axis] and passes_in_turns(self._task.function.nodes)
        if not inside or factors.get(step.axis, 1) != 1 or f"{step.axis}_chunk" not in factors:
            raise _rejected("STAGGER", self._task, f"passes that take turns along {step.axis}")

    def pair(self, step: Pair) -> None:
        """Constant weights in panels of a tile's width, no other change of the sum, and a scale that f32 has."""
        node, paired, _ = paired_product(self._nest, self._schedule)
        schedule, factors = self._schedule, self._schedule.factors()
        outputs = self._nest.axes[-1] if paired.read else paired.scaled[0]
        width, steps = factors.get(outputs, 1), factors.get(step.axis, TURN)
        packed = schedule.packs() == {paired.read: width}
        whole = width % self._nest.lanes == 0 if paired.read else self._columns_fit(paired, width)
        plain = schedule.rewritten() is None and schedule.tensorised() is None and not schedule.clipped()
        plain = plain and schedule.blocked(step.axis) is None and steps % TURN == 0
        constant = node.reads[paired.read] in self._constants
        if not packed or not whole or not plain or not constant or abs(step.scale) > MOST_SCALE:
            raise _rejected("PAIRS", self._task, f"pairs with {', '.join(map(str, schedule.steps))}")

    def _columns_fit(self, paired: Paired, width: int) -> bool:
        """A register of columns at a time, whole tiles of rows inside all other loops, memory on a thread's stack."""
        schedule, domain, (row,) = self._schedule, self._domain, paired.scaled
        vector, order = self._nest.axes[-1], schedule.order() or tuple(domain)
        extents = [domain[row], domain[vector]]
        if not all(isinstance(extent, int) for extent in extents):
            return False
        whole = int_extent(extents[0]) % width == 0 and int_extent(extents[1]) >= self._nest.lanes
        factors, lanes, known = schedule.factors(), self._nest.lanes, {row, vector, f"{vector}_chunk", paired.depth}
        alone = {axis for axis, factor in factors.items() if factor > 1} <= known and order[-1] == row
        chunk = factors.get(f"{vector}_chunk", lanes)
        fits = chunk % lanes == 0 and lanes <= chunk <= int_extent(extents[1])
        stack = F32.bytes * chunk * (paired.extent + BEHIND) <= STACK_BYTES
        return whole and alone and stack and fits and factors.get(vector) == lanes

    def bind(self, step: Bind) -> None:
        """Reductions run in sequence; unrolled loops are short."""
        extent = self._domain.get(step.axis, self._reduction.get(step.axis))
        if extent is None:
            raise _rejected("AXIS", self._task, f"{step.scope} {step.axis}, which is no axis of it")
        if step.scope == "parallel" and step.axis in self.reduced:
            raise _rejected("PARALLEL", self._task, f"parallel {step.axis}, along which results are combined")
        turns = self._turns(step.axis)
        if self._schedule.scope(step.axis) == "unroll" and turns > MOST_TURNS_UNROLLED:
            raise _rejected("UNROLL", self._task, f"{step.axis} unrolled {turns} times")

    def tensorise(self, step: Tensorise) -> None:
        """`contract` multiplies and adds: one read moves along the vector axis, the other stays."""
        node, vector = self._node, list(self._domain)[-1]
        if node is None or step.axis not in self._reduction or step.instruction not in ("fma", "dot4"):
            raise _rejected("TENSORISE", self._task, f"{step.instruction} over {step.axis}")
        moves = [self._nest.depends(v, access, vector) for v, access in zip(node.reads, node.accesses, strict=True)]
        if not is_product(node) or moves != [False, True]:
            raise _rejected("TENSORISE", self._task, "no product of a stationary and a moving operand")
        if step.instruction == "dot4":
            self._byte_product(step.axis, node)

    def block(self, step: Block) -> None:
        """Of what is contracted by multiply-adds, whose sums round; a block holds a chunk at least, or a turn."""
        chunk = self._schedule.factors().get(step.axis, 1)
        rounds = self._schedule.tensorised() is not None and self._schedule.instruction() == "fma"
        if self._node is None or not rounds or step.axis not in self._reduction or step.size < chunk:
            raise _rejected("BLOCK", self._task, f"blocks of {step.size} along {step.axis} in chunks of {chunk}")

    def prefetch(self, step: Prefetch) -> None:
        """Only a contraction asks for a next panel while it runs: of a packed constant, or of columns as they lie."""
        node, runs = self._node, self._schedule.tensorised() is not None or self._schedule.paired() is not None
        if node is None or not runs or step.read != 1 or not self._has_panels(node):
            raise _rejected("PREFETCH", self._task, f"the next panel of read {step.read}")

    def clip(self, step: Clip) -> None:
        """Of a product with constants, an axis outside of the one that is contracted, in one sequence."""
        node, schedule = self._node, self._schedule
        outer = step.axis in self._reduction and step.axis != schedule.tensorised()
        if node is None or not outer or schedule.blocked(step.axis) or schedule.scope(step.axis) == "unroll":
            raise _rejected("CLIP", self._task, f"turns of {step.axis} left out")
        if not is_product(node) or node.accesses[0].pad != 0.0 or node.reads[1] not in self._constants:
            raise _rejected("CLIP", self._task, f"turns of {step.axis} left out that do not add zeros")

    def _has_panels(self, node: Compute) -> bool:
        """Whether the second read is a packed constant, or no constant, of which each step reads a part of a row."""
        if node.reads[1] in self._constants:
            return self._schedule.packs().get(1, 0) > 0
        indices, vector = node.accesses[1].indices, list(self._domain)[-1]
        if len(node.reduction) != 1 or node.accesses[1].pad is not None or not indices:
            return False
        *outer, last = (self._nest.expressed(index) for index in indices)
        strides = strides_of(self._nest, node.reads[1])
        steps = [coefficient(index, node.reduction[0].name) for index in outer]
        even = all(
            step is not None and (step == 0 or isinstance(s, int)) for step, s in zip(steps, strides, strict=False)
        )
        return coefficient(last, vector) == 1 and coefficient(last, node.reduction[0].name) == 0 and even and any(steps)

    def _byte_product(self, axis: str, node: Compute) -> None:
        """Quads need bytes, whole groups of four, and panels to lie in."""
        factors = self._schedule.factors()
        whole = factors.get(axis, 1) % QUAD == 0 and node.reduction[-1].name == axis and self._reduction[axis] != 1
        packed = self._schedule.packs().get(1, 0) > 0 and node.reads[1] in self._constants
        lanes = factors.get(list(self._domain)[-1], 1) % self._nest.lanes == 0
        if not (is_byte_product(node) and whole and packed and lanes):
            raise _rejected("TENSORISE", self._task, f"quads of bytes along {axis}")

    def final(self) -> None:
        """What the steps come to, taken together."""
        factors = self._schedule.factors()
        order = self._schedule.order() or tuple(self._domain)
        crossed = crossed_tiles(self._schedule, tuple(self._domain))
        for axis, factor in factors.items():
            extent = self._domain.get(axis, self._reduction.get(axis))
            if self._task.kind == "contraction":
                self._contraction_tile(axis, factor, extent)
            elif axis.endswith("_chunk"):
                self._chunk(axis.removesuffix("_chunk"), factor, factors, order)
            elif self._task.kind == "row":
                self._row_tile(axis, factor)
            elif self._task.kind == "pointwise" and crossed:
                self._crossed_tile(axis, factor, crossed)
        self._size(factors)
        self._panels(factors)

    def _size(self, factors: Mapping[str, int]) -> None:
        """All of a tile becomes code, along the vector axis a vector at a time, once for every unrolled turn."""
        vector = list(self._domain)[-1]
        tile = {axis: factor for axis, factor in factors.items() if not axis.endswith("_chunk")}
        emitted = {**tile, vector: -(-tile.get(vector, 1) // self._nest.lanes)}
        turns = [self._turns(a) for a in (*self._domain, *self._reduction) if self._schedule.scope(a) == "unroll"]
        if math.prod(turns) > MOST_TURNS_UNROLLED:
            raise _rejected("UNROLL", self._task, f"loops unrolled {math.prod(turns)} times, one in another")
        vectors = math.prod((*emitted.values(), *turns))
        if vectors > MOST_VECTORS:
            tiles = ", ".join(f"{factor} along {axis}" for axis, factor in tile.items()) or "1"
            found = f"tiles of {tiles}, {math.prod(turns)} times: {vectors} vectors, more than {MOST_VECTORS}"
            raise _rejected("TILE", self._task, found)

    def _turns(self, axis: str) -> int:
        """How often a loop runs, at least once; 1 where that is not known."""
        extent = self._domain.get(axis, self._reduction.get(axis))
        return max(1, -(-extent // max(1, self._schedule.factors().get(axis, 1)))) if isinstance(extent, int) else 1

    def _contraction_tile(self, axis: str, factor: int, extent: Extent | None) -> None:
        vector = list(self._domain)[-1]
        if axis == self._schedule.tensorised() and self._schedule.instruction() == "dot4" and extent is not None:
            extent = -(-extent // QUAD) * QUAD  # a last quad may reach beyond the end
        if axis != vector and isinstance(extent, int) and factor > max(1, extent):
            raise _rejected("TILE", self._task, f"tiles of {factor} along {axis} of extent {extent}")
        pair = self._schedule.paired()
        runs = axis == self._schedule.tensorised() or (pair is not None and axis == pair.axis)
        if axis in self._reduction and factor > 1 and not runs:
            raise _rejected("TILE", self._task, f"tiles of {factor} along {axis}, which no instruction runs over")

    def _row_tile(self, axis: str, factor: int) -> None:
        """Rows share a tile where whole tiles fill the axis: a row holds what it spills, so none is computed twice."""
        extent = self._domain[axis]
        if axis in self.reduced or axis == list(self._domain)[-1]:
            return
        if not isinstance(extent, int) or extent % factor:
            raise _rejected("TILE", self._task, f"tiles of {factor} rows along {axis} of extent {extent}")

    def _crossed_tile(self, axis: str, factor: int, crossed: Sequence[str]) -> None:
        """One axis beside the innermost has tiles at most, and both hold theirs: the last one moves back inside."""
        extent = self._domain[axis]
        if axis in crossed[1:]:
            raise _rejected("TILE", self._task, f"tiles along {axis} and {crossed[0]}, neither of them the innermost")
        if isinstance(extent, int) and factor > max(1, extent):
            raise _rejected("TILE", self._task, f"tiles of {factor} along {axis} of extent {extent}")

    def _chunk(self, axis: str, factor: int, factors: Mapping[str, int], order: Sequence[str]) -> None:
        if axis == self._schedule.staggered():
            return
        tile = factors.get(axis, 1)
        innermost = axis == order[-1] if self._task.kind == "pointwise" and tile == 1 else tile > 1
        if not innermost or factor % tile:
            raise _rejected("CHUNK", self._task, f"chunks of {factor} along {axis} in tiles of {tile}")

    def _panels(self, factors: Mapping[str, int]) -> None:
        """Panels hold whole tiles."""
        for step in self._schedule.steps:
            if not isinstance(step, Pack):
                continue
            if self._node is None or not 0 <= step.read < len(self._node.reads) or step.width < 0:
                raise _rejected("PACK", self._task, f"read {step.read} in panels of {step.width}")
            if self._node.reads[step.read] not in self._constants:
                raise _rejected("PACK", self._task, f"panels of read {step.read}, which is no constant")
        if has_scaled_columns(self._schedule):  # whose panels are of rows
            return
        vector = list(self._domain)[-1]
        tile, extent = factors.get(vector, 1), self._domain[vector]
        for read, width in self._schedule.packs().items():
            if width % tile:
                raise _rejected("PACK", self._task, f"read {read} in panels of {width}, tiles of {tile}")
            if isinstance(extent, int) and width >= extent + tile:
                raise _rejected("PACK", self._task, f"read {read} in panels of {width}, more than {vector} has")


def _rejected(code: str, task: Task, found: str) -> ScheduleRejectedError:
    return ScheduleRejectedError(f"SCHEDULE_{code}", f"the schedule does not fit {task.name}", found=found)
