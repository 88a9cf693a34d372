"""Which graph nodes become one task: fusion by the properties of nodes, never by their names alone.

Takes one entry's function; gives groups of nodes in an order in which they can run. Rules: a contraction takes the
elementwise nodes that follow it over its own result; a row task grows over reductions along the same axes and the
elementwise nodes between them; elementwise and movement nodes over one shape join, and elementwise groups that a node
brings together become one. Invariant: a group reads only from groups before it, because a node may only join the latest
of the groups that it reads, and nothing that a guard over data protects runs before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.scalar import SCALAR_OPS
from tessera_build.ir.core.structure import captured, symbols_defined_by, symbols_used_by
from tessera_build.ir.graph.nodes import Array, GraphNode
from tessera_build.ir.graph.ops.op import extents_of
from tessera_build.kernels.table import KERNELS

Kind = Literal["contraction", "chain", "row", "pointwise", "kernel", "concat", "view", "control", "read"]
# Groups of one node each.
ALONE: frozenset[Kind] = frozenset({"kernel", "concat", "view", "control", "read"})
Shape = tuple[Extent, ...]
# Nodes of one task: lowering follows their chain by recursion, and LLVM's time grows faster than a block of code.
_LARGEST = 128


@dataclass(slots=True)
class FusionGroup:
    """Nodes that run as one task; `domain` is the shape its loops run over, `reduced` the axes a row task reduces."""

    kind: Kind
    domain: Shape
    nodes: list[GraphNode] = field(default_factory=list[GraphNode])
    reduced: frozenset[int] = frozenset()


def cut_axis(node: GraphNode, shape: Shape) -> int | None:
    """The only axis that a slice cuts, where what is left lies side by side in dense memory of this shape; else None.

    The axes before it have one element each. What a kernel fills of its buffer is such a slice, and one row is.
    """
    starts, stops, steps = (extents_of(node.attributes, name) for name in ("starts", "stops", "steps"))
    ends = zip(starts, stops, shape, strict=True)
    cut = [axis for axis, (start, stop, extent) in enumerate(ends) if start != 0 or stop != extent] or [0]
    alone = len(cut) == 1 and bool(shape) and all(extent == 1 for extent in shape[: cut[0]])
    return cut[0] if alone and all(step == 1 for step in steps) else None


def crosses_last(node: GraphNode) -> bool:
    """Whether a node's neighbours along the last axis come from elements that lie apart."""
    perm = node.attributes.get("perm")
    return isinstance(perm, tuple) and bool(perm) and perm[-1] != len(perm) - 1


def _is_elementwise(group: FusionGroup) -> bool:
    return group.kind == "pointwise" and all(node.op in SCALAR_OPS for node in group.nodes)


def fuse(function: Function, constants: Mapping[int, Array]) -> tuple[FusionGroup, ...]:
    """Group the nodes of a function; `constants` are the values known at build time."""
    return _Fuser(function, constants).run()


def _gathers_last(nodes: Iterable[GraphNode]) -> Iterator[GraphNode]:
    """The nodes in an order in which they can run, with gathers right before what reads them.

    Rows that are looked up before what they are multiplied with is made would be stored until it is.
    """
    held: dict[int, GraphNode] = {}
    for node in nodes:
        read = (*node.inputs, *captured(node.regions))
        yield from [held.pop(value) for value in dict.fromkeys(read) if value in held]
        if node.op == "gather":
            held[node.output] = node
        else:
            yield node
    yield from held.values()


class _Fuser:
    def __init__(self, function: Function, constants: Mapping[int, Array]) -> None:
        self._function = function
        self._constants = constants
        self._groups: list[FusionGroup] = []
        self._group_of: dict[int, int] = {}
        self._group_of_symbol: dict[str, int] = {}
        self._has_sizes = any(symbols_defined_by(node) for node in function.nodes)
        uses = (symbols_used_by(node, function.types) for node in function.nodes if self._has_sizes)
        self._mentioned = frozenset[str]().union(*uses)
        self._first = 0  # the first group that nodes may still join

    def run(self) -> tuple[FusionGroup, ...]:
        nodes = [n for n in self._function.nodes if isinstance(n, GraphNode) and n.op != "constant"]
        for node in nodes if self._has_sizes else _gathers_last(self._views_first(nodes)):
            self._place(node)
        return tuple(group for group in self._groups if group.nodes)

    def _views_first(self, nodes: Sequence[GraphNode]) -> Iterator[GraphNode]:
        """The nodes in an order in which they can run, with views as early as what they view.

        A view that stands between a node and its producer would keep the two from one group.
        """
        made = {value for node in nodes for value in node.outputs}
        views = [node for node in nodes if self._kind(node).kind == "view"]
        waiting: dict[int, list[GraphNode]] = {}
        for view in views:
            waiting.setdefault(view.inputs[0], []).append(view)
        given = [view for view in views if view.inputs[0] not in made]
        unmoved = {view.output for view in views}
        for node in (*given, *(node for node in nodes if unmoved.isdisjoint(node.outputs))):
            ready = [node]
            while ready:
                ready.extend(view for value in ready[0].outputs for view in waiting.get(value, ()))
                yield ready.pop(0)

    def _shape(self, value: int) -> Shape:
        return self._function.types[value].shape

    def _place(self, node: GraphNode) -> None:
        own = self._kind(node)
        index = self._latest(node)
        if index is None or index < self._first or not self._joins(node, own, self._groups[index]):
            self._open(node, own)
            return
        index = self._united(node, index)
        group = self._groups[index]
        group.nodes.append(node)
        if own.kind == "row":
            group.kind, group.reduced = "row", own.reduced
        self._group_of.update(dict.fromkeys(node.outputs, index))

    def _united(self, node: GraphNode, index: int) -> int:
        """The group that a node joins, after the others that it reads have become one with it where they can.

        x * 0.5 reads nothing that 1 + erf(x) does but x, and so begins a group of its own; their product would pass
        over memory again. The later group moves to the earlier one's place where nothing that it or the node reads
        stands behind that, so that no other one behind is left to ask; else the earlier one moves to the later one's,
        unless a group between them reads it.
        """
        for other in sorted({self._group_of[v] for v in node.inputs if v in self._group_of} - {index}):
            early, late = self._groups[other], self._groups[index]
            if other < self._first or not (_is_elementwise(early) and _is_elementwise(late)):
                continue
            if early.domain != late.domain or len(early.nodes) + len(late.nodes) >= _LARGEST:
                continue
            if all(source <= other or source == index for n in (*late.nodes, node) for source in self._sources(n)):
                self._move(index, other, [*early.nodes, *late.nodes])
                index = other
            elif not any(other in self._sources(n) for group in self._groups[other + 1 : index] for n in group.nodes):
                self._move(other, index, [*early.nodes, *late.nodes])
        return index

    def _move(self, away: int, to: int, nodes: list[GraphNode]) -> None:
        for node in self._groups[away].nodes:
            self._group_of.update(dict.fromkeys(node.outputs, to))
        self._groups[away].nodes.clear()
        self._groups[to].nodes[:] = nodes

    def _open(self, node: GraphNode, group: FusionGroup) -> None:
        group.nodes.append(node)
        self._group_of.update(dict.fromkeys(node.outputs, len(self._groups)))
        self._group_of_symbol.update(dict.fromkeys(symbols_defined_by(node), len(self._groups)))
        self._groups.append(group)
        if self._is_demand(node):
            self._first = len(self._groups)

    def _is_demand(self, node: GraphNode) -> bool:
        """Whether a node reads what no extent mentions: for a guard alone, before which nothing behind it may run."""
        names = symbols_defined_by(node)
        return bool(names) and self._mentioned.isdisjoint(names)

    def _latest(self, node: GraphNode) -> int | None:
        """The last group that the node reads from, or that reads a size which it mentions."""
        return max(self._sources(node), default=None)

    def _sources(self, node: GraphNode) -> set[int]:
        """The groups that the node reads from, those of sizes that it mentions among them."""
        read = (*node.inputs, *captured(node.regions))
        found = {self._group_of[v] for v in read if v in self._group_of}
        if self._has_sizes:
            used = symbols_used_by(node, self._function.types)
            found |= {group for name, group in self._group_of_symbol.items() if name in used}
        return found

    def _kind(self, node: GraphNode) -> FusionGroup:
        """The group a node would open on its own."""
        if node.regions:
            return FusionGroup("control", ())
        if node.op == "sizes":
            return FusionGroup("read", ())
        shape = self._shape(node.outputs[0])
        match node.op:
            case "matmul" | "conv" | "reduce_window":
                return FusionGroup("contraction", shape)
            case "reduce":
                axes = node.attributes["axes"]
                given = axes if isinstance(axes, tuple) else ()
                reduced = frozenset(a for a in given if isinstance(a, int))
                return FusionGroup("row", self._shape(node.inputs[0]), reduced=reduced)
            case "softmax":
                axis = node.attributes["axis"]
                last = (axis if isinstance(axis, int) else -1) % len(shape)
                return FusionGroup("row", shape, reduced=frozenset({last}))
            case "attention":
                return FusionGroup("kernel", shape)
            case "concat":
                return FusionGroup("concat", shape)
            case "reshape":
                return FusionGroup("view", shape)
            case "slice" if cut_axis(node, self._shape(node.inputs[0])) is not None:
                return FusionGroup("view", shape)
            case op if op in KERNELS:
                return FusionGroup("kernel", shape)
            case _:
                return FusionGroup("pointwise", shape)

    def _joins(self, node: GraphNode, own: FusionGroup, group: FusionGroup) -> bool:
        if own.kind == "contraction" or own.kind in ALONE or group.kind in ALONE or len(group.nodes) >= _LARGEST:
            return False
        if own.kind == "row":
            # The first reduction may drop its axes: only what finds its result aligned joins after it.
            keeps = node.op == "softmax" or bool(node.attributes.get("keepdims")) or group.kind == "pointwise"
            same_rows = group.kind == "pointwise" or (group.kind == "row" and group.reduced == own.reduced)
            if group.kind == "pointwise" and any(crosses_last(n) for n in group.nodes):
                return False  # each pass over a row would collect it from a column again
            return keeps and same_rows and group.domain == own.domain and self._reads_domain(node, group)
        if node.op not in SCALAR_OPS:
            return False
        if not all(self._aligned(v, group) for v in node.inputs if self._group_of.get(v) == self._latest(node)):
            return False
        shape = self._shape(node.output)
        if shape == group.domain:
            return True
        return group.kind == "row" and shape == self._row_shape(group)

    def _reads_domain(self, node: GraphNode, group: FusionGroup) -> bool:
        """A reduction joins only over a value of the group's full domain that the group itself makes or reads."""
        return self._shape(node.inputs[0]) == group.domain

    def _aligned(self, value: int, group: FusionGroup) -> bool:
        """Whether broadcasting puts the axes of a value made in the group where they are in the group's domain.

        A reduction that dropped its axes keeps its place only if those were the leading ones, or all there are.
        """
        dropped = len(group.domain) - len(self._shape(value))
        return dropped <= 0 or group.reduced == frozenset(range(dropped))

    def _row_shape(self, group: FusionGroup) -> Shape:
        return tuple(1 if axis in group.reduced else extent for axis, extent in enumerate(group.domain))
