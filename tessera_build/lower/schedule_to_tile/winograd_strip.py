"""What a strip of Winograd's tiles is made of: extents, its register tile, and where its scratch lies.

Takes a sum of products, its window and a trace's numbers; gives shapes and sides. Invariant: `points` and `sums` are as
large as `space.winograd_plan` says.
"""

from __future__ import annotations

from dataclasses import dataclass

from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import int_extent
from tessera_build.ir.schedule.nodes import Compute
from tessera_build.lower.schedule_to_tile.nest import LoopRange, Nest
from tessera_build.space.toom_cook import Transform
from tessera_build.space.winograd import Window
from tessera_build.space.winograd_plan import points_pitch


@dataclass(frozen=True, slots=True)
class Strip:
    """What a strip is made of: extents in tiles, the register tile of the products, scratch buffers by value id."""

    node: Compute
    window: Window
    transform: Transform
    lanes: int
    rows: int
    columns: int
    block: int
    width: int
    chunk: int
    panels: int
    ahead: bool = False  # whether products ask for weights before they come to them
    clips: bool = False  # whether taps that are kept are left out where they are padding
    turns: tuple[Extent, Extent] | None = None  # over the first kept tap, where not all are taken: the first, how many
    points: int = -1
    sums: int = -1
    square: int = -1  # of registers, which a tile passes between its two axes

    @property
    def channels(self) -> int:
        """How many channels every tap has."""
        return int_extent(self.window.channels.extent)

    @property
    def summed(self) -> int:
        """How many products are added up at a point: of all channels, for each tap that is kept."""
        return self.channels * self.window.kept

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of `points` and `sums`: points, tiles, channels in or those of a panel out."""
        size, tiles = self.transform.size, self.rows * self.columns
        row = points_pitch(self.channels, self.window.kept, self.lanes)
        return (size, tiles, row), (size, tiles, self.width)

    @property
    def square_shape(self) -> tuple[int, int, int]:
        """Rows and columns of points, lanes."""
        return self.transform.rows.size, self.transform.columns.size, self.lanes

    @property
    def sides(self) -> tuple[tuple[str, int, int], tuple[str, int, int]]:
        """Rows and columns: the index along it, how many tiles a strip has along it, how many outputs a tile."""
        transform, columns = self.transform, self.window.columns
        index = columns.axis if columns.step == 1 else f"{columns.axis}_rest"
        return (self.window.rows.axis, self.rows, transform.rows.tile), (index, self.columns, transform.columns.tile)

    @property
    def extents(self) -> dict[str, int]:
        """Outputs of a strip along both."""
        return {index: count * size for index, count, size in self.sides}

    def domain(self, nest: Nest) -> dict[str, Extent]:
        """Extents of the nest's axes and of what a strip is cut along."""
        along = zip(self.sides, self.window.extents(nest.domain), strict=True)
        return dict(nest.domain) | {index: extent for (index, _, _), extent in along}

    def kept(self) -> list[LoopRange]:
        """Loops over the taps that are kept."""
        loops = [LoopRange(axis.name, axis.extent) for axis in self.window.further]
        return loops if self.turns is None else [LoopRange(loops[0].index, self.turns[1]), *loops[1:]]

    def first(self, nest: Nest) -> Extent:
        """Where the channels of the kept tap that the nest is at begin among all that are summed."""
        number: Extent = 0
        for axis in self.window.further:
            number = number * int_extent(axis.extent) + nest.offsets[axis.name]
        return number * self.channels

    def place(self, nest: Nest) -> None:
        """Have the nest's offset along columns follow phase and index, where taps are not side by side."""
        columns, offsets = self.window.columns, nest.offsets
        if columns.step > 1:
            offsets[columns.axis] = offsets[columns.phase] + offsets[self.sides[1][0]] * columns.step
