"""Records Tile IR while a kernel's Python body runs once.

Takes nodes in the order in which the author's code makes them; gives blocks of nodes, types of values and the source
line of every node. Invariant: a node enters the innermost open block, so a value is defined before it is used.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tessera.errors import KernelError
from tessera_build.ir.core.dims import Dim, Extent, bounds, floordiv, substitute, symbols_of
from tessera_build.ir.core.inequalities import never_negative
from tessera_build.ir.core.node import Node, Region, Span
from tessera_build.ir.core.types import Type
from tessera_build.ir.tile.nodes import Let

_LANGUAGE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class LoopRange:
    """The values of one loop's index: 0, step, 2 * step, ... below extent."""

    extent: Extent
    step: int

    @property
    def last(self) -> Extent:
        """The largest value of the index."""
        return floordiv(self.extent - 1, self.step) * self.step


@dataclass(frozen=True, slots=True)
class OpenLet:
    """A `Let` whose body is still being recorded: it reaches to the end of the block around it."""

    index: str
    value: int
    extent: Extent
    span: Span
    nodes: list[Node] = field(default_factory=list[Node])


@dataclass(frozen=True, slots=True)
class Block:
    """Nodes of one block, then the data that became indices in it, each with the nodes that follow."""

    nodes: list[Node] = field(default_factory=list[Node])
    lets: list[OpenLet] = field(default_factory=list[OpenLet])


class Tracer:
    """The state of one trace: open blocks, open loops, types and source lines."""

    def __init__(self, dims: tuple[str, ...]) -> None:
        self.dims = dims
        self.types: dict[int, Type] = {}
        self.locations: dict[Node, Span] = {}
        self._blocks: list[Block] = [Block()]
        self._loops: dict[str, LoopRange] = {}
        self._loop_count = 0

    def value(self, kind: Type) -> int:
        """A new value of the given type."""
        number = len(self.types)
        self.types[number] = kind
        return number

    def append(self, node: Node) -> None:
        """Put a node at the end of the innermost open block."""
        block = self._blocks[-1]
        (block.lets[-1].nodes if block.lets else block.nodes).append(node)
        self.locations[node] = self.here()

    @contextmanager
    def block(self) -> Generator[Block]:
        """Open a nested block; when the context has closed, `close` gives its nodes."""
        block = Block()
        self._blocks.append(block)
        try:
            yield block
        finally:
            self._blocks.pop()
            for let in block.lets:
                del self._loops[let.index]

    def let(self, value: int, extent: Extent) -> str:
        """From here to the end of the innermost open block, the name of an element as an index below `extent`."""
        name = self.loop_name()
        self._blocks[-1].lets.append(OpenLet(name, value, extent, self.here()))
        self._loops[name] = LoopRange(extent, 1)
        return name

    def close(self, block: Block, results: tuple[int, ...]) -> Region:
        """The region of a block that yields `results`."""
        for let, outer in zip(reversed(block.lets), self._outer(block), strict=True):
            given = tuple(self.value(self.types[result]) for result in results)
            node = Let(given, let.index, let.value, let.extent, Region((), tuple(let.nodes), results))
            self.locations[node] = let.span
            outer.append(node)
            results = given
        return Region((), tuple(block.nodes), results)

    @staticmethod
    def _outer(block: Block) -> list[list[Node]]:
        """The nodes that each `Let` stands at the end of, from the innermost one outwards."""
        return [*(let.nodes for let in reversed(block.lets[:-1])), block.nodes] if block.lets else []

    def finish(self) -> tuple[Node, ...]:
        """The nodes of the whole trace."""
        return self.close(self._blocks[0], ()).nodes

    def loop_name(self) -> str:
        """A name for a loop's index that no symbol of the kernel has."""
        while True:
            name = f"i{self._loop_count}"
            self._loop_count += 1
            if name not in self.dims:
                return name

    @contextmanager
    def loop(self, name: str, extent: Extent, step: int) -> Generator[None]:
        """Make the loop's range known to `inside` while its body is traced."""
        self._loops[name] = LoopRange(extent, step)
        try:
            yield
        finally:
            del self._loops[name]

    def inside(self, offset: Extent, length: Extent, extent: Extent) -> bool:
        """True when offset .. offset + length - 1 certainly lies within 0 .. extent - 1 in every turn of the loops."""
        low, _ = bounds(offset, self._nonnegative())
        if low is None or low < 0:
            return False
        return never_negative(extent - self._largest(offset) - length, self._nonnegative())

    def _nonnegative(self) -> Mapping[str, tuple[int | None, int | None]]:
        return dict.fromkeys((*self.dims, *self._loops), (0, None))

    def _largest(self, offset: Extent) -> Extent:
        # Innermost first: a loop's own extent may use the index of a loop around it.
        for name, values in reversed(self._loops.items()):
            if isinstance(offset, Dim) and name in offset.symbols and _grows_with(offset, name):
                offset = substitute(offset, {name: values.last})
        return offset

    def here(self) -> Span:
        """The innermost line of the author's code."""
        frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
        while frame.f_back is not None and Path(frame.f_code.co_filename).parent == _LANGUAGE:
            frame = frame.f_back
        return Span(Path(frame.f_code.co_filename).name, frame.f_lineno)

    def error(self, message: str, *, expected: str | None = None, found: str | None = None) -> KernelError:
        """The error to raise for a misuse at the author's current line."""
        return KernelError(message, where=str(self.here()), expected=expected, found=found)


def _grows_with(offset: Dim, name: str) -> bool:
    """True when the symbol occurs only as itself with positive coefficients, so that its largest value is the worst."""
    for monomial, coefficient in offset.terms:
        for atom, _power in monomial:
            if atom.function and name in symbols_of(atom.left) | symbols_of(atom.right):
                return False
            if atom.name == name and coefficient < 0:
                return False
    return True
