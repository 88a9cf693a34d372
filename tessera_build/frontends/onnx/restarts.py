"""What operators tell the importer by leaving in the middle: that it should start again, knowing more.

Takes what was learned; gives exceptions that are no errors. Invariant: each is raised only where starting again with
what it says cannot come to the same place.
"""

from __future__ import annotations

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import Extent


class Undecided(Exception):  # noqa: N818 - a signal to the importer, not an error
    """Which branch the If with result `name` takes depends on dims, and the two do not fit into one graph."""

    def __init__(self, name: str, problem: TesseraError) -> None:
        super().__init__(name)
        self.name = name
        self.problem = problem


class Unified(Exception):  # noqa: N818 - a signal to the importer, not an error
    """The model needs dim `symbol` to be `extent`: the import starts again with that known."""

    def __init__(self, symbol: str, extent: Extent) -> None:
        super().__init__(symbol)
        self.symbol = symbol
        self.extent = extent
