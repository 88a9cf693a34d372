"""What is legal in Graph IR: every node is a row of the op table, and its results have the types that row infers.

Takes a function or a module; raises `SpecError` with everything that is wrong. Invariant: what passes here, the
reference interpreter runs for every value of the dims within their ranges.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from bundle_format.errors import TesseraError
from tessera_build.ir.core import spec
from tessera_build.ir.core.dims import Range, symbols_of
from tessera_build.ir.core.node import Function, Node, walk
from tessera_build.ir.core.spec import Scope, SpecError, Violation
from tessera_build.ir.core.types import Type
from tessera_build.ir.graph.infer import complete, infer, op_named
from tessera_build.ir.graph.nodes import GraphNode, Module
from tessera_build.ir.graph.ops.op import RegionType
from tessera_build.ir.graph.regions import index_range


def verify(function: Function, dims: Mapping[str, Range] | None = None) -> None:
    """Raise `SpecError` unless the function is legal; without `dims`, the symbols of its arguments are its dims."""
    if dims is None:
        extents = [e for value in function.args if value in function.types for e in function.types[value].shape]
        dims = {name: (0, None) for extent in extents for name in symbols_of(extent)}
    spec.verify(function, LEVEL, dims)


def verify_module(module: Module) -> None:
    """Raise `SpecError` unless all entries, names, constants and states of a module are legal."""
    violations = [Violation("module", text, "module", "") for text in _module_problems(module)]
    for function in module.entries.values():
        try:
            verify(function, module.dims)
        except SpecError as error:
            violations.extend(error.violations)
    if violations:
        raise SpecError("module", violations)


def _module_problems(module: Module) -> Iterator[str]:
    for name, function in module.entries.items():
        counts = (len(module.input_names.get(name, ())), len(module.output_names.get(name, ())))
        if counts != (len(function.args), len(function.results)):
            yield f"entry {name!r} has {len(function.args)} inputs and {len(function.results)} outputs, {counts} names"
        for digest in sorted({d for d in _digests(function) if d not in module.constants}):
            yield f"entry {name!r} uses constant {digest}, which the module does not hold"
        for pair in module.states.get(name, ()):
            if pair.incoming not in function.args or pair.outgoing not in function.results:
                yield f"a state of entry {name!r} does not join an input and an output"
    for unknown in sorted(module.states.keys() - module.entries.keys()):
        yield f"states of {unknown!r}, which is not an entry"


def _digests(function: Function) -> Iterator[str]:
    for node in function.walk():
        if isinstance(node, GraphNode) and node.op == "constant":
            yield str(node.attributes.get("digest"))


def values_are_tensors(scope: Scope, node: GraphNode) -> Iterator[str]:
    """Operands and results are tensors."""
    for value in (*node.inputs, *node.outputs):
        if scope.type(value).container != "tensor":
            yield f"%{value} is {scope.type(value)}, not a tensor"


def op_attributes(_scope: Scope, node: GraphNode) -> Iterator[str]:
    """The op is in the table, and the node has exactly its attributes."""
    try:
        if complete(op_named(node.op), node.attributes) != dict(node.attributes):
            yield "an attribute is left to its default"
    except TesseraError as error:
        yield _said(error)


def result_types(scope: Scope, node: GraphNode) -> Iterator[str]:
    """Results have the types that the op's rule infers."""
    try:
        regions = [RegionType(_types(scope, r.args), _types(scope, r.results)) for r in node.regions]
        inferred = infer(node.op, [scope.type(i) for i in node.inputs], node.attributes, None, regions)
    except TesseraError as error:
        yield _said(error)
        return
    except (KeyError, IndexError, ValueError) as error:  # attributes of a wrong shape, named by op_attributes
        yield f"its types cannot be inferred: {error!r}"
        return
    declared = tuple(scope.type(o) for o in node.outputs)
    if inferred != declared:
        yield f"results are ({', '.join(map(str, declared))}), its rule gives ({', '.join(map(str, inferred))})"


def _types(scope: Scope, values: Iterable[int]) -> tuple[Type, ...]:
    return tuple(scope.type(v) for v in values)


def constants_outside(_scope: Scope, node: GraphNode) -> Iterator[str]:
    """Regions hold no constants: what reads one finds it in the function's own block."""
    if any(isinstance(n, GraphNode) and n.op == "constant" for region in node.regions for n in walk(region.nodes)):
        yield "a region holds a constant"


def _loop_range(scope: Scope, node: Node) -> Range:
    found = index_range(node, scope.symbols) if isinstance(node, GraphNode) else {}
    return next(iter(found.values()), (0, None))


def _said(error: TesseraError) -> str:
    facts = (("expected", error.expected), ("found", error.found))
    return "; ".join([error.message, *(f"{label} {text}" for label, text in facts if text)])


RULES: spec.Rules = {
    GraphNode: (values_are_tensors, spec.dims_in_scope, op_attributes, result_types, constants_outside)
}
LEVEL = spec.Level(RULES, (spec.argument_symbols,), _loop_range)
