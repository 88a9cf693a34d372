"""The grammar of Target IR's host program: guards, the arena, launches, in order.

Takes an entry's symbolic dims; gives the sequence of launches that computes its outputs. Extents are expressions over
the dims. Invariant: it orchestrates only — no element of a tensor is touched outside a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.node import Function, Node

Space = Literal["input", "output", "weight", "arena"]
Relation = Literal["lt", "le", "eq", "ne"]


@dataclass(frozen=True, slots=True)
class Buffer:
    """A place in memory: the `index`-th input, output or weight, or the arena; `offset` in bytes from its start."""

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
    """Refuse to run (status 4) unless `left relation right`; `index` is its row in the bundle's guard messages."""

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
class Entry:
    """The host program of one entry: nodes in order, arena size in bytes, and the extents of each output."""

    name: str
    dims: tuple[str, ...]
    nodes: tuple[Node, ...]
    arena_bytes: Extent
    outputs: tuple[tuple[Extent, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Variant:
    """Everything one CPU target runs: its entries and the kernels they launch, by name."""

    entries: tuple[Entry, ...]
    kernels: tuple[Function, ...]
    weights: int
