"""What operators tell the importer by leaving in the middle: that it should start again, knowing more, or give up.

Takes what was learned; gives exceptions that are no errors. Invariant: each is raised only where starting again with
what it says cannot come to the same place, and all starts together are allowed only so much work.
"""

from __future__ import annotations

from dataclasses import dataclass

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


class Exhausted(Exception):  # noqa: N818 - a signal to the importer, not an error
    """All allowed work is done, and the model is not."""


# A node takes about 0.1 ms. Branches, loops over sequences and restarts translate nodes several times.
LEAST, PER_NODE = 20_000, 32


@dataclass(slots=True)
class Work:
    """How many nodes may still be translated in one import, whatever sends the importer back to them."""

    left: int

    @classmethod
    def for_nodes(cls, nodes: int) -> Work:
        """What a file of so many nodes may take."""
        return cls(LEAST + PER_NODE * nodes)

    def spend(self) -> None:
        """Translate one node; raises `Exhausted`."""
        self.left -= 1
        if self.left < 0:
            raise Exhausted
