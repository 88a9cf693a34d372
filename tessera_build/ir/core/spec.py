"""What is legal, as data: each level has a table from node class to rules, and this file runs it.

Takes a function and a level's table; raises one `SpecError` with every violation found, each with its rule's name and
the node's text. Invariant: rules see only nodes whose operands are defined and typed, so they need no defences.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import Extent, Range, bounds, symbols_of
from tessera_build.ir.core.node import Function, Node, Region
from tessera_build.ir.core.scalar import CONVERSIONS, SCALAR_OPS, ScalarProgram, result_dtype
from tessera_build.ir.core.structure import (
    defs_of,
    regions_of,
    symbols_bound_by,
    symbols_defined_by,
    symbols_in,
    to_generic,
    uses_of,
)
from tessera_build.ir.core.text.printer import print_node
from tessera_build.ir.core.types import DType, Type

Rule = Callable[..., Iterable[str]]  # (scope, node) -> what is wrong with the node
Rules = Mapping[type[Node], Sequence[Rule]]


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong: the rule's name, what it says, the node's text and its source."""

    rule: str
    message: str
    node: str
    where: str

    def __str__(self) -> str:
        source = f" ({self.where})" if self.where else ""
        return f"{self.rule}: {self.message}{source}\n    {self.node}"


class SpecError(TesseraError):
    """A function breaks the rules of its level; `violations` holds all of them."""

    def __init__(self, name: str, violations: Sequence[Violation]) -> None:
        shown = [f"\n  {violation}" for violation in violations[:20]]
        more = f"\n  and {len(violations) - 20} more" if len(violations) > 20 else ""
        count = "1 violation" if len(violations) == 1 else f"{len(violations)} violations"
        super().__init__("SPEC_VIOLATION", f"{name} has {count}{''.join(shown)}{more}", where=name)
        self.violations = tuple(violations)


@dataclass(slots=True)
class Scope:
    """What a rule may ask about the surroundings of a node."""

    function: Function
    names: frozenset[str] = frozenset()  # names that a level's rules may look up, such as instructions
    symbols: dict[str, Range] = field(default_factory=dict[str, Range])  # dims and loop indices in sight
    binders: dict[str, Node] = field(default_factory=dict[str, Node])  # index -> the node around that gives it values
    defined: dict[int, Node | None] = field(default_factory=dict[int, Node | None])  # value -> node, None: argument
    guarded: int = 0  # how many regions around the node run only sometimes

    def type(self, value: int) -> Type:
        """The type of a value."""
        return self.function.types[value]

    def bounds(self, extent: Extent) -> Range:
        """Bounds of an index expression by the ranges of the loops and dims in sight."""
        return bounds(extent, self.symbols)

    def maker(self, value: int) -> Node | None:
        """The node that defines a value, None for an argument."""
        return self.defined[value]


@dataclass(frozen=True, slots=True)
class Level:
    """The legality table of one level: rules per class, rules for the function, range of a loop's index."""

    rules: Rules
    function_rules: Sequence[Callable[[Scope], Iterable[str]]] = ()
    index_range: Callable[[Scope, Node], Range] = lambda _scope, _node: (0, None)
    conditional: Collection[type[Node]] = ()


def verify(function: Function, level: Level, dims: Mapping[str, Range], names: Collection[str] = ()) -> None:
    """Check a function against its level; `dims` are the symbols that its extents may use.

    Raises `SpecError` with all violations.
    """
    scope = Scope(function, frozenset(names), dict(dims))
    checker = _Checker(scope, level, [])
    for rule in level.function_rules:
        checker.violations += [Violation(_name(rule), text, function.name, "") for text in rule(scope)]
    checker.block(Region(function.args, function.nodes, function.results), None)
    if checker.violations:
        raise SpecError(function.name, checker.violations)


@dataclass(slots=True)
class _Checker:
    scope: Scope
    level: Level
    violations: list[Violation]

    def block(self, region: Region, owner: Node | None) -> None:
        """Check a region's nodes in order; what it defines is out of sight afterwards."""
        outer, symbols = len(self.scope.defined), dict(self.scope.symbols)
        for value in region.args:
            self._define(value, None, owner)
        for node in region.nodes:
            self._node(node)
        for value in region.results:
            if value not in self.scope.defined:
                self._report("ssa_dominance", f"result %{value} is not defined here", owner)
        while len(self.scope.defined) > outer:
            self.scope.defined.popitem()
        self.scope.symbols = symbols

    def _node(self, node: Node) -> None:
        if type(node) not in self.level.rules:
            self._report("level", f"{type(node).__name__} is not a node of this level", node)
            return
        sound = self._operands(node)
        self._symbols(node)
        self._regions(node)
        for value in defs_of(node):
            sound &= self._define(value, node, node)
        for rule in self.level.rules[type(node)] if sound else ():
            for message in rule(self.scope, node):
                self._report(_name(rule), message, node)
        self.scope.symbols |= dict.fromkeys(symbols_defined_by(node), (0, None))

    def _operands(self, node: Node) -> bool:
        missing = [value for value in uses_of(node) if value not in self.scope.defined]
        for value in missing:
            self._report("ssa_dominance", f"%{value} is used before it is defined", node)
        yielded = [r for region in regions_of(node) for r in (*region.args, *region.results)]
        return all(v in self.scope.function.types for v in (*uses_of(node), *yielded)) and not missing

    def _symbols(self, node: Node) -> None:
        for name in (*symbols_bound_by(node).values(), *symbols_defined_by(node)):
            if name in self.scope.symbols:
                self._report("fresh_index", f"index {name!r} is already in use here", node)
            if not name.isidentifier():
                self._report("fresh_index", f"index {name!r} is not an identifier", node)

    def _regions(self, node: Node) -> None:
        regions = regions_of(node)
        bound = symbols_bound_by(node).values() if regions else ()
        before, binders = self.scope.symbols, self.scope.binders
        if bound:
            self.scope.symbols = before | {name: self.level.index_range(self.scope, node) for name in bound}
            self.scope.binders = binders | dict.fromkeys(bound, node)
        self.scope.guarded += type(node) in self.level.conditional
        for region in regions:
            self.block(region, node)
        self.scope.guarded -= type(node) in self.level.conditional
        self.scope.symbols, self.scope.binders = before, binders

    def _define(self, value: int, node: Node | None, owner: Node | None) -> bool:
        if value in self.scope.defined:
            self._report("ssa_single", f"%{value} is defined twice", owner)
        self.scope.defined[value] = node
        if value not in self.scope.function.types:
            self._report("typed", f"%{value} has no type", owner)
            return False
        return True

    def _report(self, rule: str, message: str, node: Node | None) -> None:
        function = self.scope.function
        if node is None:
            self.violations.append(Violation(rule, message, function.name, ""))
            return
        span = function.locations.get(node)
        self.violations.append(Violation(rule, message, print_node(node, function.types), str(span or "")))


def _name(rule: Callable[..., object]) -> str:
    return getattr(rule, "__name__", "rule").lstrip("_")


def dims_in_scope(scope: Scope, node: Node) -> Iterator[str]:
    """Every symbol in the node's attributes and types is a dim of the function or the index of a loop around it."""
    used = set[str]().union(*(symbols_in(value) for value in to_generic(node).attributes.values()))
    used |= {name for value in defs_of(node) for extent in scope.type(value).shape for name in symbols_of(extent)}
    for name in sorted(used - scope.symbols.keys()):
        yield f"{name!r} is neither a dim nor the index of a loop around"


def argument_symbols(scope: Scope) -> Iterator[str]:
    """Every symbol in the types of the function's arguments is one of its dims."""
    for value in scope.function.args:
        shape = scope.type(value).shape if value in scope.function.types else ()
        for name in sorted({n for extent in shape for n in symbols_of(extent)} - scope.symbols.keys()):
            yield f"argument %{value} has an extent over {name!r}, which is not a dim of the function"


def program_problems(program: ScalarProgram, inputs: Sequence[DType], results: Sequence[DType]) -> Iterator[str]:
    """What is wrong with a scalar program that is to take `inputs` and give `results`."""
    if list(program.inputs) != list(inputs):
        yield f"the program takes ({_listed(program.inputs)}), its operands are ({_listed(inputs)})"
    available = len(program.inputs)
    for op in program.ops:
        if any(not 0 <= arg < available for arg in op.args):
            yield f"{op.name} reads a value that is not defined before it"
            return
        yield from _op_problems(op.name, [program.dtype(a) for a in op.args], op.dtype)
        available += 1
    if any(not 0 <= r < available for r in program.results):
        yield "the program gives a value that it does not define"
        return
    found = [program.dtype(r) for r in program.results]
    if found != list(results):
        yield f"the program gives ({_listed(found)}), ({_listed(results)}) belongs here"


def _op_problems(name: str, args: Sequence[DType], dtype: DType) -> Iterator[str]:
    if SCALAR_OPS.get(name) != len(args):
        yield f"{name} with {len(args)} arguments is not a scalar operation"
        return
    if name == "bitcast" and args[0].bits != dtype.bits:
        yield f"bitcast of {args[0]} to {dtype}, which are not equally wide"
    if name == "const" or name in CONVERSIONS:
        return
    same = args[1:] if name == "select" else args
    if len(set(same)) != 1 or (name == "select" and args[0].kind != "bool"):
        yield f"{name} of ({_listed(args)}) mixes element types"
    elif result_dtype(name, args) != dtype:
        yield f"{name} of ({_listed(args)}) gives {result_dtype(name, args)}, not {dtype}"


def _listed(dtypes: Sequence[DType]) -> str:
    return ", ".join(d.name for d in dtypes)
