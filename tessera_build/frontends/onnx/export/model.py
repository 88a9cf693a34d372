"""From an entry of a Graph IR module to an ONNX model.

Takes a module and the name of an entry; gives a `ModelProto`. Invariant: the bytes are a function of the entry alone;
what has no form in ONNX is refused, all of it at once, each with its op and its place in the author's file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import onnx

from bundle_format.errors import TesseraError
from tessera_build.frontends.onnx.errors import ReportedError, UnsupportedError, unsupported
from tessera_build.frontends.onnx.export.extents import Extents
from tessera_build.frontends.onnx.export.others import unless_ended
from tessera_build.frontends.onnx.export.protobuf import Exported, model_of
from tessera_build.frontends.onnx.export.site import Site
from tessera_build.frontends.onnx.export.table import WRITERS
from tessera_build.frontends.onnx.export.writer import Operand, Port, Writer
from tessera_build.ir.core.node import Function, Node, Region
from tessera_build.ir.core.types import BOOL
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.composed import COMPOSED
from tessera_build.ir.graph.nodes import Array, GraphNode, Module
from tessera_build.ir.graph.passes.inline_checkpoints import InlineCheckpoints
from tessera_build.ir.graph.passes.solve_equations import SolveEquations
from tessera_build.ir.graph.sweep import Site as SweptNode
from tessera_build.ir.graph.sweep import drop_dead, rewrite


def export_onnx(module: Module, entry: str) -> onnx.ModelProto:
    """The entry as an ONNX model with its weights inside, of at most 2 GiB; raises what `exported` raises."""
    return exported(module, entry).whole()


def exported(module: Module, entry: str) -> Exported:
    """The entry as an ONNX model and its weights; raises `UnsupportedError` with every op that has no form."""
    alone = drop_dead(_plain(replace(named_apart(module, entry), entries={entry: module.entries[entry]})))
    writer, function = Writer(), alone.entries[entry]
    export = _Export(alone, function, writer, Extents(writer, alone.dims), _read(function))
    export.write(entry)
    if export.problems:
        raise UnsupportedError.of(export.problems, entry)
    return model_of(export.writer, entry, _facts(alone))


def named_apart(module: Module, entry: str) -> Module:
    """The module whose entry has no result that is called as an input: in ONNX these share their names.

    Such a result, a parameter's next numbers for instance, gets the first number that makes its name another.
    """
    taken = [*module.input_names[entry], *module.output_names[entry]]
    names: list[str] = []
    for name in module.output_names[entry]:
        if name in module.input_names[entry]:
            name = next(n for n in (f"{name}_{i}" for i in count(2)) if n not in taken)
            taken.append(name)
        names.append(name)
    return replace(module, output_names={**module.output_names, entry: tuple(names)})


def _plain(module: Module) -> Module:
    """The module without what is defined by other ops: equations become the iterations that solve them."""
    return rewrite(SolveEquations().run(InlineCheckpoints().run(module)), lambda: _written_out)


def _written_out(site: SweptNode) -> Sequence[int] | None:
    write = COMPOSED.get(site.node.op)
    return None if write is None else [write(site.to, site.inputs, site.node.attributes)]


def _facts(module: Module) -> dict[str, str]:
    """What a bundle checks in each call, as texts: the ranges of dims, which have no form in ONNX, and guards."""
    ranges = {n: f"{low}..{'' if high is None else high}" for n, (low, high) in sorted(module.dims.items())}
    found = {f"tessera.dim.{name}": text for name, text in ranges.items()}
    for index, (left, relation, right, message) in enumerate(module.guards):
        found[f"tessera.guard.{index}"] = f"{left} {relation} {right}: {message}"
    return found


@dataclass(slots=True, eq=False)
class _Export:
    """One entry on its way; `values` are those that were written, None where one could not be."""

    module: Module
    function: Function
    writer: Writer
    extents: Extents
    read: frozenset[int]
    problems: list[TesseraError] = field(default_factory=list[TesseraError])
    values: dict[int, Operand | None] = field(default_factory=dict[int, Operand | None])
    made: dict[int, GraphNode] = field(default_factory=dict[int, GraphNode])

    def write(self, entry: str) -> None:
        """Inputs, nodes, results."""
        inputs, outputs = self.module.input_names[entry], self.module.output_names[entry]
        for name in (*inputs, *outputs):
            self.writer.claim(name)
        self._check_results(entry)
        for value, name in zip(self.function.args, inputs, strict=True):
            type_ = self.function.types[value]
            self.values[value] = Operand(name, type_.dtype)
            self.writer.root.inputs.append(Port(name, type_))
            self.extents.tell(Operand(name, type_.dtype), type_)
        self.block(self.function.nodes)
        self._guard()
        for value, name in zip(self.function.results, outputs, strict=True):
            self._result(value, name)

    def _guard(self) -> None:
        """Let the run end where a guard does not hold, as a bundle's does: the first result goes through a check."""
        held: list[Operand] = []
        for left, relation, right, _ in self.module.guards:
            if self.extents.known(left) and self.extents.known(right):
                sides = [self.extents.vector(side) for side in (left, right)]
                held.append(self.writer.run("Equal" if relation == "==" else "GreaterOrEqual", *sides, dtype=BOOL))
        value = self.function.results[0]
        first = self.values[value]
        if held and first is not None:
            whole = held[0]
            for other in held[1:]:
                whole = self.writer.emit("And", whole, other, dtype=BOOL)
            whole = self.writer.emit("Squeeze", whole, self.writer.integers(0), dtype=BOOL)
            self.values[value] = unless_ended(self.writer, first, whole)

    def _check_results(self, entry: str) -> None:
        for result in self.module.results.get(entry, ()):
            if result.kind != "tensor":
                hint = "export an entry that gives tensors"
                self.problems.append(unsupported(f"result {result.name} is no tensor", found=result.kind, hint=hint))

    def _result(self, value: int, name: str) -> None:
        found, type_ = self.values[value], self.function.types[value]
        if found is not None:
            self.writer.name(found, name)
            self.writer.root.outputs.append(Port(name, type_))

    def block(self, nodes: Sequence[Node]) -> None:
        """Nodes in order; what reads a value that could not be written is passed over."""
        for node in nodes:
            assert isinstance(node, GraphNode), "a function of this level has nodes of this level"
            span = self.function.locations.get(node)
            self.writer.origin = "" if span is None else str(span)
            try:
                self._node(node)
            except ReportedError:
                self.values |= dict.fromkeys(node.outputs)
            except TesseraError as error:
                error.where = error.where or self.writer.origin or node.op
                self.problems.append(error)
                self.values |= dict.fromkeys(node.outputs)

    def _node(self, node: GraphNode) -> None:
        self.made |= dict.fromkeys(node.outputs, node)
        if node.op == "constant":
            return self._constant(node)
        inputs = tuple(self._operand(value) for value in node.inputs)
        used = tuple(output in self.read for output in node.outputs)
        site = Site(
            node, self.function, self.writer, self.extents, inputs, used, self.region, self.made.get, self.array
        )
        found = WRITERS[node.op](site)
        results = found if isinstance(found, tuple) else (found,)
        self.values.update(zip(node.outputs, results, strict=True))
        return None

    def _constant(self, node: GraphNode) -> None:
        digest = str(node.attributes["digest"])
        name = self.module.constant_names.get(digest, "")
        self.values[node.output] = self.writer.weight(digest, self.array(node), name)

    def array(self, node: GraphNode) -> Array:
        """The numbers of a constant."""
        return self.module.constants[str(node.attributes["digest"])]

    def _operand(self, value: int) -> Operand:
        found = self.values[value]
        if found is None:
            raise ReportedError
        return found

    def region(self, region: Region, arguments: Sequence[Operand]) -> tuple[Operand, ...]:
        """The nodes of a region, into the block that is open; its results."""
        self.values.update(zip(region.args, arguments, strict=True))
        self.block(region.nodes)
        return tuple(self._operand(value) for value in region.results)


def _read(function: Function) -> frozenset[int]:
    """The values that a node, a region or the function's caller reads."""
    found = set(function.results)
    for node in graph_nodes(function):
        found.update(node.inputs)
        for region in node.regions:
            found.update(region.results)
    return frozenset(found)
