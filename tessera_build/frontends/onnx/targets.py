"""The target of a Reshape whose elements only a run knows: 0 copies an extent, -1 takes what is left.

Takes the operand and the target's numbers; gives extents in which every element from data is resolved by ops and read
as a size. Invariant: a target that does not have as many elements as the operand ends the run.
"""

from __future__ import annotations

from collections.abc import Sequence

from tessera_build.frontends.onnx.context import Context, Number, Tensor
from tessera_build.frontends.onnx.errors import ill_formed
from tessera_build.frontends.onnx.order import sign_of
from tessera_build.ir.core.dims import Extent, floordiv
from tessera_build.ir.core.types import I64
from tessera_build.ir.graph.ops.shapes import count


def resolved_at_run_time(c: Context, x: Tensor, numbers: Sequence[Number], keep_zero: bool) -> tuple[Extent, ...]:
    """Known elements as they are stated, 0 and -1 included; the others read from data."""
    unknown = [i for i, number in enumerate(numbers) if isinstance(number, Tensor)]
    if not unknown:
        return tuple(c.size(number) for number in numbers)
    copied = [_copied(c, x, axis, number, keep_zero) for axis, number in enumerate(numbers)]
    total = count(x.shape)
    if -1 not in copied:
        copied = [_open(c, total, copied, i) if i in unknown else number for i, number in enumerate(copied)]
        known = [e for e in copied if not isinstance(e, Tensor)]
        rest = floordiv(total, count(known)) if count(known) != 0 else None
        if len(unknown) == 1 and rest is not None and sign_of(count(known) - 1, c.ranges) == 1:
            return _only_one(c, copied, rest)
    bound = total if sign_of(total - 1, c.ranges) == 1 else None  # of nothing there may be any shape
    return tuple(c.size(number, bound) for number in copied)


def _only_one(c: Context, numbers: Sequence[Number], rest: Extent) -> tuple[Extent, ...]:
    """The only element from data is what the others leave: types say so, and the run checks that the data agree."""
    for number in numbers:
        if isinstance(number, Tensor):
            c.require(c.size(number), "==", rest, f"Reshape's target does not leave {rest} for the extent from data")
    return tuple(rest if isinstance(number, Tensor) else number for number in numbers)


def _copied(c: Context, x: Tensor, axis: int, number: Number, keep_zero: bool) -> Number:
    """The number with 0 replaced by the operand's extent."""
    if keep_zero or (not isinstance(number, Tensor) and number != 0):
        return number
    if axis >= x.rank:
        if isinstance(number, Tensor):
            return number
        raise ill_formed("Reshape copies an extent that its operand does not have", found=str(x.type))
    if not isinstance(number, Tensor):
        return x.shape[axis]
    return c.op("select", c.op("eq", number, c.scalar(0, I64)), c.number(x.shape[axis], I64), number)


def _open(c: Context, total: Extent, numbers: Sequence[Number], place: int) -> Number:
    """The number with -1 replaced by what the others leave of the total."""
    product, minus = c.scalar(1, I64), c.scalar(-1, I64)
    for position, number in enumerate(numbers):
        if position != place:
            other = c.as_tensor(number)
            product = c.op("mul", product, c.op("select", c.op("eq", other, minus), c.scalar(1, I64), other))
    own = c.as_tensor(numbers[place])
    rest = c.op("div", c.number(total, I64), c.op("max", product, c.scalar(1, I64)))
    return c.op("select", c.op("eq", own, minus), rest, own)
