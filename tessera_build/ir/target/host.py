"""The grammar of Target IR's host program: guards, the arena, sizes read from data, launches, in order.

Takes an entry's symbolic dims; gives the sequence of launches that computes its outputs. Extents are expressions over
the dims and over the sizes that were read before. Invariant: it orchestrates only — no element of a tensor is touched
outside a kernel, but for the integers that are sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from tessera_build.ir.core.dims import Extent, symbols_of
from tessera_build.ir.core.node import Function, Node, Region, Symbol, walk

Space = Literal["input", "output", "weight", "arena", "dynamic", "carried"]
POINTER_BYTES = 8
Relation = Literal["lt", "le", "eq", "ne"]


@dataclass(frozen=True, slots=True)
class Buffer:
    """A place in memory: the `index`-th input, output, weight or dynamic slot, or the arena; `offset` in bytes.

    A dynamic slot is memory that an `Allocate` of the same run obtained. Carried slots are those of a `Repeat` around.
    """

    space: Space
    index: int = 0
    offset: Extent = 0


@dataclass(frozen=True, slots=True, eq=False)
class HostNode(Node):
    """Base of the host nodes; all have effects, all run in order."""

    dialect: ClassVar[str] = "thost"
    effects: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, eq=False)
class Guard(HostNode):
    """Refuse to run (status 4) unless `left relation right`; `index` is its row in the bundle's guard messages.

    A guard over the entry's dims alone holds before anything runs; one over sizes is checked where it stands.
    """

    left: Extent
    relation: Relation
    right: Extent
    index: int


@dataclass(frozen=True, slots=True, eq=False)
class Launch(HostNode):
    """Run `kernel` for parallel iterations 0..count-1 over `buffers`; `dims` are the values of its i64 arguments.

    `node` is the row of the graph node's name in the bundle, for errors and profiles.
    """

    kernel: str
    count: Extent
    buffers: tuple[Buffer, ...]
    dims: tuple[Extent, ...]
    node: int


@dataclass(frozen=True, slots=True, eq=False)
class Read(HostNode):
    """From here on `symbol` is the i64 at `element` of a buffer; outside 0 .. `upper` (-1: no bound) is status 3."""

    symbol: str
    buffer: Buffer
    element: int
    upper: Extent
    node: int


@dataclass(frozen=True, slots=True, eq=False)
class Allocate(HostNode):
    """Obtain `bytes` for a dynamic slot, or for an output whose shape depends on data; status 5 where there are none.

    A slot that still holds memory gives it back first.
    """

    space: Literal["dynamic", "output"]
    index: int
    bytes: Extent
    node: int


@dataclass(frozen=True, slots=True, eq=False)
class Release(HostNode):
    """Give the memory of a dynamic slot back; a run that ends early does so for all slots."""

    index: int


@dataclass(frozen=True, slots=True)
class Carried:
    """A value that goes from one iteration to the next: where the first finds it and where the last leaves it.

    `spare` is a second place of as many `bytes`: iterations read one and write the other.
    """

    initial: Buffer
    home: Buffer
    spare: Buffer
    bytes: Extent


@dataclass(frozen=True, slots=True, eq=False)
class Repeat(HostNode):
    """Run `body` for `index` = 0, 1, ... below `trips`; if `conditional`, while the first carried byte is not 0.

    If `downward`, the index runs from the last to 0.
    In the body, carried slot `slot` + 2 i holds value i as the iteration finds it; the next slot takes what it leaves.
    """

    index: Symbol
    trips: Extent
    conditional: bool
    downward: bool
    slot: int
    carried: tuple[Carried, ...]
    body: Region


@dataclass(frozen=True, slots=True, eq=False)
class Choose(HostNode):
    """Run `then` where the byte at `condition` is not 0, else `otherwise`."""

    condition: Buffer
    then: Region
    otherwise: Region


@dataclass(frozen=True, slots=True, eq=False)
class Apart(HostNode):
    """Run `body` unless both places are one: the caller may give a state's memory as that of its next value."""

    left: Buffer
    right: Buffer
    body: Region


def _places(node: Node) -> tuple[Buffer, ...]:
    """The places in memory that a node names, without those of its body."""
    match node:
        case Launch():
            return node.buffers
        case Read():
            return (node.buffer,)
        case Repeat():
            return tuple(place for carried in node.carried for place in (carried.initial, carried.home, carried.spare))
        case Choose():
            return (node.condition,)
        case Apart():
            return node.left, node.right
        case _:
            return ()


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """The host program of one entry: nodes in order, arena size in bytes, and the extents of each output.

    The addresses of the `slots` dynamic slots are the first words of the arena.
    """

    name: str
    dims: tuple[str, ...]
    nodes: tuple[Node, ...]
    arena_bytes: Extent
    outputs: tuple[tuple[Extent, ...], ...]
    slots: int = 0

    def depends_on_data(self, extent: Extent) -> bool:
        """Whether an extent is known only when a run has read sizes."""
        return not symbols_of(extent) <= set(self.dims)

    @property
    def inputs(self) -> int:
        """How many inputs there must be: up to the last one that anything reads."""
        places = (place for node in walk(self.nodes) for place in _places(node))
        return max((place.index for place in places if place.space == "input"), default=-1) + 1

    @property
    def dynamic_outputs(self) -> tuple[int, ...]:
        """The outputs that a run allocates, because their shapes depend on data."""
        return tuple(i for i, shape in enumerate(self.outputs) if any(self.depends_on_data(e) for e in shape))

    @property
    def launches(self) -> tuple[Launch, ...]:
        """All launches in text order, which numbers them for profiles."""
        return tuple(node for node in walk(self.nodes) if isinstance(node, Launch))


@dataclass(frozen=True, slots=True, eq=False)
class Variant:
    """Everything one CPU target runs: its entries and the kernels they launch, by name."""

    entries: tuple[Entry, ...]
    kernels: tuple[Function, ...]
    weights: int


def buffers_of(node: Node) -> Iterator[Buffer]:
    """The buffers that a node itself names."""
    if isinstance(node, Launch):
        yield from node.buffers
    elif isinstance(node, Read):
        yield node.buffer
    elif isinstance(node, Repeat):
        yield from (place for value in node.carried for place in (value.initial, value.home, value.spare))
    elif isinstance(node, Choose):
        yield node.condition
    elif isinstance(node, Apart):
        yield from (node.left, node.right)


def extents_of(node: Node) -> Iterator[Extent]:
    """The extents that a node itself evaluates, those of its buffers included."""
    match node:
        case Guard():
            yield from (node.left, node.right)
        case Launch():
            yield from (node.count, *node.dims)
        case Read():
            yield node.upper
        case Allocate():
            yield node.bytes
        case Repeat():
            yield from (node.trips, *(value.bytes for value in node.carried))
        case _:
            pass
    yield from (buffer.offset for buffer in buffers_of(node))
