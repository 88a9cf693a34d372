"""The ONNX importer: walks the nodes of a model in order and translates each one through the table of operators.

Takes a model (path or protobuf) and, optionally, fixed or bounded dims; gives a Graph IR module with one entry,
`main`. Invariant: either every node was translated exactly, or one error names all nodes that were not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path

import onnx
from onnx import helper

from bundle_format.errors import TesseraError
from tessera_build.frontends.onnx.call import AttributeValue, Call
from tessera_build.frontends.onnx.containers import Value, described, flattened, kinds_of
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ModelError, ReportedError, UnsupportedError, ill_formed, unsupported
from tessera_build.frontends.onnx.functions import body_of, domain_of, has_body
from tessera_build.frontends.onnx.inferred import inferred_types
from tessera_build.frontends.onnx.inlining import inlined
from tessera_build.frontends.onnx.load import Loaded, array_of, check_model, load_model
from tessera_build.frontends.onnx.restarts import Exhausted, Undecided, Unified, Work
from tessera_build.frontends.onnx.shapes import hold_to_rank
from tessera_build.frontends.onnx.sparse import dense
from tessera_build.frontends.onnx.subgraphs import graphs_of, named_nodes, names_read, needed, nodes_in
from tessera_build.frontends.onnx.symbols import Symbols, apply_requests
from tessera_build.frontends.onnx.table import DOMAIN_HINTS, HINTS, OPERATORS
from tessera_build.ir.core.dims import DimRequest
from tessera_build.ir.core.node import Span
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module, Result
from tessera_build.ir.graph.sweep import drop_dead

ENTRY = "main"
# Ifs over dims that are decided by trying; each doubles the work.
DECISIONS = 6
_Action = Callable[[], None]
Source = str | Path | onnx.ModelProto | Loaded


@dataclass(frozen=True, slots=True)
class Imported:
    """A module and the model's own names of its dims (`module.dims` has identifiers)."""

    module: Module
    dim_names: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Surveyed:
    """What a survey finds: a module with stand-ins, every problem, and the nodes that matter with their names."""

    imported: Imported
    problems: tuple[TesseraError, ...]
    nodes: Sequence[tuple[onnx.NodeProto, str]]
    opsets: Mapping[str, int]


def read_onnx(source: Source, *, dims: Mapping[str, DimRequest] | None = None) -> Module:
    """The model as a Graph IR module. `dims` fixes (`{"N": 4}`) or bounds (`{"N": (1, 64)}`) dynamic dims by name.

    Raises `ModelError` for a broken model, `UnsupportedError` for one beyond Tessera, `ConfigError` for unknown dims.
    """
    return import_onnx(source, dims=dims).module


def import_onnx(source: Source, *, dims: Mapping[str, DimRequest] | None = None) -> Imported:
    """Like `read_onnx`, with the names that the model gives its dims."""
    reader = _opened(source)
    reader.prepare()
    return reader.read(dims or {})


def survey_onnx(source: str | Path | onnx.ModelProto, *, dims: Mapping[str, DimRequest] | None = None) -> Surveyed:
    """All problems at once: where a node cannot be built, those behind it are still looked at.

    What a node that cannot be built would give is taken as an input, of the type that ONNX's own inference finds.
    Raises only where there is no model to look at.
    """
    reader = _opened(source)
    # An import may come to its end by trying branches, which a survey does not: what builds has no gaps.
    with suppress(UnsupportedError, ModelError):
        reader.prepare()
        return Surveyed(reader.read(dims or {}), (), reader.nodes, reader.opsets)
    reader = _opened(source)
    reader.stand_ins = inferred_types(reader.model)
    reader.prepare()
    return Surveyed(reader.read(dims or {}), tuple(reader.problems), reader.nodes, reader.opsets)


def _opened(source: Source) -> _Reader:
    model, folder = load_model(source)
    where = "the model" if isinstance(source, onnx.ModelProto) else str(source)
    check_model(model, where)
    model = inlined(model, where)
    version = check_model(model, where)
    opsets = {domain_of(o): o.version for o in model.opset_import} | {"": version}
    return _Reader(model, where, folder, opsets, Work.for_nodes(nodes_in(model.graph)))


@dataclass(frozen=True, slots=True)
class _Scope:
    """What names mean while nodes are translated, and the operator sets that the nodes speak."""

    values: dict[str, Value | None]
    opsets: Mapping[str, int]


@dataclass(slots=True)
class _Reader:
    """One model under import; `constants` and `nodes` survive restarts.

    With `stand_ins`, problems are kept instead of raised, and a result that no node can make becomes an input.
    """

    model: onnx.ModelProto
    where: str
    folder: Path | None
    opsets: Mapping[str, int]
    work: Work
    stand_ins: Mapping[str, onnx.ValueInfoProto] | None = None
    constants: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    nodes: list[tuple[onnx.NodeProto, str]] = field(default_factory=list[tuple[onnx.NodeProto, str]])
    problems: list[TesseraError] = field(default_factory=list[TesseraError])

    def read(self, dims: Mapping[str, DimRequest]) -> Imported:
        """The module; each restart removes one dim for good, so there are at most as many as dims."""
        symbols = Symbols()
        self.input_types(symbols)
        apply_requests(symbols, dims)
        try:
            return self._decide(symbols, list(self.problems), {})
        except Exhausted as error:
            raise UnsupportedError(
                "TOO_MUCH_WORK",
                "the model's branches, loops over sequences and dims send the importer to its nodes too often",
                where=self.where,
                hint="fix dims with --dims, or export the model with fewer branches and shorter loops",
            ) from error

    def _decide(self, symbols: Symbols, known: list[TesseraError], decisions: Mapping[str, bool]) -> Imported:
        """The module, where an If over dims allows one: if only one of its branches fits, dims are held to that."""
        try:
            return self._attempt(symbols, known, decisions)
        except Undecided as found:
            if self.stand_ins is not None:  # a survey looks further
                return self._decide(symbols, [*known, found.problem], {**decisions, found.name: True})
            built: list[Imported] = []
            for choice in (True, False) if len(decisions) < DECISIONS else ():
                with suppress(TesseraError):
                    built.append(self._decide(symbols, known, {**decisions, found.name: choice}))
            if len(built) != 1:
                raise UnsupportedError.of([found.problem], self.where) from found
            return built[0]

    def _attempt(self, symbols: Symbols, known: list[TesseraError], decisions: Mapping[str, bool]) -> Imported:
        while True:
            symbols = symbols.restart()
            self.problems[:] = known
            try:
                return Imported(self.translate(symbols, decisions), dict(symbols.names))
            except Unified as found:
                symbols.learn(found.symbol, found.extent)

    def prepare(self) -> None:
        """Read the weights that are used, keep the nodes that matter, and refuse all unknown operators at once."""
        graph = self.model.graph
        self.nodes = list(needed(named_nodes(graph), {o.name for o in graph.output}))
        used = {name for node, _ in self.nodes for name in names_read(node)} | {o.name for o in graph.output}
        for proto in graph.initializer:
            if proto.name in used:
                self._collect(proto.name, lambda p=proto: self._initializer(p.name, array_of(p, self.folder)))
        for sparse in graph.sparse_initializer:
            if (name := sparse.values.name) in used:
                self._collect(name, lambda p=sparse, n=name: self._initializer(n, dense(p, self.folder)))
        if self.stand_ins is None:  # a survey finds them on its way, with everything behind them
            for node, name in self.nodes:
                self._collect(name, lambda n=node: _check_operator(n, self.opsets))
        self._raise_problems()

    def _initializer(self, name: str, array: Array) -> None:
        self.constants[name] = Tensor(Context(GraphBuilder(), {}).constant(array).type, None, array, name)

    def input_types(self, symbols: Symbols) -> dict[str, Tensor]:
        """The model's inputs that are no weights, without graph values yet."""
        weights = {i.name for i in self.model.graph.initializer}
        found: dict[str, Tensor] = {}
        for info in self.model.graph.input:
            if info.name not in weights:
                self._collect(f"input {info.name}", lambda i=info: _put(found, i, symbols))
        self._raise_problems()
        return found

    def translate(self, symbols: Symbols, decisions: Mapping[str, bool]) -> Module:
        """One pass over all nodes; raises `Unified` when two dims turn out to be one."""
        types = self.input_types(symbols)
        builder = GraphBuilder(ENTRY, symbols.free())
        context = Context(builder, symbols.free(), decisions=decisions)
        values: dict[str, Value | None] = dict(self.constants)
        for name, placeholder in types.items():
            values[name] = replace(placeholder, value=builder.input(name, placeholder.type), name=name)
        self.translate_nodes(context, self.nodes, _Scope(values, self.opsets))
        self._raise_problems()
        results: list[Result] = []
        for info in self.model.graph.output:
            if info.name not in values:
                raise ModelError("BAD_MODEL", f"no node makes output {info.name!r}", where=self.where)
            if (result := values[info.name]) is None:
                continue  # in a survey: the problem behind it has been kept
            hold_to_rank(context, info, result)
            results.append(described(info.name, result))
            for name, tensor in flattened(info.name, result):
                builder.output(name, context.value(tensor))
        return _finished(builder, context, results)

    def translate_nodes(self, context: Context, nodes: Sequence[tuple[onnx.NodeProto, str]], scope: _Scope) -> None:
        """Nodes in order; what one of them cannot make is None for those that read it."""
        for node, name in nodes:
            with context.builder.at(Span(name)):
                self._collect(name, lambda n=node, at=name: self._translate_node(context, n, at, scope))
            for output in node.output:
                if output not in scope.values:
                    scope.values[output] = self._stand_in(context, output)

    def _stand_in(self, context: Context, name: str) -> Tensor | None:
        """In a survey, an input instead of a value that nobody can make; None where its type is unknown too."""
        info = (self.stand_ins or {}).get(name)
        if info is None or context.builder.nested:
            return None
        symbols = Symbols()
        try:
            type_ = symbols.input_type(info)
        except TesseraError:
            return None
        return Tensor(type_, context.builder.input(name, type_), name=name)

    def _translate_node(self, context: Context, node: onnx.NodeProto, name: str, scope: _Scope) -> None:
        self.work.spend()
        values = scope.values
        missing = [name for name in node.input if name and name not in values]
        if missing:
            raise ill_formed(f"no node before {node.op_type} makes its operand {missing[0]!r}")
        again = [name for name in node.output if name and name in values]
        if again:
            raise ill_formed(f"two nodes make {again[0]!r}, or it is a weight or an input")
        inputs = tuple(values[name] if name else None for name in node.input)
        if any(name and values[name] is None for name in node.input):
            return  # its producer failed and has been reported
        domain = domain_of(node)
        if (domain, node.op_type) not in OPERATORS:
            self._translate_body(context, node, name, scope)
            return
        opset = scope.opsets.get(domain, 1)
        graphs = {key: _Subgraph(self, context, graph, scope, name) for key, graph in graphs_of(node).items()}
        call = Call(node.op_type, opset, inputs, tuple(node.output), _attributes(node), domain, graphs)
        results = _translated(context, call)
        unread = call.unread()
        if unread:
            raise unsupported(f"{node.op_type} has attributes that are not built", found=", ".join(unread))
        for output, result in zip(node.output, results if isinstance(results, tuple) else (results,), strict=False):
            values[output] = result
        lost = [o for o in node.output if o and o not in values]
        if lost:
            raise unsupported(f"{node.op_type} has a result that is not built", found=lost[0])

    def _translate_body(self, context: Context, node: onnx.NodeProto, name: str, scope: _Scope) -> None:
        """An operator without a translator of its own, by what ONNX defines it to be."""
        _check_operator(node, scope.opsets)
        inputs = [scope.values[i] if i else None for i in node.input]
        # onnx's own code dies on the type of a sequence here, so only tensors may reach it.
        tensors = [t.type if isinstance(t, Tensor) else None for t in inputs]
        plain = all(t is None or isinstance(t, Tensor) for t in inputs)
        body = body_of(node, name, scope.opsets, tensors) if plain else None
        if body is None:
            raise unsupported(f"{node.op_type} is not built for these operands", found=kinds_of(inputs))
        nodes = list(needed(list(body.nodes), set(node.output)))
        self.translate_nodes(context, nodes, _Scope(scope.values, {**scope.opsets, **body.opsets}))

    def _collect(self, name: str, action: _Action) -> None:
        try:
            action()
        except ReportedError:
            pass
        except TesseraError as error:
            error.where = error.where or name
            self.problems.append(error)

    def _raise_problems(self) -> None:
        if self.problems and self.stand_ins is None:
            kind = UnsupportedError if any(isinstance(p, UnsupportedError) for p in self.problems) else ModelError
            raise kind.of(self.problems, self.where)


@dataclass(frozen=True, slots=True)
class _Subgraph:
    """A graph inside a node called `name`, which sees the values of `scope`."""

    reader: _Reader
    context: Context
    graph: onnx.GraphProto
    scope: _Scope
    name: str

    @property
    def inputs(self) -> int:
        """How many values it takes."""
        return len(self.graph.input)

    @property
    def outputs(self) -> int:
        """How many values it gives."""
        return len(self.graph.output)

    def translate(self, arguments: Sequence[Value]) -> tuple[Value, ...]:
        """Its results; names of its own hide those around it."""
        return self.chosen(arguments, range(self.outputs))

    def chosen(self, arguments: Sequence[Value], outputs: Sequence[int]) -> tuple[Value, ...]:
        """Some of its results."""
        wanted = [self.graph.output[number].name for number in outputs]
        values = dict(self.scope.values)
        for node in self.graph.node:
            for output in node.output:
                values.pop(output, None)
        for proto in self.graph.initializer:
            values[proto.name] = self.context.constant(array_of(proto, self.reader.folder), proto.name)
        for sparse in self.graph.sparse_initializer:
            values[sparse.values.name] = self.context.constant(dense(sparse, self.reader.folder), sparse.values.name)
        values |= {info.name: value for info, value in zip(self.graph.input, arguments, strict=True)}
        nodes = needed(named_nodes(self.graph, f"{self.name}/"), set(wanted))
        self.reader.translate_nodes(self.context, list(nodes), _Scope(values, self.scope.opsets))
        missing = [name for name in wanted if name not in values]
        if missing:
            raise ill_formed(f"no node of a subgraph makes its output {missing[0]!r}")
        results = tuple(values[name] for name in wanted)
        found = tuple(r for r in results if r is not None)
        if len(found) < len(results):
            raise ReportedError
        return found


def _check_operator(node: onnx.NodeProto, opsets: Mapping[str, int]) -> None:
    domain = domain_of(node)
    if (domain, node.op_type) in OPERATORS or has_body(node, opsets):
        return
    if domain:
        hint = HINTS.get(node.op_type) or DOMAIN_HINTS.get(domain, DOMAIN_HINTS[""])
        raise unsupported(f"operator {domain}::{node.op_type} is not built", hint=hint)
    near = get_close_matches(node.op_type, [name for known, name in OPERATORS if not known], 1, 0.8)
    if not onnx.defs.has(node.op_type):
        raise ill_formed(f"ONNX has no operator {node.op_type}", expected=" or ".join(near) or None)
    raise unsupported(f"operator {node.op_type} is not built", hint=HINTS.get(node.op_type))


def _translated(context: Context, call: Call) -> Value | tuple[Value, ...]:
    """What the operator's translator gives; operands of an impossible rank or content are the model's fault."""
    try:
        return OPERATORS[call.domain, call.op](context, call)
    except (IndexError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise ill_formed(f"{call.op} does not fit its operands: {error}", found=kinds_of(call.inputs)) from error


def _put(found: dict[str, Tensor], info: onnx.ValueInfoProto, symbols: Symbols) -> None:
    found[info.name] = Tensor(symbols.input_type(info))


def _attributes(node: onnx.NodeProto) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {}
    for proto in node.attribute:
        if proto.type == onnx.AttributeProto.GRAPH:
            continue
        value = helper.get_attribute_value(proto)
        if isinstance(value, onnx.TensorProto):
            found[proto.name] = array_of(value, None)
        elif isinstance(value, onnx.SparseTensorProto):
            found[proto.name] = dense(value, None)
        elif isinstance(value, bytes):
            found[proto.name] = value.decode("utf-8", "replace")
        elif isinstance(value, (int, float)):
            found[proto.name] = value
        elif isinstance(value, onnx.TypeProto):
            found[proto.name] = str(value)
        elif proto.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
            found[proto.name] = tuple(value)
        elif proto.type == onnx.AttributeProto.STRINGS:
            found[proto.name] = tuple(v.decode("utf-8", "replace") for v in value)
        else:
            raise unsupported(f"{node.op_type}'s attribute {proto.name} is of a kind that is not built")
    return found


def _finished(builder: GraphBuilder, context: Context, results: Sequence[Result]) -> Module:
    """The module without nodes that nobody reads, with its guards, and what it gives if that is more than tensors."""
    told = {ENTRY: tuple(results)} if any(result.kind != "tensor" for result in results) else {}
    return drop_dead(replace(builder.finish(), guards=tuple(context.guards), guard_spans=context.guards, results=told))
