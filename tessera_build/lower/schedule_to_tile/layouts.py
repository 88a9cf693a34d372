"""How buffers and weights lie in memory, as far as loop nests must know.

Takes shapes; gives strides, zero borders (halos) and the packing of constant operands. Invariant: packing is a pure
rearrangement — every packed element is a weight or zero — and its text (`layout`) names it completely.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.scalar import Array


@dataclass(frozen=True, slots=True)
class BufferLayout:
    """Strides in elements (None: dense row-major) and, per axis, how much zero border is stored before and after."""

    strides: tuple[Extent, ...] | None = None
    halo: tuple[tuple[int, int], ...] = ()

    @property
    def dense(self) -> bool:
        """True for plain row-major memory."""
        return self.strides is None


DENSE = BufferLayout()


@dataclass(frozen=True, slots=True)
class Packing:
    """A constant operand rearranged: [outer..., panels, inner..., width], or [..., inner / quad, width, quad].

    `group` (axis, size) first splits an axis into groups of `size`; `order` permutes what there is then, the vector
    axis last; with `width` the vector axis is cut into panels, zero-padded, and the panel index moves before `inner`
    of the permuted axes. Width 0 keeps the vector axis whole. `quad` neighbours along the last inner axis, which is
    padded with zeros to a multiple of it, then lie side by side.
    """

    order: tuple[int, ...]
    outer: int
    width: int
    group: tuple[int, int] | None = None
    quad: int = 1

    @property
    def layout(self) -> str:
        """The layout's name in a bundle."""
        grouped = f"group({self.group[0]},{self.group[1]})," if self.group else ""
        quads = f",quads({self.quad})" if self.quad > 1 else ""
        return f"v1:{grouped}order({','.join(map(str, self.order))}),panels({self.outer},{self.width}){quads}"

    def apply(self, array: Array) -> Array:
        """The packed array, C-contiguous."""
        if self.group:
            axis, size = self.group
            shape = (*array.shape[:axis], array.shape[axis] // size, size, *array.shape[axis + 1 :])
            array = array.reshape(shape)
        array = np.transpose(array, self.order)
        if not self.width:
            return np.ascontiguousarray(array)
        panels = -(-array.shape[-1] // self.width)
        padded = np.zeros((*array.shape[:-1], panels * self.width), array.dtype)
        padded[..., : array.shape[-1]] = array
        cut = np.moveaxis(padded.reshape(*array.shape[:-1], panels, self.width), -2, self.outer)
        return np.ascontiguousarray(self._in_quads(cut) if self.quad > 1 else cut)

    def _in_quads(self, cut: Array) -> Array:
        """[..., depth, width] as [..., depth / quad, width, quad]."""
        *outer, depth, width = cut.shape
        steps = -(-depth // self.quad)
        padded = np.zeros((*outer, steps * self.quad, width), cut.dtype)
        padded[..., :depth, :] = cut
        return np.swapaxes(padded.reshape(*outer, steps, self.quad, width), -1, -2)
