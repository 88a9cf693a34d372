"""Operators that choose elements by their value: TopK.

Takes tensors of any rank; gives graph ops over rows, the axis last. Invariant:
what ONNX leaves open (the order of an unsorted result) is the sorted order here.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.graph.ops.shapes import count as elements


def _top_k(c: Context, n: Call) -> tuple[Tensor, ...]:
    x = n.input(0)
    axis = n.axis(x.rank, -1)
    n.ignore("sorted")
    largest = bool(n.integer("largest", 1))
    count = _count(c, n, x.shape[axis])
    c.require(x.shape[axis], ">=", count, "TopK chooses more elements than there are")
    others = [i for i in range(x.rank) if i != axis]
    lines = c.transpose(x, (*others, axis))
    chosen = c.several(
        "top_k", c.reshape(lines, (elements(lines.shape[:-1]), lines.shape[-1])), k=count, largest=largest
    )
    back = [*others, axis]
    places = [back.index(i) for i in range(x.rank)]
    values, positions = (c.transpose(c.reshape(t, (*lines.shape[:-1], count)), places) for t in chosen)
    return values, positions


def _count(c: Context, n: Call, longest: Extent) -> Extent:
    if n.opset < 10:
        return n.integer("k")
    extents = c.extents_of(n.input(1), longest)
    if len(extents) != 1:
        raise ill_formed("TopK's second operand is not one number", found=str(n.input(1).type))
    return extents[0]


SELECTION_OPERATORS: Mapping[str, Translator] = {"TopK": _top_k}
