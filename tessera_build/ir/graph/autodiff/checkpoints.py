"""Derivatives of `checkpoint`: forward as what its body is; backward by computing the body again.

Takes a walk that has come to a checkpoint; adds its values and tangents. Invariant: the way back reads the operands and
what the body captures, and no value that the body computed. It stands in a loop of one iteration that carries what
was computed of what it reads: no pass can find there that the body has been computed before.
"""

from __future__ import annotations

from tessera_build.ir.graph.autodiff.emit import Emit, Values
from tessera_build.ir.graph.autodiff.regions import (
    Walking,
    activity,
    outside_tangents,
    record,
    zeros,
    zeros_where_missing,
)
from tessera_build.ir.graph.autodiff.replay import Replay
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.ir.graph.regions import captured


def push_checkpoint(walk: Walking, node: GraphNode) -> None:
    """The body in its place, with its tangents."""
    (region,) = node.regions
    inner = walk.inside(None)
    inner.tangents.update(walk.tangents)
    for arg, operand in zip(region.args, node.inputs, strict=True):
        inner.values[arg] = walk.value(operand)
        if operand in walk.tangents:
            inner.tangents[arg] = walk.tangents[operand]
    inner.nodes(region.nodes)
    for output, result in zip(node.outputs, region.results, strict=True):
        walk.values[output] = inner.value(result)
        if result in inner.tangents:
            walk.tangents[output] = inner.tangents[result]


def record_checkpoint(walk: Walking, node: GraphNode) -> None:
    """The body in its place, and one step that computes it again."""
    (region,), recorder = node.regions, walk.recorder
    assert recorder is not None
    if not walk.written:
        given = {a: walk.value(i) for a, i in zip(region.args, node.inputs, strict=True)}
        body = Replay(walk.to, walk.values | given, walk.type, walk.function.locations.get)
        body.nodes(region.nodes)
        walk.values.update((o, body.values.get(r, r)) for o, r in zip(node.outputs, region.results, strict=True))
    active = [i in walk.tangents for i in node.inputs]
    there = activity(walk, region, active, {})
    outputs = [o for o, on in zip(node.outputs, there, strict=True) if on]
    types = [walk.type(o) for o in outputs]
    inputs = [*(walk.tangents[i] for i in node.inputs if i in walk.tangents)]
    inputs += outside_tangents(walk, (region,)).values()

    def back(_: Emit, cotangents: Values) -> Values:
        return _again(walk, node, zeros_where_missing(cotangents, types, walk.to))

    tangents = recorder.step("checkpoint", inputs, types, back)
    walk.tangents.update(zip(outputs, tangents, strict=True))


def _again(walk: Walking, node: GraphNode, cotangents: list[int]) -> Values:
    """Cotangents of the operands and captured values that have tangents, from one iteration of a loop.

    They take the place of zeros that the loop carries: a stack of one slice would be copied to where they go.
    """
    (region,), to = node.regions, walk.to
    active = [i in walk.tangents for i in node.inputs]
    read = _computed(walk, [*node.inputs, *captured((region,))])
    starts = [i for i in node.inputs if i in walk.tangents] + list(outside_tangents(walk, (region,)))
    blanks = [zeros(to, walk.type(v)) for v in starts]
    operands = (*(walk.value(v) for v in read), *cotangents, *blanks)
    index = to.fresh_index("again")
    with to.region([to.type(v) for v in operands], {index: (0, 0)}) as block:
        own = walk.inside(None)
        own.tangents.update(walk.tangents)
        own.values.update(zip(read, block.args, strict=False))
        found = record(own, region, [own.value(i) for i in node.inputs], active)
        inputs = [*(a for a in found.args if a is not None), *found.outside.values()]
        outputs = [t for t in found.tangents if t is not None]
        fixed = len(operands) - len(blanks)
        passed = found.recorder.transposed(outputs, block.args[len(read) : fixed], inputs)
        results = [b if c is None else c for b, c in zip(block.args[fixed:], passed, strict=True)]
        block.yields(*block.args[:fixed], *results)
    made = to.node("loop", operands, {"index": index, "trips": 1}, (block.region,))[fixed:]
    return [None if c is None else m for c, m in zip(passed, made, strict=True)]


def _computed(walk: Walking, values: list[int]) -> list[int]:
    """The values that are no inputs and no constants; where there are none, all that are no constants.

    What a loop carries has a place of its own in memory: weights that are inputs would be copied.
    """
    varying = [v for v in dict.fromkeys(values) if walk.to.array(walk.value(v)) is None]
    return [v for v in varying if walk.to.producer(walk.value(v)) is not None] or varying
