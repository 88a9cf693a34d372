"""Schedules: a trace of steps that turns a task's definitions into one loop nest.

Takes axes by name; gives the decisions that `schedule_to_tile` replays. The structure (which steps, in which order) is
the sketch; the numbers in it are the decision vector. Invariant: replaying a trace over a task is total — a tile
program, or a `ScheduleRejectedError` that says why.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from bundle_format.errors import TesseraError

Effect = Literal["bit-preserving", "order-changing", "algorithm-changing"]


class ScheduleRejectedError(TesseraError):
    """A trace does not fit the task it is replayed over."""


@dataclass(frozen=True, slots=True)
class Split:
    """Before: axis i of extent n. After: outer i in steps of `factor`, inner tile axis of extent `factor`."""

    axis: str
    factor: int
    effect: Effect = "bit-preserving"


@dataclass(frozen=True, slots=True)
class Reorder:
    """Before: loops in the order of the definition. After: in the order of `axes`, outermost first."""

    axes: tuple[str, ...]
    effect: Effect = "bit-preserving"


@dataclass(frozen=True, slots=True)
class Bind:
    """Before: a serial loop. After: one that runs in `scope` ("parallel", "unroll")."""

    axis: str
    scope: Literal["parallel", "unroll"]
    effect: Effect = "bit-preserving"


@dataclass(frozen=True, slots=True)
class Group:
    """Before: axis of extent n. After: two axes, the outer of n/size groups and the inner of `size`."""

    axis: str
    size: int
    effect: Effect = "bit-preserving"


@dataclass(frozen=True, slots=True)
class Pack:
    """Before: constant operand `read` as the model stores it. After: in panels of `width` along its vector axis."""

    read: int
    width: int
    effect: Effect = "bit-preserving"


@dataclass(frozen=True, slots=True)
class Tensorise:
    """Before: the innermost multiply-add loops. After: one `contract` of register tiles over `axis`.

    `instruction`: "fma", or "dot4", which takes four bytes along the axis a step and wants panels of such quads.
    """

    axis: str
    instruction: str = "fma"
    effect: Effect = "order-changing"


@dataclass(frozen=True, slots=True)
class Block:
    """Before: all terms along the reduction axis are added in sequence. After: blocks of about `size` terms are, each
    from zero, and their sums are added in sequence: the rounding error grows with the size and the number of blocks.

    A block holds whole chunks of the axis, and the last one what is left. Of an axis outside of the one that is
    contracted, as the taps of a window, `size` are turns, with all terms that these have.
    """

    axis: str
    size: int
    effect: Effect = "order-changing"


@dataclass(frozen=True, slots=True)
class Interleave:
    """Before: a reduction in sequence. After: `width` partial results combined as a tree."""

    axis: str
    width: int
    effect: Effect = "order-changing"


@dataclass(frozen=True, slots=True)
class Prefetch:
    """Before: panels of the operand `read` are fetched when first used. After: also while the one before is.

    Each tile that uses a panel asks for its share of the next one, so that the requests are spread evenly; where taps
    are added up, or Winograd's points multiplied, for what it uses a little later. Panels of an operand that is not
    packed are columns of its rows; a tile then asks for where its results lie, too, as it begins.
    """

    read: int
    effect: Effect = "bit-preserving"


@dataclass(frozen=True, slots=True)
class Stagger:
    """Before: all passes over a row of `axis`, then those over the next. After: in one loop, each over another row.

    While the last pass ends a row, the one before it works on the next and the first on the one after; rows are cut
    into chunks (a split of `axis`_chunk) that begin and end for themselves.
    """

    axis: str
    effect: Effect = "bit-preserving"


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Before: a sum of products. After: fewer products, of sums of its operands, which are added up again.

    "winograd": of a sum over taps along one or two axes, sums at the points of the transform F(tile, taps); taps along
    further axes are kept, and what they have is added up at the points. Outputs are
    made in tiles of `tile` along each of these; `block` of them share a register tile of every product. The splits of
    two axes say how many outputs one strip has, whose transforms lie in scratch. `panels` of output channels make a
    group, which transforms the strip's inputs for itself; 0: all of them.

    "strassen": of a product whose rows, depth and columns are cut into `tile` = 2 halves, seven products of quarters.
    Many rows are cut into blocks first, by `space.strassen`. The depth of a half is summed in pieces of `block`. Sums
    of the first operand's quarters are made by a launch of its own, those of the weights by the first register tile
    that needs them. `panels` register tiles of rows make a group, which makes sums of weights for itself; 0: all.
    """

    tile: int
    block: int
    panels: int = 0
    algorithm: str = "winograd"
    effect: Effect = "algorithm-changing"


@dataclass(frozen=True, slots=True)
class Pair:
    """Before: each term of a sum along `axis` is one multiply-add. After: two thirds of the terms are taken in pairs,
    a b + c d = (a + d) (c + b) - a c - b d, one multiply-add and two additions each.

    The products a c, of a row, are added up once for all columns, by a launch of its own, which also scales the row by
    a power of two, until the sizes of its elements add up to 2**scale; the products b d, of a column of constant
    weights, at build time. Every other pair takes differences, so that these sums stay small.
    """

    axis: str
    scale: int
    effect: Effect = "algorithm-changing"


@dataclass(frozen=True, slots=True)
class Clip:
    """Before: every turn of the reduction axis is taken. After: those at which a whole tile reads padding are not.

    Their products are zeros, of weights that are numbers; only the sign of a sum that is zero may differ.
    """

    axis: str
    effect: Effect = "order-changing"


@dataclass(frozen=True, slots=True)
class Stage:
    """Before: steps mean the whole task. After: those that follow mean its contraction number `index`, by its own axes.

    A chain's contractions have axes of the same names; what stands before the first `Stage` cuts the chain's own loops.
    """

    index: int
    effect: Effect = "bit-preserving"


Step = (
    Split
    | Reorder
    | Bind
    | Group
    | Pack
    | Tensorise
    | Block
    | Interleave
    | Stagger
    | Rewrite
    | Pair
    | Prefetch
    | Clip
    | Stage
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A trace; later steps on the same axis override earlier ones, so schedules inherit by appending."""

    steps: tuple[Step, ...] = ()

    def with_steps(self, *steps: Step) -> Schedule:
        """This schedule with more steps after its own."""
        return replace(self, steps=(*self.steps, *steps))

    def with_block(self, **factors: int) -> Schedule:
        """This schedule with other tile sizes, by axis name."""
        return self.with_steps(*(Split(axis, factor) for axis, factor in factors.items()))

    def stage(self, index: int | None) -> Schedule:
        """The steps that mean one contraction of a chain; None: those that mean the chain itself."""
        current: int | None = None
        kept: list[Step] = []
        for step in self.steps:
            if isinstance(step, Stage):
                current = step.index
            elif current == index:
                kept.append(step)
        return Schedule(tuple(kept))

    def factors(self) -> dict[str, int]:
        """Tile size of every split axis."""
        return {step.axis: step.factor for step in self.steps if isinstance(step, Split)}

    def scope(self, axis: str) -> str | None:
        """What an axis is bound to, if anything."""
        found = [step.scope for step in self.steps if isinstance(step, Bind) and step.axis == axis]
        return found[-1] if found else None

    def order(self) -> tuple[str, ...]:
        """The loop order, outermost first; empty when none was stated."""
        found = [step.axes for step in self.steps if isinstance(step, Reorder)]
        return found[-1] if found else ()

    def groups(self) -> dict[str, int]:
        """Group size of every grouped axis."""
        return {step.axis: step.size for step in self.steps if isinstance(step, Group)}

    def packs(self) -> dict[int, int]:
        """Panel width of every packed read."""
        return {step.read: step.width for step in self.steps if isinstance(step, Pack)}

    def blocked(self, axis: str) -> int | None:
        """Terms in a block of a reduction axis, if it has any; whole chunks."""
        found = [step.size for step in self.steps if isinstance(step, Block) and step.axis == axis]
        chunk = self.factors().get(axis, 1)
        return found[-1] // chunk * chunk if found else None

    def prefetched(self) -> int | None:
        """The read whose next panel is asked for, if any."""
        found = [step.read for step in self.steps if isinstance(step, Prefetch)]
        return found[-1] if found else None

    def clipped(self) -> frozenset[str]:
        """The reduction axes of which turns are left out."""
        return frozenset(step.axis for step in self.steps if isinstance(step, Clip))

    def staggered(self) -> str | None:
        """The axis whose rows are worked on by different passes at a time, if any."""
        found = [step.axis for step in self.steps if isinstance(step, Stagger)]
        return found[-1] if found else None

    def rewritten(self) -> Rewrite | None:
        """The step that changes the algorithm, if any."""
        found = [step for step in self.steps if isinstance(step, Rewrite)]
        return found[-1] if found else None

    def paired(self) -> Pair | None:
        """The step that takes terms in pairs, if any."""
        found = [step for step in self.steps if isinstance(step, Pair)]
        return found[-1] if found else None

    def tensorised(self) -> str | None:
        """The reduction axis that a contraction runs over, if any."""
        found = [step.axis for step in self.steps if isinstance(step, Tensorise)]
        return found[-1] if found else None

    def instruction(self) -> str:
        """What the tensorised axis is contracted by."""
        found = [step.instruction for step in self.steps if isinstance(step, Tensorise)]
        return found[-1] if found else "fma"
