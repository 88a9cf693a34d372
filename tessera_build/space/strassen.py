"""Strassen's algorithm for products: where seven products of quarters may take the place of eight.

Takes a sum of products; gives which of its axes are halved. With A and B cut into quarters,

    s1 = a21 + a22, s2 = s1 - a11, s3 = a11 - a21, s4 = a12 - s2
    t1 = b12 - b11, t2 = b22 - t1, t3 = t2 - b11, t4 = b21 - t2
    u = a11 b11 + s2 t2, v = u + s3 t3, w = s1 t1
    c11 = a11 b11 + a12 b21, c12 = u + w + s4 b22, c21 = v + a22 t4, c22 = v + w

which is Winograd's form with the fewest sums, its t4 negated. Invariant: what is looked at is how indices move with
axes; rows are paired along an axis that is not the first, because along that one a batch may hold several requests.
Rows of an unknown number are those of one request where an entry mixes them (`ir/graph/mixing.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tessera_build.ir.core.dims import Extent, Range, bounds, floordiv, symbol, symbols_of
from tessera_build.ir.core.types import F32, int_extent
from tessera_build.ir.schedule.nodes import Axis, Compute
from tessera_build.space.contraction import is_product
from tessera_build.space.strassen_error import HALVES, halving_error
from tessera_build.space.workload import Rewriting, Subject

STRASSEN: Final = "strassen"
QUARTERS: Final = 4
# Quarters of the weights, and sums of them, that are stored: b11, b21, b22 and t1. The others are sums of these.
STORED: Final = 4
B11, B21, B22, T1 = range(STORED)
MADE: Final = 3
# Sums of quarters of A that are stored: s1, s2, s3 and s4.
SUMS: Final = 4
# Steps of half the depth that are summed at a time: sums of weights for more leave no room in the second-level cache,
# and those for fewer are begun and ended too often.
_PIECES: Final = (96, 512)
_STEP: Final = 16
# Bytes of the first operand that are halved together. Of more, its quarters and their sums are gone from the caches
# when the next panel reads them: 1000 x 3072 x 768 takes 1.21 of the direct sum's time as one, 0.95 in eight blocks.
_BLOCK_BYTES: Final = 2 << 20
_LEAST_BLOCK: Final = 96
_MOST_BLOCK: Final = 1024  # of rows whose number is not known, of which the memory for results must be
# Rows of a half: with 16 the direct sum is up to a fifth faster, because weights that come from memory are used too
# seldom; with 25, as of images of 7 x 7, 2 to 4 %. With 26 and more this is 2 to 20 % faster.
LEAST_ROWS: Final = 26


@dataclass(frozen=True, slots=True)
class Product:
    """A product: the axis whose rows are paired, the one that is summed, and where the second read has depth, outputs.

    Rows that lie evenly along two axes, as those of an image, are one axis: `over` is the outer of them, and `line` the
    extent of the inner one. `number` of rows are cut into `blocks` that differ by at most one row; both may follow from
    dims, and then a block has `most` rows at most. `depth_extent` and `outputs` are even.
    """

    rows: str
    depth: str
    weight: tuple[int, int]
    number: Extent
    depth_extent: int
    outputs: int
    over: str = ""
    line: int = 1
    blocks: Extent = 1
    most: int = 0

    @property
    def block(self) -> str:
        """The index of the loop over blocks of rows."""
        return f"{self.rows}_block"

    @property
    def dynamic(self) -> bool:
        """Whether the number of rows follows from dims."""
        return not isinstance(self.number, int)

    def begin(self, block: Extent) -> Extent:
        """The first row of a block."""
        return floordiv(self.number * block, self.blocks)

    @property
    def first(self) -> Extent:
        """The first row of the block that a loop is at."""
        return 0 if self.blocks == 1 else self.begin(symbol(self.block))

    @property
    def height(self) -> Extent:
        """The rows of that block."""
        return self.number if self.blocks == 1 else self.begin(symbol(self.block) + 1) - self.first

    @property
    def quarter(self) -> tuple[Extent, int, int]:
        """Rows, depth and outputs of a quarter of it; the middle row of an odd number is in both halves."""
        return -(-self.height // HALVES), self.depth_extent // HALVES, self.outputs // HALVES

    @property
    def summed(self) -> Extent:
        """Rows of sums of all blocks; those of one begin at `sums_begin`."""
        return (self.number + self.blocks) // HALVES

    @property
    def sums_begin(self) -> Extent:
        """The first row of the sums of the block that a loop is at; each has room for half of its rows, rounded up."""
        return 0 if self.blocks == 1 else (self.first + symbol(self.block)) // HALVES

    @property
    def largest(self) -> tuple[Extent, int]:
        """The rows that a quarter of any block has at most: exactly, and where dims decide that, without them."""
        longest = floordiv(self.number + (self.blocks - 1), self.blocks)
        rows = (longest + 1) // HALVES
        return rows, rows if isinstance(rows, int) else -(-self.most // HALVES)

    @property
    def below(self) -> Extent:
        """The first row of the lower half."""
        return self.height - self.quarter[0]

    @property
    def shares_a_row(self) -> bool:
        """Whether both halves may have the middle row: whoever computes its upper half last decides."""
        return self.height % HALVES != 0

    @property
    def paired(self) -> tuple[str, ...]:
        """The axes of the rows, outer first."""
        return (self.over, self.rows) if self.over else (self.rows,)


def product_of(node: Compute, strides: Sequence[Extent] = ()) -> Product | None:
    """The product of f32 that a definition is, if it is one whose axes can be halved; `strides`: of its first read."""
    if not is_product(node) or set(node.program.inputs) != {F32} or len(node.reduction) != 1 or len(node.axes) < HALVES:
        return None
    (depth,), vector = node.reduction, node.axes[-1]
    *outer, last = node.accesses[0].indices
    used = {name for index in outer for name in symbols_of(index)}
    weight = _places(node, depth.name)
    if node.accesses[0].pad is not None or last != symbol(depth.name) or depth.name in used or weight is None:
        return None
    rows = [axis for axis in node.axes[1:-1] if axis.name in used]
    if not rows or vector.name in used or not _walks_alone(outer, rows[-1].name):
        return None
    known = [axis for axis in (*node.axes[1:], depth) if axis != rows[-1] or len(rows) > 1]
    if not all(isinstance(axis.extent, int) for axis in known):
        return None
    over = rows[-2] if len(rows) > 1 and _even(outer, strides, (rows[-2], rows[-1])) else None
    line = rows[-1].extent
    number = line if over is None else line * over.extent
    length, width = int_extent(depth.extent), int_extent(vector.extent)
    if (isinstance(number, int) and number < HALVES) or length % HALVES or width % HALVES:
        return None
    product = Product(rows[-1].name, depth.name, weight, number, length, width)
    if over is not None:
        product = replace(product, over=over.name, line=int_extent(line))
    if isinstance(number, int):
        return replace(product, blocks=blocks_of(number, length))
    most = block_of_any(length)
    return replace(product, blocks=number // most + 1, most=most)


def may_be_halved(rows: Extent, ranges: Mapping[str, Range]) -> bool:
    """Whether there may be as many rows as are worth halving."""
    most = bounds(rows, ranges)[1]
    return most is None or most >= HALVES * LEAST_ROWS


def block_of_any(depth: int) -> int:
    """The most rows of a block where their number is not known; half of them are still worth halving."""
    return min(max(_BLOCK_BYTES // (depth * F32.bytes), 2 * HALVES * LEAST_ROWS), _MOST_BLOCK)


def blocks_of(rows: int, depth: int) -> int:
    """Into how many equal blocks rows are cut: the fewest that are small enough, else as many as are worth halving."""
    whole = [n for n in range(1, rows // _LEAST_BLOCK + 1) if rows % n == 0] or [1]
    return next((n for n in whole if rows // n * depth * F32.bytes <= _BLOCK_BYTES), whole[-1])


def _walks_alone(indices: Sequence[Extent], axis: str) -> bool:
    """Whether one index moves with the axis, and with nothing else."""
    moved = [index for index in indices if axis in symbols_of(index)]
    return len(moved) == 1 and symbols_of(moved[0]) == frozenset({axis})


def _even(indices: Sequence[Extent], strides: Sequence[Extent], pair: tuple[Axis, Axis]) -> bool:
    """Whether two axes move neighbouring indices, and a turn of the outer is as far as all of the inner."""
    outer, inner = (symbol(axis.name) for axis in pair)
    if outer not in indices or inner not in indices or len(strides) <= len(indices):
        return False
    place = indices.index(outer)
    return indices.index(inner) == place + 1 and strides[place] == strides[place + 1] * pair[1].extent


def _places(node: Compute, depth: str) -> tuple[int, int] | None:
    """Where the second read has the depth and the outputs, each alone and nothing besides."""
    indices = node.accesses[1].indices
    wanted: list[Extent] = [symbol(depth), symbol(node.axes[-1].name)]
    alone = all(index in wanted or index == 0 for index in indices)
    if node.accesses[1].pad is not None or not alone or any(indices.count(w) != 1 for w in wanted):
        return None
    return indices.index(wanted[0]), indices.index(wanted[1])


def strassen_rewriting(node: Compute, subject: Subject) -> Rewriting | None:
    """The pieces of depth whose sums err by no more than the policy allows, for these weights."""
    bound, product = subject.bounds.products, product_of(node, subject.strides.get(node.reads[0], ()))
    if bound <= 0 or product is None or node.reads[1] not in subject.constants:
        return None
    half = product.depth_extent // HALVES
    pieces = [size for size in range(_STEP, half + 1, _STEP) if half % size == 0 and _PIECES[0] <= size <= _PIECES[1]]
    weights = subject.constants[node.reads[1]]
    while pieces and not halving_error(weights, product.weight, pieces[-1]) <= bound:  # sums of fewer steps err less
        pieces.pop()
    return Rewriting(STRASSEN, tuple(pieces), (*product.paired, product.depth)) if pieces else None
