"""The pieces every loop nest is made of: loops, views of accesses, elementwise evaluation, stores.

Takes a task, tile sizes and buffer layouts; appends Tile nodes. Every tile has one axis per axis of the task's domain
(extent 1 where it does not vary). Invariant: at any point `offsets` says where the current tile starts on each axis,
and `memo` holds the tiles already computed at exactly those offsets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tessera_build.ir.core.dims import Extent, minimum, substitute, symbol, symbols_of
from tessera_build.ir.core.rewrite import FunctionBuilder
from tessera_build.ir.core.scalar import ScalarBuilder
from tessera_build.ir.core.types import I32, I64, DType, memref, number_in, tile
from tessera_build.ir.schedule.nodes import Access, Compute
from tessera_build.ir.schedule.trace import ScheduleRejectedError
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.graph_to_schedule.tasks import Task
from tessera_build.lower.schedule_to_tile.indices import coefficient, may_leave, without_zeros
from tessera_build.lower.schedule_to_tile.layouts import DENSE, BufferLayout, Packing
from tessera_build.space.crossing import crosses

Body = Callable[[tuple[int, ...]], tuple[int, ...]]
# The operand that is no graph value: memory that lives as long as its task, and that its launches share.
SCRATCH: Final = -1


@dataclass(frozen=True, slots=True)
class Operand:
    """One buffer argument of a tile program: a graph value, in some packing if it is a constant.

    `split` (axis, size): the buffer is seen with that axis cut into groups, so that tiles end with their group.
    `merged`: it is seen with that axis and the next one as one, along which elements lie evenly.
    """

    value: int
    packing: Packing | None = None
    split: tuple[int, int] | None = None
    merged: int | None = None


@dataclass(frozen=True, slots=True)
class Scratch:
    """Memory of the program's own that holds a part of a value: an `Alloc`, and where in it an element lies."""

    buffer: int
    shape: tuple[int, ...]
    place: Callable[[Sequence[Extent]], tuple[Extent, ...]]


@dataclass(frozen=True, slots=True)
class LoopRange:
    """The range of one loop: its index runs over 0, step, 2*step, ... below `extent`, in `scope` if bound."""

    index: str
    extent: Extent
    step: int = 1
    scope: str | None = None


@dataclass(slots=True)
class Nest:
    """A tile program under construction."""

    task: Task
    tiles: dict[str, int]
    layouts: Mapping[int, BufferLayout]
    builder: FunctionBuilder
    domain: dict[str, Extent]
    positions: tuple[Extent, ...]
    lanes: int
    packed: dict[tuple[int, Access], tuple[Packing, tuple[Extent, ...], tuple[Extent, ...]]]
    operands: list[Operand] = field(default_factory=list[Operand])
    buffers: dict[Operand, int] = field(default_factory=dict[Operand, int])
    offsets: dict[str, Extent] = field(default_factory=dict[str, Extent])
    ragged: set[str] = field(default_factory=set[str])
    memo: dict[int, int] = field(default_factory=dict[int, int])
    spilled: dict[int, int] = field(default_factory=dict[int, int])
    renamed: dict[str, Extent] = field(default_factory=dict[str, Extent])
    scratch: Mapping[int, Scratch] = field(default_factory=dict[int, Scratch])

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the domain's axes."""
        return tuple(self.domain)

    def expressed(self, index: Extent) -> Extent:
        """An index over the definition's axes (d0, d1, ...) as one over the domain's axes after grouping."""
        moved = substitute(index, {f"_d{i}": p for i, p in enumerate(self.positions)})
        return without_zeros(moved, {a: (0, e - 1) for a, e in self.domain.items() if isinstance(e, int)})

    def definition(self, value: int) -> Compute | None:
        """The definition of a value inside the task."""
        for node in self.task.function.nodes:
            if isinstance(node, Compute) and node.result == value:
                return node
        return None

    def dtype(self, value: int) -> DType:
        """Element type of a graph value."""
        return self.task.function.types[value].dtype

    def map(self, shape: Sequence[int], operands: Sequence[int], build: Callable[[ScalarBuilder], int]) -> int:
        """A Map node whose program is built in place."""
        scalars = ScalarBuilder([self.builder.types[o].dtype for o in operands])
        program = scalars.finish(build(scalars))
        kind = tile(program.dtype(program.results[0]), *shape)
        return self.builder.emit(lambda r: t.Map(r, tuple(operands), program), kind)

    def constant(self, value: float, dtype: DType, shape: Sequence[int]) -> int:
        """A tile with one value everywhere."""
        return self.map(shape, (), lambda s: s.const(number_in(value, dtype), dtype))

    # -- loops ------------------------------------------------------------------------------------------------------

    def loop(self, span: LoopRange, carried: tuple[int, ...], body: Body) -> tuple[int, ...]:
        """A For node around `body`, which maps carried tiles to their next values."""
        b = self.builder
        types = [b.types[c] for c in carried]
        with b.region(types) as region:
            region.yields(*body(region.args))
        results = b.values(types)
        binding = t.Binding(scope=span.scope) if span.scope else None
        b.add(t.For(results, span.index, span.extent, span.step, carried, region.region, binding))
        return results

    def place(self, axis: str, index: Extent) -> None:
        """Put the tile at `index` on an axis; a tile that would reach over a known end is moved back inside."""
        size, extent = self.tiles.get(axis, 1), self.domain[axis]
        if axis in self.ragged or size == 1 or (isinstance(extent, int) and extent % size == 0):
            self.offsets[axis] = index
        else:
            self.offsets[axis] = minimum(index, extent - size)

    # -- views ------------------------------------------------------------------------------------------------------

    def buffer(self, operand: Operand, shape: Sequence[Extent]) -> int:
        """The function argument for a buffer, made at first use; scratch memory is there already."""
        if operand.value in self.scratch:
            return self.scratch[operand.value].buffer
        if operand not in self.buffers:
            self.buffers[operand] = self.builder.arg(memref(self.dtype(operand.value), *shape))
            self.operands.append(operand)
        return self.buffers[operand]

    def view(self, value: int, access: Access, axes: Sequence[str], gather: tuple[str, int] | None = None) -> int:
        """A view of what `access` reads of a buffer while the tile moves over `axes` (name -> one tile axis each)."""
        operand, shape, indices = self.resolve(value, access)
        if value in self.scratch:  # what a window reads outside the image is stored there as zeros
            access = Access(access.indices)
        buffer = self.buffer(operand, shape)
        if operand.packing is not None and operand.packing.width:
            self._enter_panel(operand.packing.width)
        walks = [self._walk(axis, (indices, shape), access) for axis in axes]
        if access.pad is not None:
            self._check_unmoved(axes, walks, (indices, shape))
        sizes = [1 if walk.axis < 0 else self.tiles.get(axis, 1) for axis, walk in zip(axes, walks, strict=True)]
        gathered, position = self._gathered(indices, gather)
        offsets = tuple(substitute(i, self.offsets) for i in gathered)
        stored = self._stored(value, access, walks)
        kind = memref(self.dtype(value), *sizes)
        index_tile = self._from_start(gather[1], shape[position]) if gather and position >= 0 else None
        binding = t.Binding(stored=True) if stored else None
        return self.builder.emit(
            lambda r: t.View(r, buffer, offsets, tuple(walks), index_tile, position, binding), kind
        )

    def _enter_panel(self, width: int) -> None:
        """Which panel the tile starts in, and where in it."""
        vector = self.axes[-1]
        start, whole = self.offsets[vector], self.tiles.get(vector, 1) == width
        self.offsets.update({f"{vector}_panel": start // width, f"{vector}_lane": 0 if whole else start % width})

    def depends(self, value: int, access: Access, axis: str) -> bool:
        """Whether what `access` reads changes along an axis."""
        return any(axis in symbols_of(i) for i in self.resolve(value, access)[2])

    def resolve(self, value: int, access: Access) -> tuple[Operand, tuple[Extent, ...], tuple[Extent, ...]]:
        """The buffer behind an access, its shape, and the indices into it over the domain's axes."""
        packed = self.packed.get((value, access))
        if packed is not None:
            return Operand(value, packed[0]), packed[1], packed[2]
        indices = tuple(substitute(self.expressed(i), self.renamed) for i in access.indices)
        if value in self.scratch:
            own = self.scratch[value]
            return Operand(value), own.shape, own.place(indices)
        shape = self.task.function.types[value].shape
        for axis, index in enumerate(indices):
            group = self._group_at(index, shape[axis])
            if group is not None:
                outer, inner, size = group
                shape = (*shape[:axis], shape[axis] // size, size, *shape[axis + 1 :])
                return Operand(value, None, (axis, size)), shape, (*indices[:axis], outer, inner, *indices[axis + 1 :])
        return Operand(value), shape, indices

    def _group_at(self, index: Extent, extent: Extent) -> tuple[Extent, Extent, int] | None:
        """(group, place in the group, group size) where an index runs over a whole grouped axis."""
        for position, moved in enumerate(self.positions):
            size = self.domain.get(f"_d{position}i")
            if isinstance(size, int) and index == moved and extent == self.task.domain[position]:
                return symbol(f"_d{position}g"), symbol(f"_d{position}i"), size
        return None

    def _from_start(self, indices: int, extent: Extent) -> int:
        """Gather indices with the negative ones, which count from the end, made positive."""
        ones = [1] * len(self.axes)
        length = self.builder.emit(lambda r: t.Iota(r, 0, extent), tile(I64, *ones))
        shape = self.builder.types[indices].static_shape

        def wrapped(s: ScalarBuilder) -> int:
            index = s.cast(0, I64)
            return s.op("select", s.op("lt", index, s.const(0, I64)), s.op("add", index, 1), index)

        return self.map(shape, (indices, length), wrapped)

    def _gathered(self, indices: Sequence[Extent], gather: tuple[str, int] | None) -> tuple[list[Extent], int]:
        """Take the gather symbol out of the indices; gives the axis it was on, or -1."""
        if gather is None:
            return list(indices), -1
        found = [j for j, i in enumerate(indices) if gather[0] in symbols_of(i)]
        return [substitute(i, {gather[0]: 0}) for i in indices], found[0] if found else -1

    def _walk(self, axis: str, place: tuple[Sequence[Extent], Sequence[Extent]], access: Access) -> t.ViewAxis:
        """How the buffer (its indices and extents) moves under one tile axis; a size-1 tile may depend on its axis in
        any way. A padded access stays inside along axes that it walks as they are."""
        indices, shape = place
        lane = f"{axis}_lane"
        for position, index in enumerate(indices):
            if lane in symbols_of(index):  # a panel holds whole tiles: no element of it lies outside
                return t.ViewAxis(position)
        moved = [(j, i) for j, i in enumerate(indices) if axis in symbols_of(i)]
        if not moved:
            return t.ViewAxis(-1)
        if len(moved) > 1 and self.tiles.get(axis, 1) == 1 and access.pad is None:
            return t.ViewAxis(-1)
        position, index = moved[0]
        step = coefficient(index, axis)
        if len(moved) > 1 or (step is None and (self.tiles.get(axis, 1) > 1 or access.pad is not None)):
            raise ScheduleRejectedError("NOT_AFFINE", f"axis {axis} of {self.task.name} moves {indices} not affinely")
        inside = indices[position] == symbol(axis) and shape[position] == self.domain.get(axis)
        return t.ViewAxis(position, step or 1, (access.pad is not None and not inside) or axis in self.ragged)

    def _check_unmoved(
        self, axes: Sequence[str], walks: list[t.ViewAxis], place: tuple[Sequence[Extent], Sequence[Extent]]
    ) -> None:
        """Let a tile axis of one element stand for a buffer axis of one pixel, which a window moves outside."""
        windows = [axis for n in self.task.function.nodes if isinstance(n, Compute) for axis in n.reduction]
        loops = dict(self.domain) | {axis.name: axis.extent for axis in windows}
        for position, (index, extent) in enumerate(zip(*place, strict=True)):
            if any(walk.axis == position for walk in walks) or not may_leave(index, extent, loops):
                continue
            free = [i for i, axis in enumerate(axes) if walks[i].axis < 0 and self.tiles.get(axis, 1) == 1]
            if not free:
                raise ScheduleRejectedError("NOT_AFFINE", f"no axis of {self.task.name} can check {index}")
            walks[free[0]] = t.ViewAxis(position, 1, True)

    def _stored(self, value: int, access: Access, walks: Sequence[t.ViewAxis]) -> bool:
        """Whether the buffer's own zero border answers every read outside it: borders are as wide as windows want."""
        layout = self.layouts.get(value, DENSE)
        if access.pad != 0.0 or not layout.halo or not any(w.checked for w in walks):
            return False
        moves = {a for a in (*self.axes, *self.ragged) if self.depends(value, access, a)}
        return not self.ragged & moves and self._is_window(access)

    def _is_window(self, access: Access) -> bool:
        nodes = [n for n in self.task.function.nodes if isinstance(n, Compute)]
        return any(n.combine != "none" and any(a is access for a in n.accesses) for n in nodes)

    # -- elementwise ------------------------------------------------------------------------------------------------

    def evaluate(self, value: int) -> int:
        """The tile of a value at the current offsets."""
        if value not in self.memo:
            self.memo[value] = self._evaluate(value)
        return self.memo[value]

    def _evaluate(self, value: int) -> int:
        node = self.definition(value)
        if value in self.spilled or node is None:
            source = self.spilled.get(value, value)
            return self.load(source, Access(self._identity(value)))
        operands: list[int] = []
        for position, (read, access) in enumerate(zip(node.reads, node.accesses, strict=True)):
            operands.append(self.read(read, access, self._gather_of(access, operands, position)))
        operands.extend(self._index_tile(e) for e in node.index_values)
        shape = self._common(operands)
        kind = tile(node.program.dtype(node.program.results[0]), *shape)
        if len(operands) == 1 and not node.program.ops:
            return operands[0]
        return self.builder.emit(lambda r: t.Map(r, tuple(operands), node.program), kind)

    def read(self, value: int, access: Access, gather: tuple[str, int] | None = None) -> int:
        """The tile a definition reads: of another definition at the same place, or from memory."""
        if self.definition(value) is not None and gather is None:
            return self.evaluate(value)
        return self.load(value, access, gather)

    def _gather_of(self, access: Access, operands: Sequence[int], position: int) -> tuple[str, int] | None:
        used = {s for i in access.indices for s in symbols_of(i)}
        for earlier in range(position):
            if f"_r{earlier}" in used:
                return f"_r{earlier}", operands[earlier]
        return None

    def load(self, value: int, access: Access, gather: tuple[str, int] | None = None) -> int:
        """Load through a view over all domain axes."""
        crossed = self._crossed(value, access) if gather is None else None
        if crossed is not None:
            return self._load_crossed(value, access, crossed)
        view = self.view(value, access, self.axes, gather)
        shape = list(self.builder.types[view].static_shape)
        if gather is not None:
            shape = list(self._common([view, gather[1]]))
            view = self._widened(view, shape)
        pad = access.pad if access.pad is not None else 0.0
        return self.builder.emit(lambda r: t.Load(r, view, pad), tile(self.dtype(value), *shape))

    def _crossed(self, value: int, access: Access) -> int | None:
        """The place of a tiled axis along which a read is contiguous while the vector axis strides, if there is one."""
        strides = self.layouts.get(value, DENSE).strides
        if self.task.kind == "contraction" or (strides is not None and strides[-1] != 1):
            return None
        indices = self.resolve(value, access)[2]
        tiled = [i for i, axis in enumerate(self.axes[:-1]) if self.tiles.get(axis, 1) > 1]
        return next((i for i in tiled if crosses(indices, self.axes[i], self.axes[-1])), None)

    def _load_crossed(self, value: int, access: Access, place: int) -> int:
        """Load a tile as it lies in memory, contiguous along the axis at `place`, and exchange that with the last."""
        order = list(range(len(self.axes)))
        order[place], order[-1] = order[-1], order[place]
        view = self.view(value, access, [self.axes[i] for i in order])
        shape, dtype = self.builder.types[view].static_shape, self.dtype(value)
        pad = access.pad if access.pad is not None else 0.0
        loaded = self.builder.emit(lambda r: t.Load(r, view, pad), tile(dtype, *shape))
        return self.builder.emit(lambda r: t.Permute(r, loaded, tuple(order)), tile(dtype, *(shape[i] for i in order)))

    def _widened(self, view: int, shape: Sequence[int]) -> int:
        """A gathering view takes the shape that its index tile broadcasts it to."""
        self.builder.types[view] = memref(self.builder.types[view].dtype, *shape)
        return view

    def _identity(self, value: int) -> tuple[Extent, ...]:
        node = self.definition(value)
        if node is not None:
            return tuple(0 if a.extent == 1 else symbol(a.name) for a in node.axes)
        shape = self.task.function.types[value].shape
        return tuple(0 if e == 1 else symbol(f"_d{i}") for i, e in enumerate(shape))

    def _common(self, operands: Sequence[int]) -> tuple[int, ...]:
        shape = [1] * len(self.axes)
        for operand in operands:
            for position, extent in enumerate(self.builder.types[operand].static_shape):
                shape[position] = max(shape[position], extent)
        return tuple(shape)

    def _index_tile(self, expression: Extent) -> int:
        """A tile of i64 numbers given by an expression over the axes; at most one tiled axis, with coefficient 1."""
        expression = self.expressed(expression)
        moving = [a for a in symbols_of(expression) if self.tiles.get(a, 1) > 1]
        offset = substitute(expression, self.offsets)
        if len(moving) > 1 or (moving and coefficient(expression, moving[0]) != 1):
            raise ScheduleRejectedError("NOT_AFFINE", f"{expression} is not an index of one tiled axis")
        position = self.axes.index(moving[0]) if moving else 0
        shape = [self.tiles[a] if a in moving else 1 for a in self.axes]
        return self.builder.emit(lambda r: t.Iota(r, position, offset), tile(I64, *shape))

    def store(self, value: int, source: int, into: int | None = None) -> None:
        """Write the tile of a value to its buffer (or, for a spill, into another value's buffer)."""
        target = value if into is None else into
        indices = self._identity(target)
        view = self.view(target, Access(indices), self.axes)
        full = self.builder.types[view].static_shape
        if self.builder.types[source].static_shape != full:
            source = self.map(full, (source,), lambda _: 0)
            self.builder.types[source] = tile(self.dtype(target), *full)
        self.builder.add(t.Store(view, source))

    def store_outputs(self) -> tuple[int, ...]:
        """Evaluate and write every output at the current offsets; gives no carried tiles."""
        self.memo.clear()
        for value in self.task.outputs:
            self.store(value, self.evaluate(value))
        return ()

    def valid(self, axis: str, source: int, identity: float) -> int:
        """The tile, all along a ragged axis, with a reduction's identity for the elements beyond the axis' end."""
        position, shape = self.axes.index(axis), list(self.builder.types[source].static_shape)
        shape[position] = self.tiles.get(axis, 1)
        along = [e if i == position else 1 for i, e in enumerate(shape)]
        offset, extent = self.offsets[axis], self.domain[axis]
        index = self.builder.emit(lambda r: t.Iota(r, position, offset - extent), tile(I32, *along))
        dtype = self.builder.types[source].dtype
        return self.map(
            shape,
            (index, source),
            lambda s: s.op("select", s.op("lt", 0, s.const(0, I32)), 1, s.const(number_in(identity, dtype), dtype)),
        )
