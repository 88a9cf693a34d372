"""Derivatives of `stated`: the change of its results is what its second region says.

Takes a walk that has come to a node whose derivative the model's author states; adds its tangents. Invariant: the
second region is linear in the changes it takes, so what it gives of linear changes is linear; what it captures is a
constant of that map, and what the first region captures may not be differentiated by.
"""

from __future__ import annotations

from tessera_build.ir.graph.autodiff.derivative import not_differentiable
from tessera_build.ir.graph.autodiff.emit import Emit
from tessera_build.ir.graph.autodiff.regions import Walking, outside_tangents
from tessera_build.ir.graph.autodiff.replay import Replay
from tessera_build.ir.graph.nodes import GraphNode


def differentiate_stated(walk: Walking, node: GraphNode) -> None:
    """Tangents of the results: the second region over operands, results and tangents, or its linear part."""
    body, change = node.regions
    if outside_tangents(walk, (body,)):
        where = str(walk.to.span) if walk.to.span else None
        raise not_differentiable("stated", "its body reads a value that is differentiated by and is no argument", where)
    emit, given = Emit(walk.to), walk.tangents_of(node.inputs)
    changes = [None if walk.recorder else tangent for tangent in given]
    zeros = [emit.zeros(walk.type(i)) if t is None else t for i, t in zip(node.inputs, changes, strict=True)]
    values = [walk.value(i) for i in (*node.inputs, *node.outputs)]
    count = len(values)
    floats = [walk.type(o).dtype.is_float for o in node.outputs]
    if walk.recorder is None:
        known = walk.values | dict(zip(change.args, [*values, *zeros], strict=True))
        made = Replay(walk.to, known, walk.type, walk.function.locations.get)
        made.nodes(change.nodes)
        results = zip(node.outputs, change.results, floats, strict=True)
        walk.tangents.update((output, made.values.get(result, result)) for output, result, on in results if on)
        return
    inner = walk.inside(walk.recorder)
    inner.values.update(zip(change.args, [*values, *zeros], strict=True))
    inner.tangents.update((a, t) for a, t in zip(change.args[count:], given, strict=True) if t is not None)
    inner.nodes(change.nodes)
    found = inner.tangents_of(change.results)
    pairs = zip(node.outputs, found, floats, strict=True)
    walk.tangents.update((output, tangent) for output, tangent, on in pairs if on and tangent is not None)
