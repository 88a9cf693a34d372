"""Which results of a region are linear in some of its arguments, as far as its ops tell.

Takes a region and what is known of the values it reads; gives a `Kind` for each result, and the node that is to blame
where one is not linear. Invariant: what is called linear is; what is not called so may be, written in other ops.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from tessera_build.ir.core.node import Node, Region
from tessera_build.ir.core.structure import captured
from tessera_build.ir.graph.autodiff.rules.linear import LINEAR, Linear
from tessera_build.ir.graph.nodes import Array, GraphNode
from tessera_build.ir.graph.ops.op import flag_of

_NOWHERE = Linear(when=lambda _: False)


class Kind(Enum):
    """How a value depends on the arguments: zero is constant, and linear as well."""

    ZERO = "zero"
    CONSTANT = "constant"
    LINEAR = "linear"
    OTHER = "other"


FIXED = (Kind.ZERO, Kind.CONSTANT)
STRAIGHT = (Kind.ZERO, Kind.LINEAR)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a value; `cause` is the first node that is not linear in what it takes."""

    kind: Kind
    cause: GraphNode | None = None


def kinds_of(region: Region, linear: Collection[int], array: Callable[[int], Array | None]) -> list[Seen]:
    """How the results of a region depend on its arguments `linear`; `array` gives constants that it reads."""
    sweep = _Sweep(array)
    sweep.seen.update((a, Seen(Kind.LINEAR)) for a in linear)
    return sweep.through(region)


class _Sweep:
    """One way through nodes; values without an entry do not depend on the arguments."""

    def __init__(self, array: Callable[[int], Array | None]) -> None:
        self.array = array
        self.seen: dict[int, Seen] = {}

    def of(self, value: int) -> Seen:
        """What is known of a value."""
        if value not in self.seen:
            array = self.array(value)
            self.seen[value] = Seen(Kind.CONSTANT if array is None or array.any() else Kind.ZERO)
        return self.seen[value]

    def through(self, region: Region) -> list[Seen]:
        """The results of a region whose arguments are known."""
        self.nodes(region.nodes)
        return [self.of(result) for result in region.results]

    def nodes(self, nodes: Sequence[Node]) -> None:
        """Go through nodes in order."""
        for node in nodes:
            assert isinstance(node, GraphNode)
            self.seen.update(zip(node.outputs, self._outputs(node), strict=True))

    def _outputs(self, node: GraphNode) -> Sequence[Seen]:
        read = [self.of(v) for v in (*node.inputs, *captured(node.regions))]
        match node.op:
            case "constant":
                return [self.of(node.output)]
            case "checked":  # it gives its first operand, whatever it demands of the second
                return [self.of(node.inputs[0])]
            case "checkpoint":
                self.seen.update((a, self.of(v)) for a, v in zip(node.regions[0].args, node.inputs, strict=True))
                return self.through(node.regions[0])
            case "if" if read[0].kind in FIXED:
                both = zip(*(self.through(region) for region in node.regions), strict=True)
                return [_joined(one, other, node) for one, other in both]
            case "loop":
                return self._loop(node)
            case "linear_solve" if all(s.kind in FIXED for s in read[1:]) and read[0].kind == Kind.LINEAR:
                return [read[0], Seen(Kind.OTHER, node)]
            case _:
                return [_result(node, read)] * len(node.outputs)

    def _loop(self, node: GraphNode) -> Sequence[Seen]:
        """A carried value is what it is at first and after each iteration."""
        (region,), conditional = node.regions, flag_of(node.attributes, "conditional")
        going = [self.of(v) for v in node.inputs[:conditional]]
        carried = [self.of(v) for v in node.inputs[conditional:]]
        while True:
            self.seen.update(zip(region.args, carried, strict=True))
            results = self.through(region)
            following = [_joined(c, r, node) for c, r in zip(carried, results[conditional:], strict=False)]
            if [s.kind for s in following] == [s.kind for s in carried]:
                break
            carried = following
        found = [*carried, *results[conditional + len(carried) :]]
        fixed = all(s.kind in FIXED for s in (*going, *results[:conditional]))
        return found if fixed else [Seen(Kind.OTHER, node)] * len(found)


def _joined(one: Seen, other: Seen, node: GraphNode) -> Seen:
    """What is the one or the other."""
    if one.kind == other.kind or other.kind == Kind.ZERO:
        return one
    if one.kind == Kind.ZERO:
        return other
    return Seen(Kind.OTHER, one.cause or other.cause or node)


def _result(node: GraphNode, read: Sequence[Seen]) -> Seen:
    """The result of an op of operands that are known."""
    kinds = [seen.kind for seen in read]
    groups = LINEAR.get(node.op, _NOWHERE).of(len(node.inputs), node.attributes)
    if all(kind in FIXED for kind in kinds):
        zero = any(all(kinds[i] == Kind.ZERO for i in group) for group in groups)
        return Seen(Kind.ZERO if zero and kinds else Kind.CONSTANT)
    for group in groups:
        if all(kind in (STRAIGHT if i in group else FIXED) for i, kind in enumerate(kinds)):
            return Seen(Kind.LINEAR)
    return Seen(Kind.OTHER, next((seen.cause for seen in read if seen.cause), node))
