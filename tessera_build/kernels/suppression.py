"""Non-maximum suppression: the best boxes of every class, without those that overlap a better one too much.

Takes boxes[B, N, 4], scores[B, C, N] and limits; gives, for each class of each batch, the boxes chosen, best first,
and how many. Invariant: the candidates' heap lies at the end of the memory that takes the result, and never meets
what has been chosen, because each turn takes one candidate and chooses at most one.
"""

from __future__ import annotations

from dataclasses import dataclass

from tessera.kernel import kernel
from tessera.tile import Carry, TileBuilder
from tessera.values import Buffer, Tile
from tessera_build.ir.core.dims import Extent, floordiv, minimum, mod
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import F32, I32, I64
from tessera_build.kernels.keys import key_of, place_of
from tessera_build.kernels.ordering import Heap, Item, levels_of
from tessera_build.kernels.subject import KernelSubject
from tessera_build.kernels.top_k import any_of


def suppress(subject: KernelSubject) -> Function:
    """chosen[b, c, 0 .. counts[b, c] - 1] = boxes by score, none with an overlap above `iou` with one before it."""
    batches, classes, boxes = subject.operands[1].shape
    names = ("boxes", "scores", "most", "iou", "least")
    operands = {name: subject.buffer(position) for position, name in enumerate(names)}

    @kernel(**operands, chosen=subject.target(0), counts=subject.target(1))
    def suppress(tile: TileBuilder, chosen: Buffer, counts: Buffer, **given: Buffer) -> None:
        for line in tile.range(batches * classes):
            b, c = floordiv(line, classes), mod(line, classes)
            one = _Class(tile, given, chosen, (b, c), centred=subject.flag("centred"), lanes=subject.lanes)
            number = one.choose(one.candidates(boxes), boxes)
            tile.put(number, counts, b, c)
            first = tile.index(number, boxes + 1)
            width = subject.lanes
            for i in tile.range(boxes - first, width):
                start = first + i
                tile.store(chosen[b, c, start : start + width], tile.full((width,), 0, I64))

    return suppress


def listed(subject: KernelSubject) -> Function:
    """rows[:, 0 .. total - 1] = (b, c, chosen[b, c, i]) for every i below counts[b, c], in order."""
    batches, classes, boxes = subject.operands[0].shape

    @kernel(chosen=subject.buffer(0), counts=subject.buffer(1), rows=subject.target(0), total=subject.target(1))
    def listed(tile: TileBuilder, chosen: Buffer, counts: Buffer, rows: Buffer, total: Buffer) -> None:
        width = subject.lanes
        for i in tile.range(rows.shape[1], width):
            for column in range(3):
                tile.store(rows[column, i : i + width], tile.full((width,), 0, I64))
        state = Carry(row=tile.constant(0, I64))
        for line in tile.range(batches * classes, carry=state):
            b, c = floordiv(line, classes), mod(line, classes)
            count = tile.element(counts, b, c)
            start = tile.index(state.row, rows.shape[1] + 1)
            for i in tile.range(tile.index(count, boxes + 1)):
                for column, value in enumerate((tile.number(b), tile.number(c), tile.element(chosen, b, c, i))):
                    tile.put(value, rows, column, start + i)
            state.row = state.row + count
        tile.put(state.row, total)

    return listed


@dataclass(frozen=True, slots=True)
class _Class:
    tile: TileBuilder
    given: dict[str, Buffer]
    chosen: Buffer
    at: tuple[Extent, Extent]
    centred: bool
    lanes: int

    def candidates(self, boxes: Extent) -> Extent:
        """Write the boxes whose score is above the least one from the end of the memory backwards; how many."""
        tile, (b, c), width = self.tile, self.at, self.lanes
        least = tile.load(self.given["least"][None])
        state = Carry(count=tile.constant(0, I64))
        scores = self.given["scores"]
        for first in tile.range(boxes, width, carry=state):
            block = tile.load(scores[b, c, first : first + width], pad=float("-inf"))
            good = _number_of(tile, block > least)
            number, slot = tile.index(good, width + 1), tile.index(state.count, boxes + 1)
            with tile.when(number, "eq", width, carry=state):  # a heap takes them in any order
                start = boxes - width - slot
                keys = key_of(tile, block, tile.iota((width,), 0, first, I64), largest=True)
                tile.store(self.chosen[b, c, start : start + width], keys)
                state.count = state.count + width
            with tile.when(mod(number, width), "ne", 0, carry=state):
                for n in tile.range(minimum(width, boxes - first), carry=state):
                    # Written in any case, for a branch could not be foreseen: the next candidate overwrites it.
                    i, score = first + n, tile.element(scores, b, c, first + n)
                    slot = tile.index(state.count, boxes)
                    tile.put(key_of(tile, score, tile.number(i), largest=True), self.chosen, b, c, boxes - 1 - slot)
                    state.count = state.count + tile.cast(score > least, I64)
        return tile.index(state.count, boxes + 1)

    def choose(self, count: Extent, boxes: Extent) -> Tile:
        """Take the candidates best first, and keep those that overlap none that was kept."""
        tile = self.tile
        heap = self._heap(count, boxes)
        heap.arrange()
        most = tile.map("max", tile.load(self.given["most"][None]), tile.constant(0, I64))
        limit = tile.index(tile.map("min", most, tile.number(boxes)), boxes + 1)
        state = Carry(kept=tile.constant(0, I64))
        for turn in tile.range(count, carry=state):
            kept = tile.index(state.kept, boxes + 1)
            with tile.when(kept, "lt", limit, carry=state):
                best = place_of(tile, heap.get(0)[0])
                last = count - 1 - turn
                heap.sink(tile.constant(0, I64), tile.number(last), heap.get(last))
                box = tile.index(best, boxes)
                free = tile.constant(1, I64) - self._overlaps(box, kept)
                with tile.when(0, "lt", tile.index(free, 2)):
                    tile.put(best, self.chosen, *self.at, kept)
                state.kept = state.kept + free
        return state.kept

    def _heap(self, count: Extent, boxes: Extent) -> Heap:
        """The candidates with the best one first; element i lies i places before the end."""
        tile, (b, c) = self.tile, self.at

        def get(i: Extent) -> Item:
            return (tile.element(self.chosen, b, c, boxes - 1 - i),)

        def put(i: Extent, item: Item) -> None:
            tile.put(item[0], self.chosen, b, c, boxes - 1 - i)

        return Heap(tile, count, get, put, lambda a, b: b[0] < a[0], levels_of(tile, count))

    def _overlaps(self, box: Extent, kept: Extent) -> Tile:
        """1 where a box overlaps one of the first `kept` chosen ones by more than `iou`, else 0."""
        tile, (b, c) = self.tile, self.at
        iou = tile.load(self.given["iou"][None])
        own = self._corners([tile.element(self.given["boxes"], b, box, k) for k in range(4)])
        state = Carry(hit=tile.constant(0, I64))
        for first in tile.range(kept, self.lanes, carry=state):
            places = tile.load(self.chosen[b, c, first : first + self.lanes])
            behind = tile.iota((self.lanes,), 0, first - kept, I64) < 0
            places = tile.where(behind, places, tile.full((self.lanes,), -1, I64))
            other = self._corners([tile.load(self.given["boxes"][b, places, k]) for k in range(4)])
            state.hit = tile.map("max", state.hit, tile.cast(any_of(tile, self._over(own, other, iou)), I64))
        return state.hit

    def _corners(self, box: list[Tile]) -> tuple[Tile, Tile, Tile, Tile]:
        """Least and largest coordinates of boxes stated by two corners, or by centre and size."""
        tile = self.tile
        if self.centred:
            x, y, width, height = box
            return x - width / 2.0, y - height / 2.0, x + width / 2.0, y + height / 2.0
        a, b, c, d = box
        return tile.map("min", a, c), tile.map("min", b, d), tile.map("max", a, c), tile.map("max", b, d)

    def _over(self, a: tuple[Tile, ...], b: tuple[Tile, ...], iou: Tile) -> Tile:
        """Whether boxes overlap by more than a part of their union; those without an area never do."""
        tile, zero = self.tile, self.tile.constant(0.0, F32)
        sides = [tile.map("min", a[k + 2], b[k + 2]) - tile.map("max", a[k], b[k]) for k in range(2)]
        common = tile.map("max", sides[0], zero) * tile.map("max", sides[1], zero)
        areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
        union = areas[0] + areas[1] - common
        solid = tile.map("and", tile.map("and", areas[0] > zero, areas[1] > zero), union > zero)
        return tile.map("and", solid, common / union > iou)


def _number_of(tile: TileBuilder, flags: Tile) -> Tile:
    """How many flags of the tile are set."""
    return tile.sum(tile.cast(flags, I32), 0, "tree(16)")
