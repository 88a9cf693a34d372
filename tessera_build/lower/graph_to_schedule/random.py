"""The definition of draws: every element computes its own block of random bits.

Takes a `random` node; gives one `Compute`. Invariant: as for any elementwise node, the loops around do not matter;
what an element needs is its number in row-major order, an index expression, and the key.
"""

from __future__ import annotations

import numpy as np

from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.philox import draw
from tessera_build.ir.core.scalar import ScalarBuilder, ScalarProgram
from tessera_build.ir.core.types import I64, U64, DType
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.ir.graph.ops.shapes import count
from tessera_build.ir.schedule.nodes import Access, Compute
from tessera_build.lower.graph_to_schedule.defining import Context, axes_of, symbols_of_axes

_FAR = 2**32


def define_random(node: GraphNode, context: Context) -> tuple[Compute, ...]:
    """A key that is known becomes part of the program."""
    kind = context.types[node.output]
    axes = axes_of(kind.shape)
    number: Extent = 0
    for index, extent in zip(symbols_of_axes(axes), kind.shape, strict=True):
        number = number * extent + index
    total = count(kind.shape)
    far = not isinstance(total, int) or total > _FAR
    known = context.constants.get(node.inputs[0])
    key = None if known is None else int(np.asarray(known).view(np.uint64))
    program = draw(str(node.attributes["kind"]), kind.dtype, key, far)
    if key is not None:
        return (Compute(node.output, (), (), axes, (), "none", program, (number,)),)
    given = _with_key_of(program, context.types[node.inputs[0]].dtype)
    return (Compute(node.output, node.inputs, (Access(()),), axes, (), "none", given, (number,)),)


def _with_key_of(program: ScalarProgram, dtype: DType) -> ScalarProgram:
    """The program for a key of either 64-bit type."""
    if dtype == U64:
        return program
    b = ScalarBuilder((dtype, I64))
    return b.finish(*b.inline(program, (b.bitcast(0, U64), 1)))
