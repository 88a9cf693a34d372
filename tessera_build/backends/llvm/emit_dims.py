"""Dimension expressions as integer arithmetic in LLVM IR.

Takes extents and the operands of their symbols; gives operands. Invariant: constants cost no instruction, an
expression is computed once a function, and no value of a symbol makes the arithmetic trap: divisors are at least one.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.backends.llvm.errors import CompileError
from tessera_build.backends.llvm_text.function_text import FunctionText
from tessera_build.ir.core.dims import Atom, Dim, Extent, Monomial, terms_of


class DimWriter:
    """Writes the expressions of one function, whose blocks must dominate each other in the order of the calls."""

    def __init__(self, out: FunctionText, symbols: Mapping[str, str], *, saturate: bool = False) -> None:
        self._out = out
        self._symbols = dict(symbols)
        self._saturate = saturate
        self._known: dict[Extent | Atom | Monomial, str] = {Atom("", name): text for name, text in symbols.items()}

    def define(self, name: str, operand: str) -> None:
        """From here on the symbol `name` has the value of an operand."""
        self._symbols[name] = operand
        self._known[Atom("", name)] = operand

    def saturating(self) -> DimWriter:
        """A writer over the same symbols whose sums and products end at the largest integer, for sizes of memory."""
        return DimWriter(self._out, self._symbols, saturate=True)

    def nested(self) -> DimWriter:
        """A writer for blocks that do not dominate what follows them: it knows what is known, and is then forgotten."""
        inner = DimWriter(self._out, self._symbols, saturate=self._saturate)
        inner._known = dict(self._known)
        return inner

    def write(self, extent: Extent) -> str:
        """The operand (an i64) that holds the extent's value."""
        if isinstance(extent, int):
            return str(extent)
        if extent not in self._known:
            self._known[extent] = self._sum(extent)
        return self._known[extent]

    def _sum(self, extent: Dim) -> str:
        total = ""
        for monomial, coefficient in terms_of(extent):
            if not monomial:
                term = str(coefficient)
            elif coefficient == 1:
                term = self._product(monomial)
            else:
                term = self._multiply(self._product(monomial), str(coefficient))
            total = self._add(total, term) if total else term
        return total

    def _product(self, monomial: Monomial) -> str:
        if monomial not in self._known:
            factors = [self._atom(atom) for atom, power in monomial for _ in range(power)]
            product = factors[0]
            for factor in factors[1:]:
                product = self._multiply(product, factor)
            self._known[monomial] = product
        return self._known[monomial]

    def _add(self, left: str, right: str) -> str:
        if self._saturate:
            return self._call("sadd.sat", left, right)
        return self._out.temporary(f"add i64 {left}, {right}")

    def _multiply(self, left: str, right: str) -> str:
        if self._saturate:
            arguments = (f"i64 {left}", f"i64 {right}", "i32 0")
            types = ("i64", "i64", "i32 immarg")
            return self._out.temporary(self._out.intrinsic("llvm.smul.fix.sat.i64", "i64", types, arguments))
        return self._out.temporary(f"mul i64 {left}, {right}")

    def _atom(self, atom: Atom) -> str:
        if atom not in self._known:
            if not atom.function:
                raise CompileError(f"the size {atom.name!r} has no value where the host program needs it")
            left, right = self.write(atom.left), self.write(atom.right)
            if atom.function in ("min", "max"):
                self._known[atom] = self._call(f"s{atom.function}", left, right)
            else:
                self._known[atom] = self._floor_division(atom.function, left, right)
        return self._known[atom]

    def _floor_division(self, function: str, left: str, right: str) -> str:
        """Quotient or remainder rounded towards minus infinity by a positive divisor."""
        out = self._out
        divisor = right if not right.startswith("%") else self._call("smax", right, "1")
        remainder = out.temporary(f"srem i64 {left}, {divisor}")
        negative = out.temporary(f"icmp slt i64 {remainder}, 0")
        if function == "mod":
            raised = out.temporary(f"add i64 {remainder}, {divisor}")
            return out.temporary(f"select i1 {negative}, i64 {raised}, i64 {remainder}")
        quotient = out.temporary(f"sdiv i64 {left}, {divisor}")
        lowered = out.temporary(f"sub i64 {quotient}, 1")
        return out.temporary(f"select i1 {negative}, i64 {lowered}, i64 {quotient}")

    def _call(self, name: str, left: str, right: str) -> str:
        arguments = (f"i64 {left}", f"i64 {right}")
        return self._out.temporary(self._out.intrinsic(f"llvm.{name}.i64", "i64", ("i64", "i64"), arguments))
