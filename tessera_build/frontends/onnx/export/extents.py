"""Dimension expressions as ONNX operators on vectors of one integer.

Takes extents; gives i64 vectors of one element, and whole shapes. Invariant: a quotient is rounded down and a remainder
is never negative, as in Graph IR, whatever the sign of the dividend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tessera_build.frontends.onnx.errors import unsupported
from tessera_build.frontends.onnx.export.kernels import carrier
from tessera_build.frontends.onnx.export.writer import Operand, Writer
from tessera_build.ir.core.dims import Atom, Dim, Extent, Range, bounds, symbols_of, terms_of
from tessera_build.ir.core.types import I64, Type

_FUNCTIONS = {"min": "Min", "max": "Max", "mod": "Mod"}


class Extents:
    """The extents of one model. `ranges` are those of the dims; they spare the care for negative numbers."""

    def __init__(self, writer: Writer, ranges: Mapping[str, Range]) -> None:
        self._writer = writer
        self._ranges: dict[str, Range] = dict(ranges)
        self._told: dict[str, tuple[Operand, int]] = {}

    def tell(self, value: Operand, type_: Type) -> None:
        """Take the dims that stand alone in the shape of a model's input from there, once one is asked for."""
        for axis, extent in enumerate(type_.shape):
            if isinstance(extent, Dim) and extent.text.isidentifier():
                self._told.setdefault(extent.text, (value, axis))

    def known(self, extent: Extent) -> bool:
        """Whether the model's own graph can compute it: another entry has other symbols."""
        return symbols_of(extent) <= self._told.keys() | self._writer.root.symbols.keys()

    def define(self, name: str, value: Operand, limits: Range) -> None:
        """Make a symbol of this block known: a size read from data, or the index of a loop."""
        self._writer.here.symbols[name] = value
        self._ranges[name] = limits

    def vector(self, extent: Extent) -> Operand:
        """The extent as a vector of one element."""
        if isinstance(extent, int):
            return self._writer.integers(extent)
        fixed = extent.symbols <= self._told.keys()
        kept = self._writer.root if fixed else self._writer.here
        if extent.text not in kept.extents:
            # What depends on the inputs' dims alone is computed once, before anything that repeats.
            inside = self._writer.blocks
            self._writer.blocks = [self._writer.root] if fixed else inside
            kept.extents[extent.text] = self._sum(extent)
            self._writer.blocks = inside
        return kept.extents[extent.text]

    def scalar(self, extent: Extent) -> Operand:
        """The extent as a scalar."""
        if isinstance(extent, int):
            return self._writer.number(extent, I64)
        return self._writer.emit("Squeeze", self.vector(extent), self._writer.integers(0), dtype=I64)

    def shape(self, extents: Sequence[Extent]) -> Operand:
        """A vector of all extents."""
        if all(isinstance(extent, int) for extent in extents):
            return self._writer.integers(*(int(str(extent)) for extent in extents))
        return self._joined([self.vector(extent) for extent in extents])

    def _joined(self, parts: Sequence[Operand]) -> Operand:
        return parts[0] if len(parts) == 1 else self._writer.emit("Concat", *parts, dtype=I64, axis=0)

    def _sum(self, extent: Dim) -> Operand:
        total: Operand | None = None
        for monomial, coefficient in terms_of(extent):
            factors = [self._atom(atom) for atom, power in monomial for _ in range(power)]
            if coefficient != 1 or not factors:
                factors.append(self._writer.integers(coefficient))
            product = factors[0]
            for factor in factors[1:]:
                product = self._writer.emit("Mul", product, factor, dtype=I64)
            total = product if total is None else self._writer.emit("Add", total, product, dtype=I64)
        assert total is not None, "an expression has terms"
        return total

    def _atom(self, atom: Atom) -> Operand:
        if not atom.function:
            return self._symbol(atom.name)
        left, right = self.vector(atom.left), self.vector(atom.right)
        if atom.function in _FUNCTIONS:
            return self._writer.emit(_FUNCTIONS[atom.function], left, right, dtype=I64)
        low, _ = bounds(atom.left, self._ranges)
        if low is None or low < 0:  # ONNX's Div rounds towards zero
            left = self._writer.emit("Sub", left, self._writer.emit("Mod", left, right, dtype=I64), dtype=I64)
        return self._writer.emit("Div", left, right, dtype=I64)

    def _symbol(self, name: str) -> Operand:
        for block in reversed(self._writer.blocks):
            if name in block.symbols:
                return block.symbols[name]
        if name in self._told:
            value, axis = self._told[name]
            whole = self._writer.cast(value, carrier("Shape", value.dtype))
            return self._writer.emit("Shape", whole, dtype=I64, start=axis, end=axis + 1)
        raise unsupported(f"no input tells the size of dimension {name}", hint=f"fix it: --dims {name}=SIZE")
