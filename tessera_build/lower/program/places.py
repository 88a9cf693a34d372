"""Where values live: roots of memory, strides inside them, zero borders, and which copies that makes needless.

Takes an entry's tasks; gives a `Place` per value and the copies that remain. Three rules: a reshape is the same memory
when that memory is dense; an input of a concatenation is written straight into the result, also where it is a reshape
of what is made, or must be dense, and its part of the result is dense; a value that padded windows read is stored with
the border they expect. Invariant: two values share memory only if one is a view of the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tessera_build.ir.core.dims import Extent, symbols_of
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.structure import symbols_defined_by
from tessera_build.ir.core.types import Type
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.ir.graph.ops.op import extents_of
from tessera_build.lower.graph_to_schedule.fusion import cut_axis
from tessera_build.lower.graph_to_schedule.tasks import Task
from tessera_build.lower.schedule_to_tile.layouts import BufferLayout
from tessera_build.lower.tile_to_target.values import row_major

# Rows whose distance is a multiple of this many bytes fall into one set of the first-level cache: a 14-row register
# tile then misses on every load (measured: 1x1 1024 -> 256 at 74 % of peak instead of 90 %). So do the rows of a second
# matrix, of which every tile reads the same columns.
ALIASING_BYTES = 4096
PITCH_PADDING_BYTES = 64


@dataclass(frozen=True, slots=True)
class Border:
    """A stored border: per axis the elements before and after, and the value they hold."""

    widths: tuple[tuple[int, int], ...]
    fill: float


@dataclass(frozen=True, slots=True)
class Place:
    """`root` is the value that owns the memory; `offset` (elements) and `strides` find this value in it."""

    root: int
    offset: Extent
    strides: tuple[Extent, ...]
    border: Border | None = None

    def layout(self, shape: Sequence[Extent]) -> BufferLayout:
        """What loop nests need to know."""
        dense = self.strides == row_major(tuple(shape)) and self.border is None
        return BufferLayout(None if dense else self.strides, self.border.widths if self.border else ())


@dataclass(slots=True)
class Places:
    """All places of one entry; `sizes` is the storage of each root in elements."""

    of: dict[int, Place] = field(default_factory=dict[int, Place])
    sizes: dict[int, Extent] = field(default_factory=dict[int, Extent])


def window_border(node: GraphNode, value: int) -> Border | None:
    """The border that a windowed node wants around its first operand, if it pads at all."""
    if node.op not in {"conv", "reduce_window"} or node.inputs[0] != value:
        return None
    low, high = (_pair(node.attributes[n]) for n in ("low", "high"))
    if not any(low) and not any(high):
        return None
    if node.op == "reduce_window":
        fill = {"max": float("-inf"), "min": float("inf")}.get(str(node.attributes["kind"]), 0.0)
        return Border(tuple(zip(low, high, strict=True)), fill)
    if node.attributes["layout"] == "NCHW":
        return None  # vectors along the pixels are masked at both ends anyway
    return Border(((0, 0), *zip(low, high, strict=True), (0, 0)), 0.0)


def _pair(value: object) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, tuple) else ()  # type: ignore[arg-type]


def wanted_border(tasks: Sequence[Task], value: int) -> Border | None:
    """One border that answers every padded reader of a value; None when there is none or they disagree."""
    found = [b for task in tasks for node in task.nodes if (b := window_border(node, value)) is not None]
    if not found or len({b.fill for b in found}) > 1:
        return None
    widths = tuple(
        (max(b.widths[i][0] for b in found), max(b.widths[i][1] for b in found)) for i in range(len(found[0].widths))
    )
    return Border(widths, found[0].fill)


def _windows(tasks: Sequence[Task]) -> Mapping[int, Sequence[Task]]:
    """The tasks that may read a value through windows: few of thousands, and every value asks for its own."""
    found: defaultdict[int, list[Task]] = defaultdict(list)
    for task in tasks:
        for value in {node.inputs[0] for node in task.nodes if node.op in {"conv", "reduce_window"}}:
            found[value].append(task)
    return found


class Placer:
    """Decides places for the values of one entry, from the last task to the first."""

    def __init__(self, function: Function, tasks: Sequence[Task], external: set[int]) -> None:
        self._types: Mapping[int, Type] = function.types
        self._tasks = tasks
        self._external = external  # inputs and constants: dense memory that is not ours
        self._results = set(function.results)
        self._made = {v: task for task in tasks for v in task.outputs}
        self._dense = self._must_be_dense()
        self._read_at = {s: i for i, t in enumerate(tasks) for n in t.nodes for s in symbols_defined_by(n)}
        self._position = {v: i for i, task in enumerate(tasks) for v in task.outputs}
        self._windows = _windows(tasks)
        self._rows = {n.inputs[0] for t in tasks for n in t.nodes if n.op in {"matmul", "conv"}}
        self._rows |= {n.inputs[1] for t in tasks for n in t.nodes if n.op == "matmul"}
        self.places = Places()
        self.copies: set[tuple[int, int]] = set()  # (concatenation's result, input) that must be copied

    def run(self) -> Places:
        """Place every value: owners of memory from the last task to the first, then reshapes from first to last."""
        for value in self._external:
            self._root(value, None, False)
        for task in reversed(self._tasks):
            if task.kind == "view":
                continue
            for value in task.outputs:
                self._place(value)
            if task.kind == "concat":
                self._place_parts(task)
        for task in self._tasks:
            if task.kind == "view":
                self.places.of[task.nodes[0].output] = self._seen_through(task.nodes[0])
        return self.places

    def _seen_through(self, node: GraphNode) -> Place:
        """The place of a reshape, or of a slice that is one piece of its operand's dense memory."""
        place, shape = self.places.of[node.inputs[0]], self._types[node.inputs[0]].shape
        offset = place.offset
        axis = cut_axis(node, shape) if node.op == "slice" else None
        if axis is not None:
            offset = offset + extents_of(node.attributes, "starts")[axis] * row_major(shape)[axis]
        return replace(place, offset=offset, strides=row_major(self._types[node.output].shape))

    def _must_be_dense(self) -> set[int]:
        """Values that others see through a reshape, that leave the entry, or that a written kernel reads."""
        dense = set(self._results)
        for task in self._tasks:
            if task.kind in {"view", "kernel", "control", "read"}:
                dense.update(task.inputs)
                dense.update(task.outputs)
        return dense

    def _place(self, value: int) -> None:
        if value in self.places.of:
            return
        border = None if value in self._dense else wanted_border(self._windows.get(value, ()), value)
        self._root(value, border, value in self._rows and value not in self._dense)

    def _root(self, value: int, border: Border | None, pitched: bool) -> None:
        if value in self.places.of:
            return
        shape = self._types[value].shape
        stored = [e + (sum(border.widths[i]) if border else 0) for i, e in enumerate(shape)]
        pitch = self._pitch(value, stored) if pitched and shape else None
        if pitch is not None:
            stored[-1] = pitch
        strides = row_major(tuple(stored))
        offset: Extent = 0
        for i, stride in enumerate(strides):
            offset = offset + stride * (border.widths[i][0] if border else 0)
        size: Extent = 1
        for extent in stored:
            size = size * extent
        self.places.of[value] = Place(value, offset, strides, border)
        self.places.sizes[value] = size

    def _pitch(self, value: int, stored: Sequence[Extent]) -> int | None:
        """A padded row length where rows would otherwise alias in the first-level cache."""
        last, width = stored[-1], self._types[value].dtype.bytes
        if isinstance(last, int) and len(stored) > 1 and last * width % ALIASING_BYTES == 0:
            return last + PITCH_PADDING_BYTES // width
        return None

    def _sized_before(self, root: int, value: int) -> bool:
        """Whether the memory's size is known when a value is made: no size from data is read only afterwards."""
        symbols = {name for extent in self._types[root].shape for name in symbols_of(extent)}
        return all(self._read_at.get(name, -1) < self._position[value] for name in symbols)

    def _place_parts(self, task: Task) -> None:
        """Inputs of a concatenation that nobody placed yet are written straight into its result."""
        node = task.nodes[0]
        outer = self.places.of[node.output]
        axis = node.attributes["axis"]
        position = axis if isinstance(axis, int) else 0
        dense = self._parts_are_dense(node.output, position)
        start: Extent = 0
        for value in node.inputs:
            offset = outer.offset + start * outer.strides[position]
            made = self._seen_by(value) if dense else value
            if node.inputs.count(value) == 1 and self._is_free(made, dense) and self._sized_before(outer.root, made):
                strides = row_major(self._types[made].shape) if dense else outer.strides
                self.places.of[made] = Place(outer.root, offset, strides)
            else:
                self.copies.add((node.output, value))
            start = start + self._types[value].shape[position]

    def _parts_are_dense(self, value: int, position: int) -> bool:
        """Whether each part of a concatenation's result is one piece of memory, in order."""
        place, shape = self.places.of[value], self._types[value].shape
        before = all(extent == 1 for extent in shape[:position])
        return before and place.border is None and place.strides[position:] == row_major(shape)[position:]

    def _seen_by(self, value: int) -> int:
        """What a reshape shows, or a reshape of it."""
        while value in self._made and self._made[value].kind == "view" and self._made[value].nodes[0].op == "reshape":
            value = self._made[value].nodes[0].inputs[0]
        return value

    def _is_free(self, value: int, dense: bool) -> bool:
        """Whether a value can be made in a place that is not its own, which is `dense` or not."""
        task = self._made.get(value)
        if task is None or task.kind in {"view", "control"} or value in self._results or value in self.places.of:
            return False
        return (dense or value not in self._dense) and wanted_border(self._windows.get(value, ()), value) is None
