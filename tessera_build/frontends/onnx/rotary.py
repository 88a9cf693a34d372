"""Rotary embeddings: pairs of columns turned by an angle that depends on the place in the sequence.

Takes heads and tables of cosines and sines; gives the turned heads. Invariant: only the first `2 * width` columns turn,
where `width` is that of the tables, and the others pass as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.ir.core.dims import Extent


@dataclass(frozen=True, slots=True)
class Turn:
    """Cosines and sines [batch or 1, length, width]; `interleaved`: a pair are neighbours, else half a width apart."""

    cosine: Tensor
    sine: Tensor
    interleaved: bool = False

    @staticmethod
    def at(c: Context, tables: tuple[Tensor, Tensor], places: Tensor, interleaved: bool) -> Turn:
        """The rows of the tables for each place [batch or 1, length]."""
        return Turn(*(c.op("gather", table, places, axis=0) for table in tables), interleaved=interleaved)


def rotated(c: Context, x: Tensor, turn: Turn) -> Tensor:
    """[batch, heads, length, depth] turned."""
    width, depth = turn.cosine.shape[-1], x.shape[-1]
    if not isinstance(width, int) and isinstance(depth, int) and depth % 2 == 0:
        width = depth // 2
    if not isinstance(width, int):
        raise unsupported("rotary embedding of a symbolic shape", found=f"{x.type}, {turn.cosine.type}")
    if not isinstance(depth, int):
        depth = 2 * width
    x, turn = _known(c, x, turn, (depth, width))
    if 2 * width > depth:
        raise ill_formed("rotary embedding turns more columns than there are", found=f"{2 * width} of {depth}")
    cosine, sine = (c.reshape(t, (t.shape[0], 1, *t.shape[1:])) for t in (turn.cosine, turn.sine))
    if turn.interleaved:
        pairs = c.reshape(_columns(c, x, 0, 2 * width), (*x.shape[:-1], width, 2))
        first, second = (c.reshape(_columns(c, pairs, i, i + 1), (*x.shape[:-1], width)) for i in (0, 1))
    else:
        first, second = (_columns(c, x, i * width, (i + 1) * width) for i in (0, 1))
    turned = (
        c.op("sub", c.op("mul", first, cosine), c.op("mul", second, sine)),
        c.op("add", c.op("mul", first, sine), c.op("mul", second, cosine)),
    )
    parts = [_interleaved(c, turned)] if turn.interleaved else list(turned)
    if 2 * width < depth:
        parts.append(_columns(c, x, 2 * width, depth))
    return parts[0] if len(parts) == 1 else c.op("concat", *parts, axis=x.rank - 1)


def _known(c: Context, x: Tensor, turn: Turn, widths: tuple[int, int]) -> tuple[Tensor, Turn]:
    """Heads and tables as wide as said; where only one of them is known, every column turns."""
    depth, width = widths
    c.unify(x.shape[-1], depth, "rotary embedding of heads that are not as wide as its tables")
    tables: list[Tensor] = []
    for table in (turn.cosine, turn.sine):
        c.unify(table.shape[-1], width, "rotary embedding by tables that are not as wide as its heads")
        tables.append(c.retyped(table, (*table.shape[:-1], width)))
    return c.retyped(x, (*x.shape[:-1], depth)), Turn(tables[0], tables[1], turn.interleaved)


def _columns(c: Context, x: Tensor, start: Extent, stop: Extent) -> Tensor:
    return c.slice(x, (*(0,) * (x.rank - 1), start), (*x.shape[:-1], stop))


def _interleaved(c: Context, halves: tuple[Tensor, Tensor]) -> Tensor:
    shape = halves[0].shape
    apart = [c.reshape(t, (*shape, 1)) for t in halves]
    return c.reshape(c.op("concat", *apart, axis=len(shape)), (*shape[:-1], shape[-1] * 2))
