"""Register-tile products of bytes: four along the reduction at once.

Before: acc[i, j] += a[i, k] * b[k, j] over bytes. After: one `contract` over quads (k / 4) and the bytes in them; `b`
lies in panels of quads (`Packing.quad`). Invariant: bytes beyond the end of the reduction are zero in the panels, and
those of `a` are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.machine.instructions import QUAD
from tessera_build.ir.schedule.nodes import Access, Axis, Compute
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.schedule_to_tile.indices import byte_of, quad_of
from tessera_build.lower.schedule_to_tile.nest import Nest

LETTERS = "abcdefghijlmnopqrs"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the tensorised axis, `size` long, and what of its second operand to ask for meanwhile."""

    axis: Axis
    size: int
    ahead: t.Ahead | None = None


def moving(nest: Nest, value: int, access: Access, axes: Sequence[str]) -> list[str]:
    """Domain axes with a tile larger than 1 under which an operand moves: it must be loaded per position."""
    return [a for a in axes if nest.tiles.get(a, 1) > 1 and nest.depends(value, access, a)]


def contract_bytes(nest: Nest, node: Compute, chunk: Chunk, acc: int) -> int:
    """One product over a chunk of bytes from the current offset on the axis; a last quad may reach beyond its end."""
    axis, size = chunk.axis, chunk.size
    quad, byte = quad_of(axis.name), byte_of(axis.name)
    letters = dict(zip(nest.axes, LETTERS, strict=False)) | {quad: "k", byte: "z"}
    vector, start = nest.axes[-1], nest.offsets[axis.name]
    nest.tiles.update({quad: size // QUAD, byte: QUAD})
    nest.offsets.update({quad: start // QUAD, byte: 0})
    nest.renamed[axis.name] = symbol(quad) * QUAD + symbol(byte)
    beyond = _reaches_beyond(start, size, axis.extent)
    nest.ragged |= {byte} if beyond else set()
    a_axes = [*nest.axes[:-1], quad, byte]
    a = nest.view(node.reads[0], node.accesses[0], a_axes)
    nest.ragged.discard(byte)
    nest.renamed.clear()
    b_axes = [*moving(nest, node.reads[1], node.accesses[1], nest.axes[:-1]), quad, vector, byte]
    b = nest.view(node.reads[1], node.accesses[1], b_axes)
    spec = ",".join("".join(letters[x] for x in axes) for axes in (a_axes, b_axes))
    spec += "->" + "".join(letters[x] for x in nest.axes)
    kind, binding = nest.builder.types[acc], t.Binding(instruction="dot4", ahead=chunk.ahead)
    return nest.builder.emit(lambda r: t.Contract(r, acc, a, b, spec, "seq", binding), kind)


def _reaches_beyond(start: Extent, size: int, extent: Extent) -> bool:
    """Whether a last, partial quad is meant: only that one starts at a known place so near the end."""
    return isinstance(start, int) and isinstance(extent, int) and start + size > extent
