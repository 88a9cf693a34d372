"""The importer's view of tensors and its one door to the graph under construction.

Takes operands that are graph values, constants or arithmetic over shapes; gives tensors. Invariant: an op whose
result is known is never emitted, a known tensor enters the graph only when an op needs it as data, and extents that
ONNX needs to be equal are equal in every type (by renaming a dim, or by a guard).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count as counting

import numpy as np

from tessera_build.frontends.onnx.content import Ratio, fold_one, fold_several, is_empty, is_symbolic, pack
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.order import is_multiple, is_related, larger, primitive, sign_of, solve, tightened
from tessera_build.frontends.onnx.restarts import Unified
from tessera_build.frontends.onnx.tracing import Piece, Place, pieces_of
from tessera_build.ir.core.dims import Dim, Extent, Range, bounds, symbol, symbols_of
from tessera_build.ir.core.node import Span
from tessera_build.ir.core.rewrite import RegionBuilder
from tessera_build.ir.core.types import F32, I64, DType, Type, dtype_of, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.infer import complete, infer, op_named
from tessera_build.ir.graph.nodes import Array, Attribute, Guard
from tessera_build.ir.graph.ops.elementwise import ELEMENTWISE
from tessera_build.ir.graph.ops.shapes import count
from tessera_build.ir.graph.ops.sizes import UNBOUNDED

_BROADCASTING = frozenset(op.name for op in ELEMENTWISE)


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A tensor of the model: a value of the graph, or a content that is known (then `value` is None)."""

    type: Type
    value: int | None = None
    content: Array | None = None
    name: str = ""

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self.type.dtype

    @property
    def shape(self) -> tuple[Extent, ...]:
        """Extents, symbolic ones included."""
        return self.type.shape

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.type.shape)


Number = Extent | Tensor  # an element of a shape-like operand: known, or an i64 scalar that only a run knows


# Both branches of an If are built, so that each level may double the work.
DEEPEST = 8


@dataclass(slots=True)
class Context:
    """What operators need to translate themselves: constants, ops with folding, extents, guards."""

    builder: GraphBuilder
    ranges: dict[str, Range]
    guards: dict[Guard, Span | None] = field(default_factory=dict[Guard, Span | None])
    sizes: dict[str, Extent] = field(default_factory=dict[str, Extent])  # symbols that are read from data, and bounds
    indices: set[str] = field(default_factory=set[str])  # of loops; a dim of the model never equals one
    decisions: Mapping[str, bool] = field(default_factory=dict[str, bool])  # which way an If goes, by its first result
    iterations: tuple[Extent, ...] = ()  # the numbers of those that nodes made now are in, outermost first
    excluded: list[Extent] = field(default_factory=list[Extent])  # what decisions say is not zero
    kept: list[Extent] = field(default_factory=list[Extent])  # what Squeeze would remove if it were 1
    choosing: int = 0  # branches around, of which only a run knows whether they are taken
    _values: dict[Tensor, int] = field(default_factory=dict[Tensor, int])
    _read: dict[tuple[int, Extent], Extent] = field(default_factory=dict[tuple[int, Extent], Extent])

    def constant(self, array: Array, name: str = "") -> Tensor:
        """A tensor with these elements."""
        return Tensor(tensor(dtype_of(array.dtype), *array.shape), None, array, name)

    def scalar(self, number: float | int | bool, dtype: DType) -> Tensor:
        """A rank-0 constant."""
        return self.constant(np.asarray(number).astype(dtype.numpy))

    def extents(self, extents: Sequence[Extent], dtype: DType = I64) -> Tensor:
        """A vector of extents."""
        content = np.empty(len(extents), dtype=object)
        content[:] = list(extents)
        return Tensor(tensor(dtype, len(extents)), None, pack(content, dtype))

    def op(self, op: str, *operands: Tensor, **attributes: Attribute) -> Tensor:
        """The result of a graph op: folded where it is known and small, else a new node."""
        if op in _BROADCASTING and len(operands) > 1:
            operands = self._aligned(operands)
        full = complete(op_named(op), attributes)
        (type_,) = infer(op, [t.type for t in operands], full)
        if is_empty(type_):
            return self.constant(np.zeros(type_.static_shape, type_.dtype.numpy))
        content = fold_one(op, [t.content for t in operands], full, (type_, self.ranges))
        if content is not None:
            return Tensor(type_, None, content)
        return Tensor(type_, self.builder.op(op, *(self.value(t) for t in operands), **full))

    def several(self, op: str, *operands: Tensor, **attributes: Attribute) -> tuple[Tensor, ...]:
        """The results of a graph op that has more than one: folded where they are known and small."""
        full = complete(op_named(op), attributes)
        types = infer(op, [t.type for t in operands], full)
        folded = fold_several(op, [t.content for t in operands], full, types)
        if folded is not None:
            return tuple(self.constant(array) for array in folded)
        values = self.builder.node(op, tuple(self.value(t) for t in operands), full)
        return tuple(Tensor(self.builder.type(value), value) for value in values)

    def value(self, source: Tensor) -> int:
        """The graph value of a tensor; a known content becomes constants and run-time dims."""
        if source.value is not None:
            return source.value
        if source not in self._values:
            assert source.content is not None
            if is_symbolic(source.content):
                self._values[source] = self._materialise(source.content, source.type)
            else:
                self._values[source] = self.builder.constant(source.content, source.name)
        return self._values[source]

    def _materialise(self, content: Array, type_: Type) -> int:
        """One `dimension` for each symbolic element, concatenated with the constants between them."""
        if content.ndim == 0:
            return self._element(content.item(), type_.dtype)
        parts = [self.builder.op("reshape", self._element(e, type_.dtype), shape=(1,)) for e in content.flat]
        flat = parts[0] if len(parts) == 1 else self.builder.op("concat", *parts, axis=0)
        return flat if content.ndim == 1 else self.builder.op("reshape", flat, shape=content.shape)

    def _element(self, element: object, dtype: DType) -> int:
        if isinstance(element, Dim):
            return self.builder.op("dimension", value=element, dtype=dtype)
        if not isinstance(element, Ratio):
            return self.builder.constant(np.asarray(element).astype(dtype.numpy))
        numerator = self._element(element.numerator, I64)
        cast = self.builder.op("cast", numerator, dtype=dtype)
        return self.builder.op("div", cast, self.builder.scalar(element.denominator, dtype))

    def cast(self, source: Tensor, dtype: DType) -> Tensor:
        """The tensor with another element type."""
        return source if source.dtype == dtype else self.op("cast", source, dtype=dtype)

    def reshape(self, source: Tensor, shape: Sequence[Extent]) -> Tensor:
        """The tensor with another shape of as many elements."""
        return source if source.shape == tuple(shape) else self.op("reshape", source, shape=tuple(shape))

    def transpose(self, source: Tensor, perm: Sequence[int]) -> Tensor:
        """The tensor with its axes in another order."""
        return source if list(perm) == list(range(source.rank)) else self.op("transpose", source, perm=tuple(perm))

    def broadcast_to(self, source: Tensor, shape: Sequence[Extent]) -> Tensor:
        """The tensor repeated to `shape`."""
        return source if source.shape == tuple(shape) else self.op("broadcast_to", source, shape=tuple(shape))

    def slice(
        self, source: Tensor, starts: Sequence[Extent], stops: Sequence[Extent], steps: Sequence[int] = ()
    ) -> Tensor:
        """Part of the tensor; bounds speak of every axis and are normalised."""
        steps = tuple(steps) or (1,) * source.rank
        if all(s == 0 for s in starts) and tuple(stops) == source.shape and all(s == 1 for s in steps):
            return source
        return self.op("slice", source, starts=tuple(starts), stops=tuple(stops), steps=steps)

    def reduce(self, kind: str, source: Tensor, axes: Sequence[int], keepdims: bool) -> Tensor:
        """The tensor reduced over `axes`."""
        return self.op("reduce", source, kind=kind, axes=tuple(sorted(axes)), keepdims=keepdims) if axes else source

    def number(self, extent: Extent, dtype: DType) -> Tensor:
        """An extent as a scalar tensor."""
        if isinstance(extent, int):
            return self.scalar(extent, dtype)
        content = np.empty((), dtype=object)
        content[()] = extent
        return self.cast(Tensor(tensor(I64), None, content), dtype)

    def mean(self, source: Tensor, axes: Sequence[int], keepdims: bool) -> Tensor:
        """The sum divided by the count, that of nothing taken for 1 as onnxruntime does. Half floats hold neither."""
        if source.dtype.is_float and source.dtype.bits < F32.bits:
            return self.cast(self.mean(self.cast(source, F32), axes, keepdims), source.dtype)
        number = larger(count([source.shape[axis] for axis in axes]), 1, self.ranges)
        return self.op("div", self.reduce("sum", source, axes, keepdims), self.number(number, source.dtype))

    def known(self, source: Tensor, what: str) -> Array:
        """The content of an operand that must be known at build time."""
        if source.content is None:
            raise unsupported(
                f"{what} is computed from data at run time",
                found=f"{source.name or 'a value'}: {source.type}",
                hint="Tessera needs it as a constant or as arithmetic over shapes; export the model with it fixed",
            )
        return source.content

    def known_extents(self, source: Tensor, what: str) -> tuple[Extent, ...]:
        """The elements of a shape-like operand."""
        return tuple(e if isinstance(e, Dim) else int(e) for e in self.known(source, what).reshape(-1))

    def numbers(self, source: Tensor) -> tuple[Number, ...]:
        """The elements of a shape-like operand: extents where they are known, else scalars of the graph."""
        if source.content is not None:
            return tuple(e if isinstance(e, Dim) else int(e) for e in source.content.reshape(-1))
        return tuple(self._number(piece) for piece in pieces_of(self.builder, self.value(source)))

    def _number(self, piece: Piece) -> Number:
        if not isinstance(piece, Place):
            return piece
        whole = Tensor(self.builder.type(piece.value), piece.value)
        flat = self.reshape(whole, (int(np.prod(whole.type.static_shape)),))
        return self.cast(self.reshape(self.slice(flat, (piece.index,), (piece.index + 1,)), ()), I64)

    def size(self, number: Number, upper: Extent | None = None) -> Extent:
        """A number as an extent: one that only data tells is read at run time.

        A run that finds it negative or above `upper` ends with SIZE_BEYOND_BOUND, so make it what it means by ops
        before: count negative ones from the end, cut it off at the extent. A bound keeps memory in the arena.
        """
        if isinstance(number, Tensor) and number.content is not None:
            (number,) = self.numbers(number)
        if not isinstance(number, Tensor):
            return number
        bound = UNBOUNDED if upper is None else upper
        key = (self.value(number), bound)
        if key not in self._read:
            name = next(name for i in counting() if (name := f"size{i}") not in self.ranges)
            vector = self.value(self.reshape(number, (1,)))
            self.builder.node("sizes", (vector,), {"names": (name,), "uppers": (bound,)})
            self.ranges[name] = (0, None if upper is None else bounds(upper, self.ranges)[1])
            self.sizes[name] = bound
            self._read[key] = symbol(name)
        return self._read[key]

    def extents_of(self, source: Tensor, uppers: Sequence[Extent | None] | Extent | None = None) -> tuple[Extent, ...]:
        """The elements of a shape-like operand, whether constant, arithmetic over dims or computed from data.

        `uppers` bounds each element that is read from data, or all of them alike. Those that are known may be negative.
        """
        numbers = self.numbers(source)
        bound = uppers if isinstance(uppers, Sequence) else [uppers] * len(numbers)
        return tuple(self.size(number, upper) for number, upper in zip(numbers, bound, strict=True))

    def counted(self, buffer: Tensor, found: Tensor, axis: int = 0) -> Tensor:
        """The part of a buffer that a kernel filled: the first `found` (an integer scalar) along an axis.

        The recipe for NonZero and its like: a kernel gives a buffer of the largest size and a count; count -> size ->
        slice, and from there on the extent is a symbol like any other.
        """
        length = self.size(self.cast(self.reshape(found, ()), I64), buffer.shape[axis])
        stops = [length if i == axis else e for i, e in enumerate(buffer.shape)]
        return self.slice(buffer, (0,) * buffer.rank, stops)

    def as_tensor(self, number: Number) -> Tensor:
        """A number as a scalar of i64."""
        return number if isinstance(number, Tensor) else self.number(number, I64)

    def known_ints(self, source: Tensor, what: str) -> tuple[int, ...]:
        """The elements of an operand that must be plain integers."""
        extents = self.known_extents(source, what)
        ints = tuple(e for e in extents if isinstance(e, int))
        if len(ints) < len(extents):
            raise unsupported(f"{what} depends on a dynamic dim", found=str([str(e) for e in extents]))
        return ints

    def known_number(self, source: Tensor, what: str) -> float:
        """The only element of a constant operand."""
        content = self.known(source, what)
        if is_symbolic(content) or content.size != 1:
            raise unsupported(f"{what} is not one constant", found=str(source.type))
        return float(content.reshape(()))

    @contextmanager
    def trial(self) -> Generator[None, None, None]:
        """Try something for nothing: what it demands of the dims and reads from data is forgotten."""
        before = self.guards, self.ranges, self.sizes, self._read
        try:
            self.guards, self.ranges, self.sizes, self._read = (dict(known) for known in before)
            yield
        finally:
            self.guards, self.ranges, self.sizes, self._read = before

    @contextmanager
    def branch(self) -> Generator[RegionBuilder, None, None]:
        """A region that may not run: what it demands of the dims is asked when it does."""
        self.choosing += 1
        try:
            with self.region() as block:
                yield block
        finally:
            self.choosing -= 1

    @contextmanager
    def region(
        self, types: Sequence[Type] = (), index: Mapping[str, Range] | None = None
    ) -> Generator[RegionBuilder, None, None]:
        """A region under construction; what is made of known tensors inside is made again outside."""
        if self.builder.depth >= DEEPEST:
            raise unsupported(f"subgraphs lie inside each other more than {DEEPEST} deep")
        outer, read, around = dict(self._values), dict(self._read), self.iterations
        self.ranges.update(index or {})
        self.indices.update(index or {})
        self.iterations = (*around, *(symbol(name) for name in index or {}))
        try:
            with self.builder.region(types, index) as block:
                yield block
        finally:
            self.iterations = around
            self._values, self._read = outer, read

    @contextmanager
    def iteration(self, number: int) -> Generator[None, None, None]:
        """One of several translations of the same nodes."""
        around, self.iterations = self.iterations, (*self.iterations, number)
        try:
            yield
        finally:
            self.iterations = around

    def require(self, left: Extent, relation: str, right: Extent, message: str) -> None:
        """Demand a relation (==, >=) between extents: checked now where it can be, else by a guard at run time.

        In a branch or an iteration the guard waits for a number that is read there, and speaks only when a run does.
        """
        difference = left - right
        if holds := is_related(difference, relation, self.ranges):
            return
        if holds is not None:
            raise ill_formed(message, expected=f"{left} {relation} {right}")
        if relation == "==" and any(is_multiple(difference, other) for other in self.excluded):
            raise ill_formed(f"{message}, where a branch of If was taken because they differ")
        same = (difference, difference * -1) if relation == "==" else (difference,)
        if any(known[1] == relation and known[0] - known[2] in same for known in self.guards):
            return
        if self.choosing or not self.indices.isdisjoint(symbols_of(difference)):
            holding = self.op("eq" if relation == "==" else "ge", self.number(left, I64), self.number(right, I64))
            message = f"{message}: {left} {relation} {right}"
            left, relation, right = self.size(self.cast(holding, I64), 1), "==", 1
        elif relation == ">=" and symbols_of(difference).isdisjoint(self.sizes):  # checked before anything else
            self.ranges.update(tightened(difference, self.ranges))
        self.guards[(left, relation, right, message)] = self.builder.span

    def unify(self, left: Extent, right: Extent, message: str) -> Extent:
        """Make two extents one: rename a dim where that suffices (by starting again), else guard; gives one."""
        if left == right:
            return left
        if isinstance(left, int) and isinstance(right, int):
            raise ill_formed(message, expected=f"equal extents, or {left}", found=str(right))
        # What data say, or a loop counts, can be compared, not renamed.
        fixed = {*self.sizes, *self.indices}
        difference = primitive(left - right, self.ranges)
        for name in sorted(symbols_of(difference) - fixed, reverse=True):
            solution = solve(difference, name)
            if solution is not None and not symbols_of(solution).isdisjoint(fixed):
                continue
            if not self.choosing and solution is not None and sign_of(solution - 1, self.ranges) != -1:
                raise Unified(name, solution)
        self.require(left, "==", right, message)
        found = [not symbols_of(extent).isdisjoint(self.sizes) for extent in (left, right)]
        if found[0] != found[1]:
            return right if found[0] else left
        return left if isinstance(left, int) or len(str(left)) <= len(str(right)) else right

    def retyped(self, source: Tensor, shape: Sequence[Extent]) -> Tensor:
        """The same tensor under another shape of its rank that is equal to its own: known, or guarded here."""
        self.require(source.rank, "==", len(shape), "an operand has another number of axes than it must have")
        for axis, (own, wanted) in enumerate(zip(source.shape, shape, strict=True)):
            self.require(own, "==", wanted, f"an operand has another extent than it must have at axis {axis}")
        return self.slice(source, (0,) * source.rank, shape)

    def _aligned(self, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
        shape = self.broadcast_shape([t.shape for t in operands])
        return tuple(self.fitted(t, shape) for t in operands)

    def fitted(self, source: Tensor, shape: Sequence[Extent]) -> Tensor:
        """The operand with every extent either 1 or that of the broadcast shape (aligned at the last axis)."""
        own = source.shape
        wanted = [1 if e == 1 else target for e, target in zip(own, shape[len(shape) - len(own) :], strict=True)]
        return source if source.content is not None else self.retyped(source, wanted)

    def broadcast_shape(self, shapes: Sequence[Sequence[Extent]]) -> tuple[Extent, ...]:
        """The shape that all shapes broadcast to; differing symbolic extents are unified."""
        rank = max(len(s) for s in shapes)
        result: list[Extent] = [1] * rank
        for shape in shapes:
            for axis, extent in enumerate(shape, rank - len(shape)):
                if result[axis] == 1:
                    result[axis] = extent
                elif extent != 1:
                    result[axis] = self.unify(result[axis], extent, f"operands do not broadcast at axis {axis}")
        return tuple(result)
