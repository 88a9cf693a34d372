"""Derivatives of `stated`: what its second region says, a rule of tangents or one of cotangents.

Takes a walk that has come to a node whose derivative the model's author states; adds its tangents. Invariant: a rule is
applied to what it takes, whatever it makes of it: one of tangents forwards, one of cotangents backwards. The other
direction is its transpose, and what is not linear has none: it is refused. What the second region captures is a
constant; what the first one captures may not be differentiated by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bundle_format.errors import TesseraError
from tessera_build.ir.graph.autodiff.derivative import not_differentiable
from tessera_build.ir.graph.autodiff.emit import Emit, Values
from tessera_build.ir.graph.autodiff.linearity import STRAIGHT, Kind, Seen, kinds_of
from tessera_build.ir.graph.autodiff.program import Recorder
from tessera_build.ir.graph.autodiff.regions import Walking, outside_tangents, zeros_where_missing
from tessera_build.ir.graph.autodiff.replay import Replay
from tessera_build.ir.graph.nodes import Array, GraphNode


def differentiate_stated(walk: Walking, node: GraphNode) -> None:
    """Tangents of the results, by the rule or by its transpose."""
    if outside_tangents(walk, node.regions[:1]):
        where = str(walk.to.span) if walk.to.span else None
        raise not_differentiable("stated", "its body reads a value that is differentiated by and is no argument", where)
    if all(tangent is None for tangent in walk.tangents_of(node.inputs)):
        return
    if node.attributes["rule"] == "tangents":
        _by_tangents(walk, node)
    elif walk.recorder is None:
        _push_transposed(walk, node)
    else:
        _record_cotangents(walk, node, walk.recorder)


def _by_tangents(walk: Walking, node: GraphNode) -> None:
    """The changes that are not zero: the rule of the tangents, or its linear part."""
    rule = node.regions[1]
    found = zip(node.outputs, rule.results, _kinds(walk, node), strict=True)
    changes = [(o, r, seen) for o, r, seen in found if walk.type(o).dtype.is_float and seen.kind != Kind.ZERO]
    if not changes:
        return
    if walk.recorder is None:
        tangents = zeros_where_missing(walk.tangents_of(node.inputs), [walk.type(i) for i in node.inputs], walk.to)
        written = _written(walk, node, tangents)
        walk.tangents.update((o, written(r)) for o, r, _ in changes)
        return
    for _, _, seen in changes:
        _expect_linear(walk, node, seen)
    inner = _inside(walk, node, walk.recorder)
    given = zip(rule.args[-len(node.inputs) :], walk.tangents_of(node.inputs), strict=True)
    inner.tangents.update((a, t) for a, t in given if t is not None)
    inner.nodes(rule.nodes)
    walk.tangents.update((o, inner.tangents[r]) for o, r, _ in changes if r in inner.tangents)


def _record_cotangents(walk: Walking, node: GraphNode, recorder: Recorder) -> None:
    """One step, which applies the rule to the cotangents that come."""
    rule = node.regions[1]
    active = [i in walk.tangents for i in _floats(walk, node.inputs)]
    inputs = [walk.tangents[i] for i in node.inputs if i in walk.tangents]
    outputs, types = _floats(walk, node.outputs), [walk.type(o) for o in node.outputs]

    def back(_: Emit, cotangents: Values) -> Values:
        known = dict(zip(outputs, cotangents, strict=True))
        written = _written(walk, node, zeros_where_missing([known.get(o) for o in node.outputs], types, walk.to))
        return [written(r) for r, on in zip(rule.results, active, strict=True) if on]

    tangents = recorder.step("stated", inputs, [walk.type(o) for o in outputs], back)
    walk.tangents.update(zip(outputs, tangents, strict=True))


def _push_transposed(walk: Walking, node: GraphNode) -> None:
    """The transpose of the rule by its cotangents, of the tangents of the operands."""
    rule = node.regions[1]
    given = walk.tangents_of(_floats(walk, node.inputs))
    for tangent, seen in zip(given, _kinds(walk, node), strict=True):
        if tangent is not None:
            _expect_linear(walk, node, seen)
    recorder = Recorder(walk.to)
    inner, outputs = _inside(walk, node, recorder), _floats(walk, node.outputs)
    linear = {o: recorder.value(walk.type(o)) for o in outputs}
    taken = zip(node.outputs, rule.args[-len(node.outputs) :], strict=True)
    inner.tangents.update((a, linear[o]) for o, a in taken if o in linear)
    inner.nodes(rule.nodes)
    found = recorder.transposed(inner.tangents_of(rule.results), given, [linear[o] for o in outputs])
    walk.tangents.update((o, tangent) for o, tangent in zip(outputs, found, strict=True) if tangent is not None)


def _floats(walk: Walking, values: Sequence[int]) -> list[int]:
    return [v for v in values if walk.type(v).dtype.is_float]


def _given(walk: Walking, node: GraphNode) -> list[int]:
    """What the rule takes before tangents or cotangents, as it was emitted."""
    return [walk.value(v) for v in (*node.inputs, *node.outputs)]


def _written(walk: Walking, node: GraphNode, given: Sequence[int]) -> Callable[[int], int]:
    """The rule of tangents or cotangents, written where the builder stands; gives what became of its values."""
    rule = node.regions[1]
    values = walk.values | dict(zip(rule.args, (*_given(walk, node), *given), strict=True))
    again = Replay(walk.to, values, walk.type, walk.function.locations.get)
    again.nodes(rule.nodes)
    return lambda value: again.values.get(value, value)


def _inside(walk: Walking, node: GraphNode, recorder: Recorder) -> Walking:
    """A sweep over the rule at tangents or cotangents of zero: where it is linear, it is the same everywhere."""
    rule, before = node.regions[1], _given(walk, node)
    inner, rest = walk.inside(recorder), rule.args[len(before) :]
    blank = zeros_where_missing([None] * len(rest), [walk.type(a) for a in rest], walk.to)
    inner.values.update(zip(rule.args, (*before, *blank), strict=True))
    return inner


def _kinds(walk: Walking, node: GraphNode) -> list[Seen]:
    """How what the rule gives depends on its tangents or cotangents."""
    rule, count = node.regions[1], len(node.inputs) + len(node.outputs)
    before = dict(zip(rule.args, (*node.inputs, *node.outputs), strict=False))

    def array(value: int) -> Array | None:
        return walk.to.array(walk.value(before.get(value, value)))

    return kinds_of(rule, rule.args[count:], array)


def _named(node: GraphNode) -> str:
    return "a function with a derivative of its own" if node.op == "stated" else node.op


def _expect_linear(walk: Walking, node: GraphNode, seen: Seen) -> None:
    """Refuse to transpose what is not linear, at the op that is not."""
    if seen.kind in STRAIGHT:
        return
    tangents = node.attributes["rule"] == "tangents"
    rule, wanted, taken = ("jvp", "gradients", "tangents") if tangents else ("vjp", "tangents", "cotangent")
    reason = "what stands here is not" if seen.cause else "what it gives does not depend on it"
    span = walk.function.locations.get(seen.cause or node) or walk.to.span
    raise TesseraError(
        "NOT_LINEAR",
        f"a custom_{rule} has {wanted} only where its rule is linear in the {taken}: {reason}",
        where=str(span) if span else None,
        expected=f"a rule that is linear in the {taken}",
        found=_named(seen.cause) if seen.cause else "a constant",
        hint="gradients by custom_vjp take any rule" if tangents else "tangents by custom_jvp take any rule",
    )
