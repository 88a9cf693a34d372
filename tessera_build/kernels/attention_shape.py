"""What attention is computed of, and the numbers of its kernel.

Takes extents and numbers; gives records of them. Invariant: a schedule never changes what is computed, but for the
order of its sums.
"""

from __future__ import annotations

from dataclasses import dataclass

from tessera_build.ir.core.dims import Extent, floordiv


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Extents; `groups` is batch × heads; `mask` is the mask's own shape [B or 1, H or 1, M or 1, N], if any.

    `sharing` groups of queries, side by side, read one group of keys and values. `reach`: the mask hides from query i
    all keys beyond number i + reach; None where it may show any.
    """

    groups: Extent
    queries: Extent
    keys: Extent
    depth: int
    value_depth: int
    heads: Extent = 1
    mask: tuple[Extent, Extent, Extent, Extent] | None = None
    sharing: int = 1
    reach: int | None = None

    @property
    def key_groups(self) -> Extent:
        """Batch × heads of keys and values; `heads` is a multiple of `sharing`."""
        if self.sharing == 1:
            return self.groups
        return floordiv(self.groups, self.heads) * floordiv(self.heads, self.sharing)

    def key_group(self, group: Extent) -> Extent:
        """The group of keys that a group of queries reads."""
        return group if self.sharing == 1 else floordiv(group, self.sharing)


@dataclass(frozen=True, slots=True)
class AttentionSchedule:
    """Numbers to search: the tile of queries, of keys and of value columns, and the keys that one softmax step covers.

    `tile_k` is how many products one turn of a contraction's loop adds. With `block` ≥ keys the softmax sees whole
    rows. `rows` is how many query rows one softmax step holds; `order` is the order of its sums. `transposed_keys`:
    the buffer k already is kᵀ[G, D, N]. `keys_at_once`, for few queries: so many keys as they lie, whose products with
    a query are added up along the depth in `order`, because columns of keys pay for many queries only. `tiles` of
    queries take a block of keys in turn, so that it is read, and turned into columns, once for all of them.
    """

    tile_m: int = 12
    tile_n: int = 32
    tile_e: int = 32
    tile_k: int = 8
    block: int = 128
    rows: int = 1
    order: str = "tree(16)"
    transposed_keys: bool = False
    keys_at_once: int = 0
    tiles: int = 1


@dataclass(frozen=True, slots=True)
class Columns:
    """`count` columns of scores from `first` on; `there`: each is of a key."""

    first: Extent
    count: Extent
    there: bool


@dataclass(frozen=True, slots=True)
class KeyBlock:
    """`count` keys from `first` on."""

    first: Extent
    count: Extent

    def padded(self, width: int) -> Extent:
        """The columns of the register tiles of `width` that scores of them fill."""
        return floordiv(self.count + (width - 1), width) * width

    def parts(self, width: int) -> list[Columns]:
        """Columns of register tiles whose keys are all there, and of the one that has some."""
        whole = floordiv(self.count, width) * width
        parts = Columns(0, whole, there=True), Columns(whole, self.padded(width) - whole, there=False)
        return [part for part in parts if part.count != 0]

    def pieces(self, step: int) -> list[tuple[Extent, Extent, int]]:
        """(first, extent, step) of the loops over the keys, with no more than there are."""
        whole = floordiv(self.count, step) * step
        rest = self.count - whole
        parts = (0, whole, step), (whole, rest, rest if isinstance(rest, int) else 1)
        return [part for part in parts if part[1] != 0]
