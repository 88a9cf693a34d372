"""The grammar of Tile IR: fourteen nodes over buffers (memref), views (memref) and tiles (vector, static shape).

Takes buffers as function arguments (logical row-major extents); gives programs in which raggedness lives only in the
domains of views. Invariant (erasure): deleting every `binding` leaves the reference interpreter's result bitwise the
same. No node knows of threads, warps or lanes.

Index expressions are `Extent`s over the names of enclosing loops and the function's symbolic dims.
Function attributes: `dims` (tuple of symbol names, in argument order).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.node import Def, Node, Region, Symbol, Use
from tessera_build.ir.core.scalar import ScalarProgram

Relation = Literal["lt", "le", "eq", "ne"]


@dataclass(frozen=True, slots=True)
class Ahead:
    """`lines` cache lines of a buffer from element `first` of it on, which may lie outside.

    A contraction asks for them while it runs, of its operand b; a view where it is made, of its buffer. `level`: the
    cache they are asked into, 1 the nearest; `rows`: how many times as many lines, each `apart` elements further on.
    """

    first: Extent
    lines: int
    level: int = 1
    rows: int = 1
    apart: int = 0


@dataclass(frozen=True, slots=True)
class Binding:
    """Where and how a node runs on one machine; every field optional, none changes the meaning.

    scope: "parallel" | "serial" | "unroll" (CPU loops), "group" (GPU-shaped), ... ; space: "register" | "stack" |
    "shared" | "global"; layout: how a tile lies over lanes or registers; instruction: a row of the machine's table;
    stage: depth of a software pipeline; stored: the memory around a view's buffer holds the pad value, so that its
    domain needs no check; ahead: cache lines that a contraction or a view asks for.
    """

    scope: str | None = None
    space: str | None = None
    layout: str | None = None
    instruction: str | None = None
    stage: int | None = None
    stored: bool = False
    ahead: Ahead | None = None


@dataclass(frozen=True, slots=True)
class ViewAxis:
    """How one tile axis walks the buffer: element i is `step` * i further along `axis` (-1: it does not move).

    With `checked`, elements whose coordinate on `axis` falls outside 0..extent-1 are outside the view's domain: a load
    gives the pad value there, a store writes nothing.
    """

    axis: int
    step: int = 1
    checked: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class TileNode(Node):
    """Base of the tile nodes."""

    dialect: ClassVar[str] = "ttile"


@dataclass(frozen=True, slots=True, eq=False)
class Alloc(TileNode):
    """A scratch buffer private to one instance of the enclosing loops; contents undefined. Type: memref, static."""

    effects: ClassVar[bool] = True
    result: Def
    binding: Binding | None = None


@dataclass(frozen=True, slots=True, eq=False)
class View(TileNode):
    """A window into `buffer` that starts at `offsets` (one per buffer axis) and has one entry of `axes` per tile axis.

    `indices`, an integer tile that broadcasts to the view's shape, is added to the coordinate on `gather_axis`; with
    `gather_checked`, elements that it takes outside the buffer are outside the view's domain. Type: memref of the
    tile's static shape.
    """

    result: Def
    buffer: Use
    offsets: tuple[Extent, ...]
    axes: tuple[ViewAxis, ...]
    indices: Use | None = None
    gather_axis: int = -1
    binding: Binding | None = None
    gather_checked: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Load(TileNode):
    """The tile that a view shows; `pad` outside its domain, an infinity being the extreme of an integer type."""

    effects: ClassVar[bool] = True
    result: Def
    view: Use
    pad: float = 0.0
    binding: Binding | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Store(TileNode):
    """Write a tile through a view, inside its domain only."""

    effects: ClassVar[bool] = True
    view: Use
    value: Use
    binding: Binding | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Copy(TileNode):
    """Copy view to view, `pad` outside the source's domain; may be asynchronous where bound so, until `Wait`."""

    effects: ClassVar[bool] = True
    source: Use
    target: Use
    pad: float = 0.0
    binding: Binding | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Wait(TileNode):
    """All copies before the last `pending` ones are complete."""

    effects: ClassVar[bool] = True
    pending: int = 0
    binding: Binding | None = None


@dataclass(frozen=True, slots=True, eq=False)
class For(TileNode):
    """index = 0, step, 2*step, ... while index < extent; the body maps carried values to their next values."""

    effects: ClassVar[bool] = True
    results: tuple[Def, ...]
    index: Symbol
    extent: Extent
    step: int
    carried: tuple[Use, ...]
    body: Region
    binding: Binding | None = None


@dataclass(frozen=True, slots=True, eq=False)
class If(TileNode):
    """Run one of two regions; `left relation right` compares index expressions."""

    effects: ClassVar[bool] = True
    results: tuple[Def, ...]
    left: Extent
    relation: Relation
    right: Extent
    then: Region
    otherwise: Region
    binding: Binding | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Let(TileNode):
    """In the body, `index` is the only element of the integer tile `value`: data become an index expression.

    The element must lie in 0..extent-1; where it does not, the kernel ends with the status INDEX_OUT_OF_RANGE.
    """

    effects: ClassVar[bool] = True
    results: tuple[Def, ...]
    index: Symbol
    value: Use
    extent: Extent
    body: Region
    binding: Binding | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Contract(TileNode):
    """result = acc + sum over shared axes of a * b; a and b are tiles or views in any space.

    `spec` names the axes of each, e.g. "mk,kn->mn"; axes that are not in the result are summed. The result has acc's
    element type, in which products are formed and added; `order`: "seq" (k ascending, fused multiply-add) or "hw".
    """

    result: Def
    acc: Use
    a: Use
    b: Use
    spec: str
    order: str = "seq"
    binding: Binding | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Map(TileNode):
    """Elementwise `program` over tiles of equal rank whose axes are equal or 1 (broadcast). No operands: a constant."""

    result: Def
    operands: tuple[Use, ...]
    program: ScalarProgram
    binding: Binding | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Reduce(TileNode):
    """Combine along `axes`, which stay with extent 1. `combine` takes two tuples of values and gives one.

    `order`: "seq" (ascending) or "tree(n)": n interleaved partial results (element i goes to partial i mod n), each
    ascending from `identity`, then combined pairwise with halving distance: partial j with partial j + n/2, ...
    """

    results: tuple[Def, ...]
    operands: tuple[Use, ...]
    axes: tuple[int, ...]
    combine: ScalarProgram
    identity: tuple[float, ...]
    order: str = "seq"
    binding: Binding | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Permute(TileNode):
    """The tile with its axes in the order `permutation`."""

    result: Def
    operand: Use
    permutation: tuple[int, ...]
    binding: Binding | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Iota(TileNode):
    """offset + i along `axis`, constant along the others; integer type."""

    result: Def
    axis: int
    offset: Extent
    binding: Binding | None = None
