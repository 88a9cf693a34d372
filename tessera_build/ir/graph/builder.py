"""Typed construction of Graph IR: every node is checked and gets its types at the moment it is made.

Takes names, types, arrays and ops; gives a `Module`. Invariant: at every moment the nodes so far are a legal function,
equal constants are one array, and each node made inside `with builder.at(span)` carries that span.

    builder = GraphBuilder(dims={"N": (1, 64)})
    x = builder.input("x", tensor(F32, symbol("N"), 784))
    w = builder.constant(weights, "fc.weight")          # numpy array, kept under its digest
    with builder.at(Span("/fc/Gemm")):
        y = builder.op("matmul", x, w, transpose_b=True)
        y = builder.op("max", y, builder.scalar(0.0, y))
    builder.output("y", y)
    module = builder.finish()
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count

import numpy as np
from numpy.typing import ArrayLike

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import Extent, Range, symbols_of
from tessera_build.ir.core.node import Function, Node, Region, Span
from tessera_build.ir.core.pages import drop_pages
from tessera_build.ir.core.rewrite import RegionBuilder
from tessera_build.ir.core.structure import defs_of
from tessera_build.ir.core.types import DType, Type, dtype_of
from tessera_build.ir.graph.infer import complete, infer, op_named
from tessera_build.ir.graph.nodes import Array, Attribute, GraphNode, Guard, Module
from tessera_build.ir.graph.ops.op import RegionType

_FEW = 9  # elements: as many as a shape has


def guard_symbols(guard: Guard) -> frozenset[str]:
    """The symbols that a guard relates."""
    left, _, right, _ = guard
    return symbols_of(left) | symbols_of(right)


def digest_of(array: Array) -> str:
    """`sha256:<hex>` of element type, shape and little-endian row-major bytes."""
    header = f"{dtype_of(array.dtype)}{list(array.shape)}".encode()
    data = np.ascontiguousarray(array)
    return "sha256:" + hashlib.sha256(header + b"\0" + data.reshape(-1).view(np.uint8).data).hexdigest()


class ConstantPool:
    """The constants of one module while it is built, by digest; functions of one module share a pool."""

    def __init__(self, arrays: Mapping[str, Array] | None = None, names: Mapping[str, str] | None = None) -> None:
        self.arrays: dict[str, Array] = dict(arrays or {})
        self.names: dict[str, str] = dict(names or {})
        self.indices: list[str] = []  # of loops: functions of one module are written into each other

    def add(self, array: Array, name: str = "") -> str:
        """Keep `array` (frozen, row-major) and give its digest; the first name of equal arrays stays."""
        kept = array
        if array.flags.writeable or not array.flags.c_contiguous:
            kept = np.array(array, order="C")
            kept.flags.writeable = False
        digest = digest_of(kept)
        drop_pages(kept)
        self.arrays.setdefault(digest, kept)
        if name:
            self.names.setdefault(digest, name)
        return digest

    def is_weight(self, digest: str) -> bool:
        """Whether a constant is no number of a formula: it has a name and several elements, or is owned (`owned`)."""
        array = self.arrays[digest]
        return (digest in self.names and array.size > 1) or digest != digest_of(array)


class GraphBuilder:
    """Builds one function, called `entry`, of a module. `dims` gives the range of every symbolic dim; `within` builds
    the function that this one is to be a part of."""

    def __init__(
        self,
        entry: str = "main",
        dims: Mapping[str, Range] | None = None,
        pool: ConstantPool | None = None,
        within: GraphBuilder | None = None,
    ) -> None:
        self.entry = entry
        self.derivative = False  # whether the function gives derivatives
        self._within = within
        self.pool = pool or ConstantPool()
        self.dims: dict[str, Range] = dict(dims or {})
        self._types: dict[int, Type] = {}
        self._blocks: list[RegionBuilder] = [RegionBuilder(())]  # the function, then the regions that are open
        self._home: dict[int, RegionBuilder] = {}
        self._producers: dict[int, GraphNode] = {}
        self._constants: dict[str, int] = {}
        self._numbers: dict[tuple[str, tuple[int, ...], tuple[tuple[str, Attribute], ...]], tuple[int, ...]] = {}
        self._locations: dict[Node, Span] = {}
        self._inputs: dict[str, int] = {}
        self._stated: set[int] = set()  # inputs by which a number that a text around this one states is read
        self._outputs: dict[str, int] = {}
        self._guards: dict[Guard, Span | None] = {}
        self._span: Span | None = None

    @contextmanager
    def at(self, span: Span | None) -> Generator[None, None, None]:
        """Give `span` to every node made inside the `with`."""
        outer, self._span = self._span, span
        try:
            yield
        finally:
            self._span = outer

    def mark_derivative(self) -> None:
        """Note that the function gives derivatives, and with it every function that it is to be a part of."""
        self.derivative = True
        if self._within is not None:
            self._within.mark_derivative()

    @property
    def span(self) -> Span | None:
        """What nodes made now carry."""
        return self._span

    def span_of(self, node: Node) -> Span | None:
        """What a node that was made here carries."""
        return self._locations.get(node)

    @property
    def nested(self) -> bool:
        """Whether a region is open."""
        return self.depth > 0

    @property
    def depth(self) -> int:
        """How many regions are open, one inside the other."""
        return len(self._blocks) - 1

    def input(self, name: str, type_: Type, *, number: bool = False) -> int:
        """A new input of the function; symbols of its shape without a range are taken to be at least 1.

        `number`: the function is traced inside another one, of which it reads a number (`is_number`).
        """
        if name in self._inputs:
            raise TesseraError("DUPLICATE_NAME", f"two inputs are called {name!r}", expected="distinct names")
        for extent in type_.shape:
            for symbol in () if isinstance(extent, int) else sorted(extent.symbols):
                self.dims.setdefault(symbol, (1, None))
        self._inputs[name] = value = self._new(type_)
        self._stated |= {value} if number else set()
        return value

    def constant(self, array: ArrayLike, name: str = "") -> int:
        """The value of a constant; `name` is for reports. Equal arrays give the same value."""
        data = np.asarray(array)
        return self.pooled(self.pool.add(data, name))

    def pooled(self, digest: str) -> int:
        """The value of a constant that is already in the pool."""
        if digest not in self._constants:
            array = self.pool.arrays[digest]
            self._constants[digest] = self.op(
                "constant", digest=digest, dtype=dtype_of(array.dtype), shape=tuple(array.shape)
            )
        return self._constants[digest]

    def scalar(self, number: float | int | bool, like: int | DType) -> int:
        """A rank-0 constant with the element type `like`, or that of the value `like`."""
        dtype = like if isinstance(like, DType) else self.type(like).dtype
        return self.constant(np.asarray(number).astype(dtype.numpy))

    def op(self, op: str, /, *inputs: int, **attributes: Attribute) -> int:
        """Append a node and give its only result; raises `TesseraError` when the op refuses its operands."""
        (result,) = self.node(op, inputs, attributes)
        return result

    def node(
        self, op: str, inputs: tuple[int, ...], attributes: Mapping[str, Attribute], regions: Sequence[Region] = ()
    ) -> tuple[int, ...]:
        """Append a node and give all its results; a constant goes to the function itself, whatever region is open.

        What gives a few integers is made once: a size that a region reads of the same data again is the same size.
        """
        full = complete(op_named(op), attributes)
        blocks = [RegionType(self._types_of(r.args), self._types_of(r.results)) for r in regions]
        types = infer(op, self._types_of(inputs), full, self._span, blocks)
        key = (op, inputs, tuple(sorted(full.items()))) if not regions and _is_index(types) else None
        known = self._numbers.get(key) if key is not None else None
        if known is not None and all(self.visible(v) for v in known):
            return known
        block = self._blocks[0 if op == "constant" else -1]
        outputs = tuple(self._new(t, block) for t in types)
        node = GraphNode(op, inputs, outputs, full, tuple(regions))
        block.nodes.append(node)
        self._producers.update(dict.fromkeys(outputs, node))
        if key is not None:
            self._numbers[key] = outputs
        if self._span is not None:
            self._locations[node] = self._span
        return outputs

    @contextmanager
    def region(
        self, types: Sequence[Type] = (), index: Mapping[str, Range] | None = None
    ) -> Generator[RegionBuilder, None, None]:
        """Open a region with arguments of these types, in which the symbols of `index` have these ranges.

        Nodes made inside the `with` go into it; `node` then takes its `region`.
        """
        block = RegionBuilder(())
        block.args = tuple(self._new(t, block) for t in types)
        self._blocks.append(block)
        around = self.dims
        self.dims = {**around, **(index or {})}
        try:
            yield block
        finally:
            self._blocks.pop()
            self.dims = {name: limits for name, limits in self.dims.items() if name not in (index or {})}
            self.dims |= {name: around[name] for name in index or {} if name in around}

    def inline(self, region: Region) -> tuple[int, ...]:
        """Append the nodes of a finished region without arguments to the block that is open; gives its results."""
        block = self._blocks[-1]
        for node in region.nodes:
            block.nodes.append(node)
            self._home.update(dict.fromkeys(defs_of(node), block))
        return region.results

    def visible(self, value: int) -> bool:
        """Whether a node made now may read a value: it was not made in a region that is closed."""
        return any(self._home[value] is block for block in self._blocks)

    def fresh_index(self, name: str = "step") -> str:
        """A name for a loop's index that nothing else in this module has."""
        taken = {*self.dims, *self.pool.indices}
        number = next(i for i in count() if f"{name}{i}" not in taken)
        self.pool.indices.append(f"{name}{number}")
        return self.pool.indices[-1]

    def output(self, name: str, value: int) -> None:
        """Make `value` a result of the function under `name`; one value may be several results."""
        if name in self._outputs:
            raise TesseraError("DUPLICATE_NAME", f"two outputs are called {name!r}", expected="distinct names")
        self._outputs[name] = value

    def name(self, value: int) -> str:
        """The name that a constant has in reports; empty for anything else."""
        node = self._producers.get(value)
        return self.pool.names.get(str(node.attributes["digest"]), "") if node and node.op == "constant" else ""

    def guard(self, left: Extent, relation: str, right: Extent, message: str) -> None:
        """Demand `left == right` or `left >= right` of the dims of every call; `message` explains a refusal.

        It carries the span of the `with` around it: that of the first who asks.
        """
        guard = (left, relation, right, message)
        if relation not in ("==", ">="):
            raise TesseraError("BAD_GUARD", "unknown relation", expected="== or >=", found=relation)
        self._guards.setdefault(guard, self._span)

    def type(self, value: int) -> Type:
        """The type of a value made so far."""
        return self._types[value]

    def producer(self, value: int) -> GraphNode | None:
        """The node that makes a value; None for an input, and inside a region for what is computed outside.

        A rewrite that looked through the border of a loop would move work into it.
        """
        node = self._producers.get(value)
        return node if node is None or node.op == "constant" or self._home[value] is self._blocks[-1] else None

    def array(self, value: int) -> Array | None:
        """The array of a constant value; None for any other value."""
        node = self._producers.get(value)
        if node is None or node.op != "constant":
            return None
        return self.pool.arrays[str(node.attributes["digest"])]

    def is_number(self, value: int) -> bool:
        """Whether a value is a number that the model's text states, also repeated; a weight or a table is none."""
        node = self._producers.get(value)
        while node is not None and node.op in ("broadcast_to", "reshape"):
            value = node.inputs[0]
            node = self._producers.get(value)
        if node is None or node.op != "constant":
            return value in self._stated
        digest = str(node.attributes["digest"])
        return self.pool.arrays[digest].size == 1 and not self.pool.is_weight(digest)

    def function(self) -> Function:
        """What was built so far, as a function."""
        return Function(
            self.entry,
            tuple(self._inputs.values()),
            tuple(self._blocks[0].nodes),
            tuple(self._outputs.values()),
            dict(self._types),
            locations=dict(self._locations),
        )

    def finish(self) -> Module:
        """The module with this one entry."""
        return module_of([self])

    @property
    def guards(self) -> Mapping[Guard, Span | None]:
        """What the dims of a call must satisfy, in the order in which it was asked for, and where that was."""
        return dict(self._guards)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return tuple(self._inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return tuple(self._outputs)

    def _types_of(self, values: Sequence[int]) -> tuple[Type, ...]:
        return tuple(self._types[v] for v in values)

    def _new(self, type_: Type, block: RegionBuilder | None = None) -> int:
        value = len(self._types)
        self._types[value] = type_
        self._home[value] = self._blocks[0] if block is None else block
        return value


def _is_index(types: Sequence[Type]) -> bool:
    """Whether values are a few integers, as shapes and counts are."""
    few = all(t.rank <= 1 and t.shape in {(), *((i,) for i in range(_FEW))} for t in types)
    return bool(types) and few and all(t.dtype.kind in {"signed", "unsigned"} for t in types)


def module_of(builders: list[GraphBuilder]) -> Module:
    """One module from the builders of its entries, which share a pool; constants that no node names are left out."""
    functions = {b.entry: b.function() for b in builders}
    pool = builders[0].pool
    used = {str(n.attributes["digest"]) for f in functions.values() for n in graph_nodes(f) if n.op == "constant"}
    dims = {name: limits for b in builders for name, limits in b.dims.items()}
    guards = {guard: span for b in reversed(builders) for guard, span in b.guards.items()}  # the first one's spans
    return Module(
        entries=functions,
        constants={d: a for d, a in pool.arrays.items() if d in used},
        dims=dims,
        input_names={b.entry: b.input_names for b in builders},
        output_names={b.entry: b.output_names for b in builders},
        constant_names={d: n for d, n in pool.names.items() if d in used},
        guards=tuple(dict.fromkeys(guard for b in builders for guard in b.guards)),
        guard_spans=guards,
        derivatives=frozenset(b.entry for b in builders if b.derivative),
    )


def graph_nodes(function: Function) -> Iterator[GraphNode]:
    """The nodes of a function of this level, those in regions included, in text order."""
    for node in function.walk():
        if isinstance(node, GraphNode):
            yield node
