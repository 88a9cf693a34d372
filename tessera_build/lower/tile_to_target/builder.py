"""Builds Target IR kernels node by node: constants and integer arithmetic fold and merge, regions nest.

Takes types and operand ids; gives value ids, and at the end a `Function`. Invariant: a value merged with an earlier
one is always one that dominates the place of use, because each open region has its own memory of what it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tessera_build.ir.core.dims import Atom, Dim, Extent, substitute, terms_of
from tessera_build.ir.core.node import Function, Node, Region
from tessera_build.ir.core.types import BOOL, I64, DType, Type, scalar, tile
from tessera_build.ir.target import kernel as k

_COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})
_UNEVEN = 1.5  # times half of the nodes are no half any more


@dataclass(slots=True)
class _Scope:
    nodes: list[Node] = field(default_factory=list[Node])
    known: dict[tuple[object, ...], int] = field(default_factory=dict[tuple[object, ...], int])
    halves: tuple[int, int, int] | None = None


class TargetBuilder:
    """Appends nodes to the innermost open region of one kernel."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._args: list[int] = []
        self._types: dict[int, Type] = {}
        self._scopes: list[_Scope] = [_Scope()]
        self._constants: dict[int, float | int] = {}
        self._without_constant: dict[Extent, tuple[Extent, int]] = {}
        self.symbols: dict[str, int] = {}
        self.fixed: dict[str, Extent] = {}  # indices of loops being unrolled, by their current number

    # -- values -----------------------------------------------------------------------------------------------------

    def arg(self, value_type: Type) -> int:
        """A new kernel argument."""
        value = self.fresh(value_type)
        self._args.append(value)
        return value

    def fresh(self, value_type: Type) -> int:
        """A new value id of a type."""
        value = len(self._types)
        self._types[value] = value_type
        return value

    def type(self, value: int) -> Type:
        """Type of a value."""
        return self._types[value]

    def lanes(self, value: int) -> int:
        """Lanes of a vector, 1 for a scalar."""
        shape = self._types[value].static_shape
        return shape[0] if shape else 1

    def constant(self, value: int) -> float | int | None:
        """The number that a value is known to be, if any."""
        return self._constants.get(value)

    def _memo(self, key: tuple[object, ...]) -> int | None:
        for scope in reversed(self._scopes):
            if key in scope.known:
                return scope.known[key]
        return None

    def emit(self, node: Node) -> None:
        """Append a node as it is."""
        self._scopes[-1].nodes.append(node)

    def _pure(self, key: tuple[object, ...], value_type: Type, make: Node | None, result: int) -> int:
        del value_type
        if make is not None:
            self.emit(make)
        self._scopes[-1].known[key] = result
        return result

    # -- pure operations --------------------------------------------------------------------------------------------

    def const(self, value: float | int, dtype: DType, lanes: int = 1) -> int:
        """A constant scalar or a vector that repeats it."""
        key = ("const", repr(value), dtype, lanes)
        found = self._memo(key)
        if found is not None:
            return found
        value_type = scalar(dtype) if lanes == 1 else tile(dtype, lanes)
        result = self.fresh(value_type)
        self._constants[result] = value
        return self._pure(key, value_type, k.Const(result, value), result)

    def op(self, name: str, *operands: int, dtype: DType | None = None) -> int:
        """One operation of `kernel.OPS`; `dtype` is the result's element type for `cast` and `bitcast`."""
        folded = self._fold(name, operands) if dtype is None else None
        if folded is not None:
            return folded
        key = (name, operands, dtype)
        found = self._memo(key)
        if found is not None:
            return found
        source = self._types[operands[1] if name == "select" else operands[0]]
        element = dtype or (BOOL if name in _COMPARISONS else source.dtype)
        result = self.fresh(Type(source.container, element, source.shape))
        return self._pure(key, self._types[result], k.Op(result, name, operands), result)

    def _fold(self, name: str, operands: tuple[int, ...]) -> int | None:
        """Integer identities only; floating point is left as written."""
        dtype = self._types[operands[0]].dtype
        if dtype != I64 or len(operands) != 2 or self.lanes(operands[0]) != 1:
            return None
        a, b = self._constants.get(operands[0]), self._constants.get(operands[1])
        if isinstance(a, int) and isinstance(b, int) and name in {"add", "sub", "mul"}:
            return self.const({"add": a + b, "sub": a - b, "mul": a * b}[name], I64)
        if (name in {"add", "sub"} and b == 0) or (name in {"mul", "div"} and b == 1):
            return operands[0]
        if (name == "add" and a == 0) or (name == "mul" and a == 1):
            return operands[1]
        return self.const(0, I64) if name == "mul" and (a == 0 or b == 0) else None

    def splat(self, value: int, lanes: int) -> int:
        """A scalar in every lane; a vector or `lanes` 1 passes through."""
        if lanes == 1 or self.lanes(value) != 1:
            return value
        number = self._constants.get(value)
        dtype = self._types[value].dtype
        if number is not None:
            return self.const(number, dtype, lanes)
        key = ("splat", value, lanes)
        found = self._memo(key)
        if found is not None:
            return found
        result = self.fresh(tile(dtype, lanes))
        return self._pure(key, self._types[result], k.Splat(result, value), result)

    def lane_index(self, dtype: DType, lanes: int) -> int:
        """0, 1, 2, ... over the lanes."""
        key = ("lane_index", dtype, lanes)
        found = self._memo(key)
        if found is not None:
            return found
        if lanes == 1:
            return self.const(0, dtype)
        result = self.fresh(tile(dtype, lanes))
        return self._pure(key, self._types[result], k.LaneIndex(result), result)

    def extract(self, value: int, lane: int) -> int:
        """One lane; a scalar is its own only lane."""
        if self.lanes(value) == 1:
            return value
        result = self.fresh(scalar(self._types[value].dtype))
        self.emit(k.Extract(result, value, lane))
        return result

    def insert(self, vector: int, value: int, lane: int) -> int:
        """The vector with a lane replaced."""
        result = self.fresh(self._types[vector])
        self.emit(k.Insert(result, vector, value, lane))
        return result

    def shuffle(self, left: int, right: int, lanes: Sequence[int]) -> int:
        """Lanes picked from left (0..n-1) and right (n..2n-1)."""
        result = self.fresh(tile(self._types[left].dtype, len(lanes)))
        self.emit(k.Shuffle(result, left, right, tuple(lanes)))
        return result

    # -- index expressions ------------------------------------------------------------------------------------------

    def extent(self, expression: Extent) -> int:
        """The i64 value of an index expression over loop indices and dims."""
        expression = substitute(expression, self.fixed)
        if isinstance(expression, int):
            return self.const(expression, I64)
        key = ("extent", expression)
        found = self._memo(key)
        if found is not None:
            return found
        total = self.const(0, I64)
        for monomial, coefficient in expression.terms:
            term = self.const(coefficient, I64)
            for atom, power in monomial:
                for _ in range(power):
                    term = self.op("mul", self._atom(atom), term)
            total = self.op("add", total, term)
        self._scopes[-1].known[key] = total
        return total

    def _atom(self, atom: Atom) -> int:
        if not atom.function:
            return self.symbols[atom.name]
        left, right = self.extent(atom.left), self.extent(atom.right)
        if atom.function in {"min", "max"}:
            return self.op("min" if atom.function == "min" else "max", left, right)
        if not _may_be_negative(atom.left):  # truncating division is floor division then
            return self.op("div" if atom.function == "floordiv" else "rem", left, right)
        zero, rest = self.const(0, I64), self.op("rem", left, right)
        below = self.op("lt", rest, zero)
        if atom.function == "mod":
            return self.op("select", below, self.op("add", rest, right), rest)
        whole = self.op("div", left, right)
        return self.op("select", below, self.op("sub", whole, self.const(1, I64)), whole)

    def address(self, base: Extent) -> tuple[int, int]:
        """(i64 value of the expression without its constant term, that constant): lets addresses share the value."""
        base = substitute(base, self.fixed)
        if base not in self._without_constant:
            constant = next((c for m, c in terms_of(base) if m == ()), 0)
            self._without_constant[base] = (base - constant if isinstance(base, Dim) else 0, constant)
        rest, constant = self._without_constant[base]
        return self.extent(rest), constant

    # -- structure --------------------------------------------------------------------------------------------------

    @contextmanager
    def region(self) -> Generator[list[Node]]:
        """Open a nested region; gives the list its nodes are collected in."""
        self._scopes.append(_Scope())
        try:
            yield self._scopes[-1].nodes
        finally:
            self._scopes.pop()

    @property
    def length(self) -> int:
        """How many nodes the innermost open region has."""
        return len(self._scopes[-1].nodes)

    def rearrange(self, starts: Sequence[int], order: Callable[[list[list[Node]]], Sequence[Sequence[Node]]]) -> None:
        """Put the innermost region's nodes from `starts[0]` on in another order: `order` takes the parts that begin at
        `starts`, and gives all of their nodes in pieces, one behind the other."""
        nodes, ends = self._scopes[-1].nodes, (*starts[1:], self.length)
        parts = [nodes[start:end] for start, end in zip(starts, ends, strict=True)]
        if parts:
            pieces = order(parts)
            nodes[starts[0] :] = [node for piece in pieces for node in piece]
            half = sum(map(len, pieces[: (len(pieces) + 1) // 2]))
            if 2 * half < _UNEVEN * (self.length - starts[0]):
                self._scopes[-1].halves = (starts[0], starts[0] + half, self.length)

    @property
    def halves(self) -> tuple[int, int, int] | None:
        """Where what the innermost region has last put in order in several pieces begins, is half done, and ends."""
        return self._scopes[-1].halves

    def finish(self, attributes: Mapping[str, object]) -> Function:
        """The finished kernel."""
        return Function(self._name, tuple(self._args), tuple(self._scopes[0].nodes), (), self._types, attributes)


def _may_be_negative(extent: Extent) -> bool:
    """Whether an expression over dims and loop indices, which are not negative, could be."""
    terms = terms_of(extent)
    atoms = [atom for monomial, _ in terms for atom, _ in monomial]
    return any(c < 0 for _, c in terms) or any(a.function and _part_may_be_negative(a) for a in atoms)


def _part_may_be_negative(atom: Atom) -> bool:
    return atom.function != "mod" and (_may_be_negative(atom.left) or _may_be_negative(atom.right))


def make_region(args: Sequence[int], nodes: Sequence[Node], results: Sequence[int]) -> Region:
    """A region record from its parts."""
    return Region(tuple(args), tuple(nodes), tuple(results))
