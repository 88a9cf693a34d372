"""The numpy interpreter of Graph IR: the living definition of what a module computes.

Takes a module, an entry and named arrays; gives named arrays, or any values that are asked for. Invariant: every
value has the element type and the shape that its static type states for the bound dims; a difference is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import Dim, evaluate, symbol
from tessera_build.ir.core.node import Function, Node, Region, Span
from tessera_build.ir.core.rewrite import Live
from tessera_build.ir.core.structure import captured
from tessera_build.ir.core.types import Type
from tessera_build.ir.graph.builder import guard_symbols
from tessera_build.ir.graph.infer import op_named
from tessera_build.ir.graph.nodes import Array, GraphNode, Guard, Module
from tessera_build.ir.graph.ops.op import Body, DimValues
from tessera_build.ir.graph.ops.sizes import read_sizes


def run(module: Module, entry: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of `entry` by name; raises `TesseraError` when inputs do not fit the signature."""
    function = module.entries[entry]
    values = run_all(module, entry, inputs, function.results)
    return {name: values[v] for name, v in zip(module.output_names[entry], function.results, strict=True)}


def run_all(module: Module, entry: str, inputs: Mapping[str, Array], wanted: Collection[int]) -> dict[int, Array]:
    """The `wanted` values of `entry` by value id; every other value is freed after its last use."""
    return run_with_sizes(module, entry, inputs, wanted)[0]


@dataclass(slots=True)
class Patience:
    """How many nodes and iterations may still be computed: a loop may have any number."""

    left: int

    def spend(self) -> None:
        """Compute one; raises `TesseraError` when there is none left."""
        self.left -= 1
        if self.left < 0:
            raise TesseraError("TOO_MANY_STEPS", "the model's loops take more steps than the reference may compute")


@dataclass(frozen=True, slots=True)
class Course:
    """How a run departs from the module, in the outermost block.

    `correct` says what a computed value is read as; `known` values, of which none is wanted, are not computed.
    """

    correct: Callable[[int, Array], Array]
    known: Mapping[int, Array] = field(default_factory=dict[int, Array])
    patience: Patience | None = None


def run_along(module: Module, entry: str, inputs: Mapping[str, Array], wanted: Collection[int], course: Course) -> None:
    """Compute the `wanted` values, each of which `course.correct` meets."""
    function = module.entries[entry]
    arrays = _in_order(module.input_names[entry], inputs)
    dims = bind_dims([function.types[a] for a in function.args], arrays, module)
    interpreter = _Interpreter(module, function, course.patience, course.correct)
    nodes = interpreter.needed(function.nodes, wanted, course.known.keys())
    values = dict(zip(function.args, arrays, strict=True))
    read = {value for node in nodes for value in (*node.inputs, *captured(node.regions))}
    values |= {value: course.known[value] for value in sorted(read & course.known.keys())}
    interpreter.block(nodes, (), values, dims)


def run_with_sizes(
    module: Module,
    entry: str,
    inputs: Mapping[str, Array],
    wanted: Collection[int],
    patience: Patience | None = None,
) -> tuple[dict[int, Array], dict[str, int]]:
    """Like `run_all`, with the values of all dims, and of the sizes that the outermost block read from data."""
    function = module.entries[entry]
    arrays = _in_order(module.input_names[entry], inputs)
    dims = bind_dims([function.types[a] for a in function.args], arrays, module)
    values = dict(zip(function.args, arrays, strict=True))
    keep, interpreter = frozenset(wanted), _Interpreter(module, function, patience)
    interpreter.block(interpreter.needed(function.nodes, keep), keep, values, dims)
    return {value: values[value] for value in keep}, dims


@dataclass(frozen=True, slots=True)
class _Interpreter:
    """Runs the blocks of one function."""

    module: Module
    function: Function
    patience: Patience | None
    correct: Callable[[int, Array], Array] | None = None

    def block(
        self, nodes: Sequence[GraphNode], keep: Collection[int], values: dict[int, Array], dims: dict[str, int]
    ) -> None:
        """Add to `values` and `dims` what the nodes make; free what no later node of the block reads, unless kept."""
        made = {value for node in nodes for value in node.outputs}
        reads = [{*node.inputs, *captured(node.regions)} for node in nodes]
        last_use = {value: index for index, operands in enumerate(reads) for value in operands}
        for index, node in enumerate(nodes):
            results = self._node(node, values, dims)
            if self.correct is not None:
                results = tuple(map(self.correct, node.outputs, results))
            values.update(zip(node.outputs, results, strict=True))
            if node.op == "sizes":
                self._define(node, values[node.inputs[0]], dims)
            for value in reads[index] & made:
                if last_use[value] == index and value not in keep:
                    del values[value]

    def _node(self, node: GraphNode, values: Mapping[int, Array], dims: DimValues) -> tuple[Array, ...]:
        self._spend()
        operands = [values[i] for i in node.inputs]
        if node.op == "constant":
            operands = [self.module.constants[str(node.attributes["digest"])]]
        try:
            with np.errstate(all="ignore"):
                results = self._results(node, operands, values, dims)
        except TesseraError as error:  # the innermost node that has a place is the one that fails
            error.where = error.where or self._place(node)
            raise
        for output, result in zip(node.outputs, results, strict=True):
            self._check(node, output, result, dims)
        return results

    def _results(
        self, node: GraphNode, operands: list[Array], values: Mapping[int, Array], dims: DimValues
    ) -> tuple[Array, ...]:
        op = op_named(node.op)
        if op.evaluate is not None:
            return op.evaluate(operands, node.attributes, dims)
        assert op.control is not None, "an op without a plain meaning has regions"
        bodies = [self._body(region, values) for region in node.regions]
        blanks = [self._blank(output, dims) for output in node.outputs]
        return op.control.run(operands, node.attributes, dims, bodies, blanks)

    def _place(self, node: GraphNode) -> str | None:
        return str(self.function.locations.get(node, "")) or None

    def _spend(self) -> None:
        if self.patience is not None:
            self.patience.spend()

    def _define(self, node: GraphNode, array: Array, dims: dict[str, int]) -> None:
        """Bind the symbols of a `sizes` node and check the guards that were waiting for them."""
        found = read_sizes(array, node.attributes, dims)
        dims.update(found)
        fresh = (g for g in self.module.guards if guard_symbols(g) & found.keys())
        check_guards(fresh, dims, self.module.guard_spans)

    def needed(
        self, nodes: Sequence[Node], wanted: Collection[int], known: Collection[int] = frozenset()
    ) -> list[GraphNode]:
        """The nodes of a block that the wanted values depend on, in order, up to known ones.

        What guards mention is wanted too.
        """
        guarded = (name for guard in self.module.guards for name in guard_symbols(guard))
        live = Live(self.function, wanted, guarded)
        kept: list[GraphNode] = []
        for node in reversed(nodes):
            made = isinstance(node, GraphNode) and node.outputs and all(output in known for output in node.outputs)
            if isinstance(node, GraphNode) and not made and live.needs(node):
                live.add(node, captured(node.regions))
                kept.append(node)
        return kept[::-1]

    def _body(self, region: Region, values: Mapping[int, Array]) -> Body:
        nodes, inside = self.needed(region.nodes, frozenset(region.results)), replace(self, correct=None)

        def run_body(arguments: Sequence[Array], dims: DimValues) -> tuple[Array, ...]:
            self._spend()
            inner = {**values, **dict(zip(region.args, arguments, strict=True))}
            inside.block(nodes, region.results, inner, dict(dims))
            return tuple(inner[r] for r in region.results)

        return run_body

    def _blank(self, value: int, dims: DimValues) -> Array:
        type_ = self.function.types[value]
        return np.zeros(shape_at(type_, dims), type_.dtype.numpy)

    def _check(self, node: GraphNode, output: int, result: Array, dims: DimValues) -> None:
        type_ = self.function.types[output]
        if result.shape != shape_at(type_, dims) or result.dtype != type_.dtype.numpy:
            raise TesseraError(
                "REFERENCE_MISMATCH",
                f"the reference of {node.op} disagrees with its type rule",
                where=self._place(node),
                expected=f"{type_} with {dict(dims)}",
                found=f"{result.dtype} of shape {list(result.shape)}",
            )


def bind_dims(types: list[Type], arrays: list[Array], module: Module) -> dict[str, int]:
    """The value of every symbol in the signature, from the arguments' shapes; checks dtypes, extents, ranges."""
    dims: dict[str, int] = {}
    for position, (type_, array) in enumerate(zip(types, arrays, strict=True)):
        if type_.dtype.numpy != array.dtype or type_.rank != array.ndim:
            raise _bad_input(position, str(type_), f"{array.dtype} of shape {list(array.shape)}")
        for extent, size in zip(type_.shape, array.shape, strict=True):
            if isinstance(extent, Dim) and extent == symbol(min(extent.symbols)):
                dims.setdefault(str(extent), size)
    for position, (type_, array) in enumerate(zip(types, arrays, strict=True)):
        if array.shape != shape_at(type_, dims):
            raise _bad_input(position, f"{type_} with {dims}", str(list(array.shape)))
    check_guards(module.guards, dims, module.guard_spans)
    for name, size in dims.items():
        low, high = module.dims.get(name, (None, None))
        if (low is not None and size < low) or (high is not None and size > high):
            raise TesseraError(
                "BAD_INPUT", f"dim {name} is out of its range", expected=f"{low}..{high}", found=str(size)
            )
    return dims


def check_guards(guards: Iterable[Guard], dims: DimValues, spans: Mapping[Guard, Span | None]) -> None:
    """Raise `TesseraError` for a guard that does not hold; those over symbols without a value are left for later."""
    for guard in guards:
        left, relation, right, message = guard
        if not guard_symbols(guard) <= dims.keys():
            continue
        sides = evaluate(left, dims), evaluate(right, dims)
        if not (sides[0] == sides[1] if relation == "==" else sides[0] >= sides[1]):
            span = spans.get(guard)
            raise TesseraError(
                "GUARD_FAILED",
                message,
                where=str(span) if span else None,
                expected=f"{left} {relation} {right}",
                found=str(dict(dims)),
            )


def shape_at(type_: Type, dims: DimValues) -> tuple[int, ...]:
    """The shape of a value when the symbols have these values; raises `TesseraError` for a symbol without one."""
    try:
        return tuple(evaluate(extent, dims) for extent in type_.shape)
    except KeyError as error:
        raise TesseraError(
            "UNBOUND_DIM",
            f"no input has dim {error.args[0]} as an extent of its own",
            expected="every symbol alone as the extent of some input",
            found=str(type_),
        ) from error


def _in_order(names: tuple[str, ...], inputs: Mapping[str, Array]) -> list[Array]:
    if set(names) != set(inputs):
        raise TesseraError(
            "BAD_INPUT", "the inputs have other names", expected=", ".join(names), found=", ".join(sorted(inputs))
        )
    return [np.asarray(inputs[name]) for name in names]


def _bad_input(position: int, expected: str, found: str) -> TesseraError:
    return TesseraError("BAD_INPUT", f"input {position} does not fit the signature", expected=expected, found=found)
