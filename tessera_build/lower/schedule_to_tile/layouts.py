"""How buffers and weights lie in memory, as far as loop nests must know.

Takes shapes; gives strides, zero borders (halos) and the packing of constant operands. Invariant: packing is a pure
rearrangement — every packed element is a weight or zero — but for Winograd's and Strassen's sums, rounded once; its
text (`layout`) names it completely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.scalar import Array
from tessera_build.space.pairs_error import third_of
from tessera_build.space.toom_cook import Transform, taps_first


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
_BLOCK_BYTES: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Packing:
    """A constant operand rearranged: [outer..., panels, inner..., width], or [..., inner / quad, width, quad].

    `group` (axis, size) first splits an axis into groups of `size`; `order` permutes what there is then, the vector
    axis last; with `width` the vector axis is cut into panels, zero-padded, and the panel index moves before `inner`
    of the permuted axes. Width 0 keeps the vector axis whole. `quad` neighbours along the last inner axis, which is
    padded with zeros to a multiple of it, then lie side by side. With `winograd`, the weights at the points of that
    transform: `order` says where row taps, column taps (-1: one tap), what is summed (further taps, channels) and
    outputs are stored, and what is cut into panels is [points, summed, outputs]. With `strassen`, four matrices of a
    product's halves (`space.strassen`): [panels, depth / piece, matrices, piece, width] for pieces of that many steps
    of half the depth; `order` says where depth and outputs are stored. With `paired`, panels [panels, depth + 1, width]
    of a matrix whose last row is what the sums of columns begin with (`space.pairs`); `order` as for `strassen`.
    """

    order: tuple[int, ...]
    outer: int
    width: int
    group: tuple[int, int] | None = None
    quad: int = 1
    winograd: Transform | None = None
    strassen: int = 0
    paired: bool = False

    @property
    def layout(self) -> str:
        """The layout's name in a bundle."""
        grouped = f"group({self.group[0]},{self.group[1]})," if self.group else ""
        quads = f",quads({self.quad})" if self.quad > 1 else ""
        if self.winograd:
            grouped = f"winograd({self.winograd.text}),"
        if self.strassen:
            grouped = f"strassen({self.strassen}),"
        if self.paired:
            grouped = "pairs,"
        return f"v1:{grouped}order({','.join(map(str, self.order))}),panels({self.outer},{self.width}){quads}"

    def apply(self, array: Array) -> Array:
        """The packed array, C-contiguous."""
        if self.winograd:
            return self._at_points(array, self.winograd)
        if self.strassen:
            return self._in_quarters(array)
        if self.paired:
            return self._with_pairs(array)
        if self.group:
            axis, size = self.group
            shape = (*array.shape[:axis], array.shape[axis] // size, size, *array.shape[axis + 1 :])
            array = array.reshape(shape)
        major, array = self.order.index(0), np.transpose(array, self.order)
        if not self.width:
            return np.ascontiguousarray(array)
        whole, rest = divmod(array.shape[-1], self.width)
        *lead, _ = array.shape
        packed = np.zeros((*lead[: self.outer], whole + (rest > 0), *lead[self.outer :], self.width), array.dtype)
        panels = np.moveaxis(packed, self.outer, -2)
        cut = array[..., : whole * self.width].reshape(*lead, whole, self.width)
        _copy_in_blocks(cut, panels[..., :whole, :], major)
        if rest:
            panels[..., whole, :rest] = array[..., whole * self.width :]
        return np.ascontiguousarray(self._in_quads(packed)) if self.quad > 1 else packed

    def _at_points(self, array: Array, transform: Transform) -> Array:
        """Panels of the weights at the points of a transform."""
        points = transform.transformed(taps_first(array, self.order))
        return Packing((0, 1, 2), 0, self.width).apply(points)

    def _in_quarters(self, array: Array) -> Array:
        """Panels of b11, b21, b22 and b12 - b11, which is rounded once."""
        depth, outputs = (array.shape[axis] // 2 for axis in self.order)
        both = np.moveaxis(array, self.order, (0, 1)).reshape(2, depth, 2, outputs)
        packed = np.empty((outputs // self.width, depth // self.strassen, 4, self.strassen, self.width), array.dtype)
        t1 = np.subtract(both[0, :, 1], both[0, :, 0])
        for place, matrix in enumerate((both[0, :, 0], both[1, :, 0], both[1, :, 1], t1)):
            cut = matrix.reshape(depth // self.strassen, self.strassen, outputs // self.width, self.width)
            packed[:, :, place] = np.moveaxis(cut, 2, 0)
        return packed

    def _with_pairs(self, array: Array) -> Array:
        """Panels with one row more: what columns begin with where their terms are taken in pairs, rounded once."""
        depth, outputs = (array.shape[axis] for axis in self.order)
        rows = np.moveaxis(array, self.order, (0, 1)).reshape(depth, outputs)
        third = third_of(depth)
        products = np.multiply(rows[:third], rows[third : 2 * third], dtype=np.float64)
        products[1::2] *= -1
        first = np.negative(np.add.reduce(products, axis=0)).astype(array.dtype)
        return Packing((0, 1), 0, self.width).apply(np.concatenate([rows, first[None]]))

    def _in_quads(self, cut: Array) -> Array:
        """[..., depth, width] as [..., depth / quad, width, quad]."""
        *outer, depth, width = cut.shape
        steps = -(-depth // self.quad)
        padded = np.zeros((*outer, steps * self.quad, width), cut.dtype)
        padded[..., :depth, :] = cut
        return np.swapaxes(padded.reshape(*outer, steps, self.quad, width), -1, -2)


def _copy_in_blocks(source: Array, target: Array, axis: int) -> None:
    """Copy between views block by block along the axis that moves slowest in the source's memory.

    At once, numpy follows the target's order through all of the source: 0.2 GB/s where rows are 16 KiB apart.
    """
    whole = [slice(None)] * source.ndim
    step = max(1, _BLOCK_BYTES * source.shape[axis] // max(1, source.nbytes))
    for first in range(0, source.shape[axis], step):
        block = (*whole[:axis], slice(first, first + step), *whole[axis + 1 :])
        target[block] = source[block]
