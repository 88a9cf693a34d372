"""Symbolic dimensions: integer polynomials over named symbols, with floor division, modulo, min and max as atoms.

Takes integers and names; gives canonical expressions (equal content, equal text, equal hash) that can be evaluated,
substituted, bounded, printed and parsed. Invariant: a constant expression is always a plain `int`, so `Extent` values
compare by `==` whatever way they were built. The text is made once and stands for the content: it is what expressions
are compared, hashed and sorted by, because walking nested ones for each of these took most of a kernel's lowering.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Monomial = tuple[tuple["Atom", int], ...]
Range = tuple[int | None, int | None]
DimRequest = int | tuple[int, int | None]  # what a build is told of a dim: its size, or its least and its largest


@dataclass(frozen=True, slots=True, eq=False)
class Atom:
    """A symbol (`function == ""`) or a function of two expressions: floordiv, mod, min, max."""

    function: str
    name: str = ""
    left: Extent = 0
    right: Extent = 0
    text: str = field(init=False, repr=False)
    symbols: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        inside = symbols_of(self.left) | symbols_of(self.right) if self.function else frozenset((self.name,))
        object.__setattr__(self, "symbols", inside)
        text = self.name if not self.function else f"{self.function}({self.left}, {self.right})"
        object.__setattr__(self, "text", text)

    def __eq__(self, other: object) -> bool:
        return self.text == other.text if isinstance(other, Atom) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, eq=False)
class Dim:
    """A non-constant polynomial: terms sorted by text, coefficients never zero. Build with `symbol` and operators."""

    terms: tuple[tuple[Monomial, int], ...]
    text: str = field(init=False, repr=False)
    symbols: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.terms) == 1 and self.terms[0][1] == 1 and len(self.terms[0][0]) == 1:
            ((atom, power),) = self.terms[0][0]
            object.__setattr__(self, "symbols", atom.symbols)
            object.__setattr__(self, "text", atom.text if power == 1 else _term_text(self.terms[0][0], 1))
            return
        atoms = (atom for monomial, _ in self.terms for atom, _power in monomial)
        object.__setattr__(self, "symbols", frozenset[str]().union(*(atom.symbols for atom in atoms)))
        text = ""
        for monomial, coefficient in self.terms:
            sign = "-" if coefficient < 0 else ("+" if text else "")
            text += sign + _term_text(monomial, abs(coefficient))
        object.__setattr__(self, "text", text)

    def __eq__(self, other: object) -> bool:
        return self.text == other.text if isinstance(other, Dim) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.text)

    def __add__(self, other: Extent) -> Extent:
        if isinstance(other, int):
            return self._shifted(other)
        total = dict(self.terms)
        for monomial, coefficient in terms_of(other):
            total[monomial] = total.get(monomial, 0) + coefficient
        return _from_terms(total)

    def __radd__(self, other: int) -> Extent:
        return self + other

    def __neg__(self) -> Extent:
        return self * -1

    def __sub__(self, other: Extent) -> Extent:
        return self + other * -1

    def __rsub__(self, other: int) -> Extent:
        return self * -1 + other

    def _shifted(self, number: int) -> Extent:
        """The sum with a number, whose term is the last: addresses are sums of few terms with many numbers."""
        if not number:
            return self
        constant = self.terms[-1][1] if self.terms[-1][0] == () else 0
        front = self.terms[:-1] if constant else self.terms
        return Dim((*front, ((), constant + number))) if constant + number else Dim(front)

    def __mul__(self, other: Extent) -> Extent:
        if isinstance(other, int):
            if other in (0, 1):
                return self if other else 0
            return Dim(tuple((monomial, coefficient * other) for monomial, coefficient in self.terms))
        total: dict[Monomial, int] = {}
        for left, a in self.terms:
            for right, b in terms_of(other):
                monomial = _times(left, right)
                total[monomial] = total.get(monomial, 0) + a * b
        return _from_terms(total)

    def __rmul__(self, other: int) -> Extent:
        return self * other

    def __floordiv__(self, other: Extent) -> Extent:
        return floordiv(self, other)

    def __mod__(self, other: Extent) -> Extent:
        return mod(self, other)

    def __str__(self) -> str:
        return self.text


Extent = int | Dim


def _term_text(monomial: Monomial, coefficient: int) -> str:
    if len(monomial) == 1 and coefficient == 1 and monomial[0][1] == 1:
        return monomial[0][0].text
    factors = [atom.text for atom, power in monomial for _ in range(power)]
    if coefficient != 1 or not factors:
        factors.insert(0, str(coefficient))
    return "*".join(factors)


def _times(left: Monomial, right: Monomial) -> Monomial:
    if not left or not right:
        return left or right
    powers = dict(left)
    for atom, power in right:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(sorted(powers.items(), key=lambda item: item[0].text))


def _from_terms(total: Mapping[Monomial, int]) -> Extent:
    kept = [(m, c) for m, c in total.items() if c]
    if not kept:
        return 0
    if len(kept) == 1 and kept[0][0] == ():
        return kept[0][1]
    if len(kept) == 1:
        return Dim(tuple(kept))
    return Dim(tuple(sorted(kept, key=lambda t: (t[0] == (), _term_text(t[0], 1)))))


def terms_of(extent: Extent) -> tuple[tuple[Monomial, int], ...]:
    """The polynomial's terms; a constant is one term with the empty monomial, zero has none."""
    if isinstance(extent, Dim):
        return extent.terms
    return (((), extent),) if extent else ()


def symbol(name: str) -> Dim:
    """The dimension called `name`, an identifier."""
    if not name.isidentifier():
        raise ValueError(f"dimension name {name!r} is not an identifier")
    return Dim(((((Atom("", name), 1),), 1),))


def _atom(function: str, left: Extent, right: Extent) -> Dim:
    return Dim(((((Atom(function, "", left, right), 1),), 1),))


def floordiv(left: Extent, right: Extent) -> Extent:
    """left // right, split over the terms that divide exactly; `right` must be positive."""
    if isinstance(left, int) and isinstance(right, int):
        return left // right
    if right == 1:
        return left
    if left == right:
        return 1
    whole, rest = _split_multiples(left, right)
    if rest == 0 or (isinstance(rest, int) and isinstance(right, int)):
        return whole + (rest // right if isinstance(rest, int) and isinstance(right, int) else 0)
    return whole + _atom("floordiv", rest, right)


def _split_multiples(left: Extent, right: Extent) -> tuple[Extent, Extent]:
    """Write left = whole * right + rest: for the terms that are multiples of one term; of several, all or nothing."""
    divisor = terms_of(right)
    if len(divisor) != 1:
        whole = _polynomial_quotient(left, right)
        return (0, left) if whole is None else (whole, 0)
    (monomial, coefficient), whole, rest = divisor[0], 0, 0
    for term, c in terms_of(left):
        quotient = _monomial_quotient(term, monomial)
        piece = _from_terms({term: c})
        if quotient is None or (c % coefficient and quotient != ()):
            rest = rest + piece
        else:
            whole = whole + _from_terms({quotient: c // coefficient})
            rest = rest + _from_terms({term: c % coefficient})
    return whole, rest


def _polynomial_quotient(left: Extent, right: Extent) -> Extent | None:
    """`whole` with left = whole * right exactly, found by dividing leading terms; None where there is none."""
    atoms = sorted({a for m, _ in (*terms_of(left), *terms_of(right)) for a, _ in m}, key=lambda atom: atom.text)

    def leading(extent: Extent) -> tuple[Monomial, int]:
        return max(
            terms_of(extent), key=lambda term: [sum(p for _, p in term[0]), *(dict(term[0]).get(a, 0) for a in atoms)]
        )

    whole, rest, (monomial, coefficient) = 0, left, leading(right)
    for _ in terms_of(left):  # each step removes a leading term; a quotient of more terms than `left` is not wanted
        term, c = leading(rest)
        quotient = _monomial_quotient(term, monomial)
        if quotient is None or c % coefficient:
            return None
        piece = _from_terms({quotient: c // coefficient})
        whole, rest = whole + piece, rest - piece * right
        if rest == 0:
            return whole
    return None


def _monomial_quotient(term: Monomial, divisor: Monomial) -> Monomial | None:
    powers = dict(term)
    for atom, power in divisor:
        if powers.get(atom, 0) < power:
            return None
        powers[atom] -= power
    return tuple((a, p) for a, p in sorted(powers.items(), key=lambda item: item[0].text) if p)


def mod(left: Extent, right: Extent) -> Extent:
    """left modulo right, `right` positive; multiples of `right` drop out."""
    if isinstance(left, int) and isinstance(right, int):
        return left % right
    _, rest = _split_multiples(left, right)
    if isinstance(rest, int) and isinstance(right, int):
        return rest % right
    return rest if rest == 0 else _atom("mod", rest, right)


def maximum(left: Extent, right: Extent) -> Extent:
    """The larger of two extents."""
    if isinstance(left, int) and isinstance(right, int):
        return max(left, right)
    difference = left - right
    if isinstance(difference, int):
        return left if difference >= 0 else right
    return _atom("max", *sorted((left, right), key=str))


def minimum(left: Extent, right: Extent) -> Extent:
    """The smaller of two extents."""
    if isinstance(left, int) and isinstance(right, int):
        return min(left, right)
    difference = left - right
    if isinstance(difference, int):
        return right if difference >= 0 else left
    return _atom("min", *sorted((left, right), key=str))


_FUNCTIONS: dict[str, Callable[[Extent, Extent], Extent]] = {
    "floordiv": floordiv,
    "mod": mod,
    "min": minimum,
    "max": maximum,
}


def symbols_of(extent: Extent) -> frozenset[str]:
    """Names of the symbols in `extent`."""
    return extent.symbols if isinstance(extent, Dim) else frozenset()


def substitute(extent: Extent, values: Mapping[str, Extent]) -> Extent:
    """`extent` with the named symbols replaced; the rest stay symbolic."""
    if isinstance(extent, int) or extent.symbols.isdisjoint(values):
        return extent
    total: Extent = 0
    for monomial, coefficient in extent.terms:
        product: Extent = coefficient
        for atom, power in monomial:
            for _ in range(power):
                product = product * _substitute_atom(atom, values)
        total = total + product
    return total


def _substitute_atom(atom: Atom, values: Mapping[str, Extent]) -> Extent:
    if not atom.function:
        return values[atom.name] if atom.name in values else symbol(atom.name)
    return _FUNCTIONS[atom.function](substitute(atom.left, values), substitute(atom.right, values))


def evaluate(extent: Extent, values: Mapping[str, int]) -> int:
    """The integer value of `extent`; raises `KeyError` when a symbol has no value."""
    result = substitute(extent, dict(values))
    if isinstance(result, int):
        return result
    raise KeyError(", ".join(sorted(result.symbols)))


def bounds(extent: Extent, ranges: Mapping[str, Range]) -> Range:
    """Inclusive bounds of `extent` (None: unbounded) given its symbols' ranges, by interval arithmetic."""
    low: int | None = 0
    high: int | None = 0
    for monomial, coefficient in terms_of(extent):
        term: Range = (coefficient, coefficient)
        for atom, power in monomial:
            for _ in range(power):
                term = _range_product(term, _atom_range(atom, ranges))
        low = None if low is None or term[0] is None else low + term[0]
        high = None if high is None or term[1] is None else high + term[1]
    return low, high


def _atom_range(atom: Atom, ranges: Mapping[str, Range]) -> Range:
    if not atom.function:
        return ranges.get(atom.name, (None, None))
    left, right = bounds(atom.left, ranges), bounds(atom.right, ranges)
    if atom.function == "mod":
        return 0, None if right[1] is None else right[1] - 1
    if atom.function == "floordiv":
        return _range_quotient(left, right)
    # The smaller of two is at most what either is at most; what it is at least needs both.
    pick, needed = (min, (2, 1)) if atom.function == "min" else (max, (1, 2))
    known = [[end for end in ends if end is not None] for ends in zip(left, right, strict=True)]
    low, high = (pick(ends) if len(ends) >= count else None for ends, count in zip(known, needed, strict=True))
    return low, high


def _range_quotient(left: Range, right: Range) -> Range:
    """Bounds of a floor division by a positive divisor: the ends come from the divisor that is nearest to or furthest
    from zero, by the sign of the dividend."""
    (low, high), nearest, furthest = left, max(right[0] or 1, 1), right[1]
    if low is not None:
        low = low // nearest if low < 0 else 0 if furthest is None else low // furthest
    if high is not None:
        high = high // nearest if high >= 0 else -1 if furthest is None else high // furthest
    return low, high


def _range_product(left: Range, right: Range) -> Range:
    (a, b), (c, d) = left, right
    if a is not None and a == b:
        c, d = (c, d) if a >= 0 else (d, c)
        return None if c is None else a * c, None if d is None else a * d
    if a is not None and a >= 0 and c is not None and c >= 0:
        return a * c, None if b is None or d is None else b * d
    if a is None or b is None or c is None or d is None:
        if a is not None and b is not None and b <= 0 and c is not None and c >= 0:
            return None, b * c
        return None, None
    corners = (a * c, a * d, b * c, b * d)
    return min(corners), max(corners)


def parse_extent(text: str) -> Extent:
    """Read what `str` of an extent printed; raises `ValueError` on anything else."""
    try:
        return _from_ast(ast.parse(text, mode="eval").body)
    except (SyntaxError, ZeroDivisionError) as error:
        raise ValueError(f"{text!r} is not a dimension expression") from error


def _from_ast(node: ast.expr) -> Extent:
    match node:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return value
        case ast.Name(id=name):
            return symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _from_ast(operand) * -1
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _from_ast(left) + _from_ast(right)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _from_ast(left) - _from_ast(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _from_ast(left) * _from_ast(right)
        case ast.BinOp(left=left, op=ast.FloorDiv(), right=right):
            return floordiv(_from_ast(left), _from_ast(right))
        case ast.BinOp(left=left, op=ast.Mod(), right=right):
            return mod(_from_ast(left), _from_ast(right))
        case ast.Call(func=ast.Name(id=name), args=[left, right]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](_from_ast(left), _from_ast(right))
        case _:
            raise ValueError(f"{ast.unparse(node)!r} is not a dimension expression")
