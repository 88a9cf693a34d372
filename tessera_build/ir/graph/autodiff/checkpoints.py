"""Derivatives of `checkpoint`: forward as what its body is; backward by computing the body again.

Takes a walk that has come to a checkpoint; adds its values and tangents. Invariant: the way back reads the operands,
what the body captures and the results that are kept, and no other value that the body computed. It stands in a loop of
one iteration that carries what was computed of what it reads: no pass can find there that the body has been computed
before.
"""

from __future__ import annotations

from tessera_build.ir.core.node import Region
from tessera_build.ir.core.structure import captured
from tessera_build.ir.graph.autodiff.emit import Emit, Values
from tessera_build.ir.graph.autodiff.regions import Walking, activity, outside_tangents, record, zeros
from tessera_build.ir.graph.autodiff.replay import Replay, live_part
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.ir.graph.ops.control import kept_of


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
    inputs = [*(walk.tangents[i] for i in node.inputs if i in walk.tangents)]
    inputs += outside_tangents(walk, (region,)).values()

    def back(_: Emit, cotangents: Values) -> Values:
        return _again(walk, node, there, cotangents)

    tangents = recorder.step("checkpoint", inputs, [walk.type(o) for o in outputs], back)
    walk.tangents.update(zip(outputs, tangents, strict=True))


def _again(walk: Walking, node: GraphNode, outputs: list[bool], cotangents: Values) -> Values:
    """Cotangents of the operands and captured values that have tangents, from one iteration of a loop.

    They take the place of zeros that the loop carries: a stack of one slice would be copied to where they go. What was
    kept is carried, too: seen from inside, it would show that what is computed of it has been computed before.
    """
    (region,), to = node.regions, walk.to
    active = [i in walk.tangents for i in node.inputs]
    number = kept_of(node.attributes)
    kept = node.outputs[len(node.outputs) - number :]
    read = [*_computed(walk, [*node.inputs, *captured((region,))]), *kept]
    starts = [i for i in node.inputs if i in walk.tangents] + list(outside_tangents(walk, (region,)))
    arriving = [c for c in cotangents if c is not None]
    operands = [*(walk.value(v) for v in read), *arriving, *(zeros(to, walk.type(v)) for v in starts)]
    fixed = len(operands) - len(starts)
    index = to.fresh_index("again")
    with to.region([to.type(v) for v in operands], {index: (0, 0)}) as block:
        own = walk.inside(None)
        own.tangents.update(walk.tangents)
        own.kept = frozenset(region.results[len(region.results) - number :])
        own.values.update(zip(read, block.args, strict=False))
        own.values.update((r, own.value(o)) for o, r in zip(node.outputs, region.results, strict=True) if o in kept)
        found = record(own, region, [own.value(i) for i in node.inputs], active)
        inputs = [*(a for a in found.args if a is not None), *found.outside.values()]
        tangents = [t for t, on in zip(found.tangents, outputs, strict=True) if on]
        reached = [t for t, c in zip(tangents, cotangents, strict=True) if c is not None]
        passed = found.recorder.transposed(reached, block.args[len(read) : fixed], inputs)
        results = [b if c is None else c for b, c in zip(block.args[fixed:], passed, strict=True)]
        block.yields(*block.args[:fixed], *results)
    body, places = _needed(block.region, fixed)
    made = to.node("loop", tuple(operands[i] for i in places), {"index": index, "trips": 1}, (body,))
    return [None if c is None else m for c, m in zip(passed, made[len(made) - len(starts) :], strict=True)]


def _needed(region: Region, fixed: int) -> tuple[Region, list[int]]:
    """The body of a loop without the values that it passes on, the first `fixed`, and does not read; what stays."""
    live = live_part(region, region.results[fixed:])
    read = set(captured((Region((), live.nodes, live.results),)))
    places = [i for i, arg in enumerate(region.args) if i >= fixed or arg in read]
    kept = [region.args[i] for i in places]
    return Region(tuple(kept), live.nodes, tuple(region.results[i] for i in places)), places


def _computed(walk: Walking, values: list[int]) -> list[int]:
    """The values that are no inputs and no constants; where there are none, all that are no constants.

    What a loop carries has a place of its own in memory: weights that are inputs would be copied. A number that is
    repeated would no longer be one, whose equals it leaves the derivative of a maximum.
    """
    to = walk.to
    varying = [v for v in dict.fromkeys(values) if to.array(walk.value(v)) is None and not to.is_number(walk.value(v))]
    return [v for v in varying if walk.to.producer(walk.value(v)) is not None] or varying
