"""Operators on sequences and optionals, carried out by the importer: none of them is left to run.

Takes containers of tensors; gives containers or their tensors. Invariant: a sequence whose length only a run knows is
one tensor, and what would change its length is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.frontends.onnx.call import Call, Translator, normalise_axis
from tessera_build.frontends.onnx.containers import (
    AppendedSequence,
    OptionalValue,
    ScoreMaps,
    StackedSequence,
    TensorSequence,
    Value,
    Words,
)
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.movement import joined
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import BOOL, I64

# Splitting a long axis into single elements makes a tensor of each.
_LONGEST_SPLIT = 4096


def _identity(_: Context, call: Call) -> Value:
    return call.operand(0)


def _construct(_: Context, call: Call) -> Value:
    return TensorSequence(call.all_inputs())


def _empty(_: Context, call: Call) -> Value:
    call.ignore("dtype")
    return TensorSequence()


def _at(context: Context, call: Call) -> Value:
    whole = call.operand(0)
    if isinstance(whole, StackedSequence):
        return context.op("gather", whole.stack, context.reshape(context.cast(call.input(1), I64), ()), axis=0)
    members, position = call.sequence(0).members, call.input(1)
    if position.content is None and members and all(m.type == members[0].type for m in members):
        return _pick(context, members, position)
    (index,) = context.known_ints(position, "the position in a sequence")
    return members[_checked(index, len(members))]


def _pick(context: Context, members: tuple[Tensor, ...], position: Tensor) -> Tensor:
    """One of several tensors of one type by a position that only a run knows."""
    shape = members[0].shape
    rows = [context.reshape(member, (1, *shape)) for member in members]
    stacked = rows[0] if len(rows) == 1 else context.op("concat", *rows, axis=0)
    return context.op("gather", stacked, context.reshape(context.cast(position, I64), ()), axis=0)


def _insert(context: Context, call: Call) -> Value:
    whole, tensor, place = call.operand(0), call.input(1), call.optional(2)
    if isinstance(whole, AppendedSequence) and place is None:
        return AppendedSequence(whole.start or whole, (*whole.added, tensor))
    members = call.sequence(0).members
    index = len(members) if place is None else context.known_ints(place, "the position in a sequence")[0]
    index = _checked(index, len(members) + 1, len(members))
    return TensorSequence((*members[:index], tensor, *members[index:]))


def _erase(context: Context, call: Call) -> Value:
    members = call.sequence(0).members
    place = call.optional(1)
    index = -1 if place is None else context.known_ints(place, "the position in a sequence")[0]
    index = _checked(index, len(members))
    return TensorSequence((*members[:index], *members[index + 1 :]))


def _length(context: Context, call: Call) -> Value:
    whole = call.operand(0)
    if isinstance(whole, StackedSequence):
        return context.number(whole.stack.shape[0], I64)
    return context.scalar(len(call.sequence(0).members), I64)


def _checked(index: int, length: int, modulus: int | None = None) -> int:
    """The index from the start; `modulus` is what a negative one counts from."""
    counted = index + (length if modulus is None else modulus) if index < 0 else index
    if not 0 <= counted < length:
        raise ill_formed("a position lies outside its sequence", expected=f"below {length}", found=str(index))
    return counted


def _split(context: Context, call: Call) -> Value:
    source, sizes = call.input(0), call.optional(1)
    axis = call.integer("axis", 0) % max(source.rank, 1)
    # ONNX's text has a stated size keep the axis; onnxruntime removes it for parts of 1, which is how torch unbinds.
    single, extent = _is_single(context, sizes), source.shape[axis]
    keep = call.integer("keepdims", 1) != 0 or not single
    if single and not (isinstance(extent, int) and extent <= _LONGEST_SPLIT):
        kept = [1 if i == axis else e for i, e in enumerate(source.shape) if keep or i != axis]
        return StackedSequence(context.reshape(_moved(context, source, axis, 0), (extent, *kept)))
    lengths = _lengths(context, extent, sizes)
    parts: list[Tensor] = []
    start: Extent = 0
    for length in lengths:
        starts, stops = [0] * source.rank, list(source.shape)
        starts[axis], stops[axis] = start, start + length  # type: ignore[call-overload]
        part = context.slice(source, starts, stops)
        parts.append(part if keep else context.reshape(part, source.shape[:axis] + source.shape[axis + 1 :]))
        start = start + length
    return TensorSequence(tuple(parts))


def _is_single(context: Context, sizes: Tensor | None) -> bool:
    """Whether every part is one element long, however long the axis is."""
    return sizes is None or (sizes.rank == 0 and context.numbers(sizes) == (1,))


def _moved(context: Context, source: Tensor, axis: int, place: int) -> Tensor:
    """The tensor with one axis in another place."""
    perm = [i for i in range(source.rank) if i != axis]
    return context.transpose(source, [*perm[:place], axis, *perm[place:]])


def _lengths(context: Context, extent: Extent, sizes: Tensor | None) -> tuple[int, ...]:
    if sizes is not None and sizes.rank == 1:
        lengths = context.known_ints(sizes, "the sizes of a split")
        context.require(extent, "==", sum(lengths), "the sizes of a split do not add up to the axis")
        return lengths
    chunk = 1 if sizes is None else context.known_ints(sizes, "the size of a split")[0]
    if not isinstance(extent, int) or chunk < 1 or -(-extent // chunk) > _LONGEST_SPLIT:
        raise unsupported(
            "the axis splits into a number of tensors that the build does not know, or too many",
            found=f"{extent} in parts of {chunk}",
            hint=f"fix the dim with `--dims`; at most {_LONGEST_SPLIT} tensors",
        )
    return tuple(min(chunk, extent - start) for start in range(0, extent, chunk))


def _concat(context: Context, call: Call) -> Value:
    axis, fresh, whole = call.integer("axis"), call.integer("new_axis", 0), call.operand(0)
    if isinstance(whole, StackedSequence):
        rank = whole.stack.rank - 1
        position = normalise_axis(axis, rank + (1 if fresh else 0))
        moved = _moved(context, whole.stack, 0, position)
        before, (number, *after) = moved.shape[:position], moved.shape[position:]
        return moved if fresh else context.reshape(moved, (*before, number * after[0], *after[1:]))
    members = call.sequence(0).members
    if not members:
        raise ill_formed("a concatenation of no tensors has no shape")
    position = normalise_axis(axis, members[0].rank + (1 if fresh else 0))
    if fresh:
        shapes = [(*m.shape[:position], 1, *m.shape[position:]) for m in members]
        members = tuple(context.reshape(m, shape) for m, shape in zip(members, shapes, strict=True))
    return joined(context, members, position, call.op)


def _optional(_: Context, call: Call) -> Value:
    call.ignore("type")
    if not call.inputs:
        return OptionalValue()
    operand = call.operand(0)
    if isinstance(operand, ScoreMaps | Words):
        raise unsupported("an optional that holds labels", found=str(operand))
    return operand if isinstance(operand, OptionalValue) else OptionalValue(operand)


def _get_element(_: Context, call: Call) -> Value:
    operand = call.operand(0)
    if not isinstance(operand, OptionalValue):
        return operand
    if operand.content is None:
        raise ill_formed("the element of an optional without a value is asked for")
    return operand.content


def _has_element(context: Context, call: Call) -> Value:
    operand = call.inputs[0] if call.inputs else None
    present = operand is not None and not (isinstance(operand, OptionalValue) and operand.content is None)
    return context.scalar(present, BOOL)


SEQUENCE_OPERATORS: Mapping[str, Translator] = {
    "Identity": _identity,
    "SequenceConstruct": _construct,
    "SequenceEmpty": _empty,
    "SequenceAt": _at,
    "SequenceInsert": _insert,
    "SequenceErase": _erase,
    "SequenceLength": _length,
    "SplitToSequence": _split,
    "ConcatFromSequence": _concat,
    "Optional": _optional,
    "OptionalGetElement": _get_element,
    "OptionalHasElement": _has_element,
}
