"""Derivatives of `stated`: the change of its results is what its second region says.

Takes a walk that has come to a node whose derivative the model's author states; adds its tangents. Invariant: the
second region is linear in the changes it takes, so what it gives of linear changes is linear; what it captures is a
constant of that map, and what the first region captures may not be differentiated by.
"""

from __future__ import annotations

from collections.abc import Sequence

from tessera_build.ir.core.node import Region
from tessera_build.ir.graph.autodiff.derivative import not_differentiable
from tessera_build.ir.graph.autodiff.emit import Emit
from tessera_build.ir.graph.autodiff.regions import Walking, outside_tangents
from tessera_build.ir.graph.autodiff.replay import Replay
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.ir.graph.regions import captured


def differentiate_stated(walk: Walking, node: GraphNode) -> None:
    """Tangents of the results: the second region over operands, results and tangents, or its linear part."""
    body, change = node.regions
    if outside_tangents(walk, (body,)):
        where = str(walk.to.span) if walk.to.span else None
        raise not_differentiable("stated", "its body reads a value that is differentiated by and is no argument", where)
    given = walk.tangents_of(node.inputs)
    if all(tangent is None for tangent in given):
        return
    emit, count = Emit(walk.to), len(node.inputs) + len(node.outputs)
    changes = [None if walk.recorder else tangent for tangent in given]
    zeros = [emit.zeros(walk.type(i)) if t is None else t for i, t in zip(node.inputs, changes, strict=True)]
    values = [*(walk.value(i) for i in (*node.inputs, *node.outputs)), *zeros]
    moved = _depending(change, change.args[count:])
    pairs = [(o, r) for o, r in zip(node.outputs, change.results, strict=True) if r in moved]
    pairs = [(output, result) for output, result in pairs if walk.type(output).dtype.is_float]
    if walk.recorder is None:
        known = walk.values | dict(zip(change.args, values, strict=True))
        made = Replay(walk.to, known, walk.type, walk.function.locations.get)
        made.nodes(change.nodes if pairs else ())
        walk.tangents.update((output, made.values.get(result, result)) for output, result in pairs)
        return
    inner = walk.inside(walk.recorder)
    inner.values.update(zip(change.args, values, strict=True))
    inner.tangents.update((a, t) for a, t in zip(change.args[count:], given, strict=True) if t is not None)
    inner.nodes(change.nodes if pairs else ())
    walk.tangents.update((o, inner.tangents[r]) for o, r in pairs if r in inner.tangents)


def _depending(region: Region, args: Sequence[int]) -> set[int]:
    """The values of a region that are computed from some of its arguments."""
    found = set(args)
    for node in region.nodes:
        assert isinstance(node, GraphNode)
        if not found.isdisjoint((*node.inputs, *captured(node.regions))):
            found.update(node.outputs)
    return found
