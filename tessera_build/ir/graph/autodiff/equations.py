"""Derivatives of `linear_solve`: solutions of the same map, and of its transpose, with other right sides.

Takes a walk that has come to a linear equation A x = b; adds its values and tangents: A dx = db - dA x, and backwards
A^T w = c with the cotangent w of that right side. Invariant: nothing of any iteration is read or kept; a solution that
a derivative needs and that is not found ends the run.
"""

from __future__ import annotations

from tessera_build.ir.core.node import Region
from tessera_build.ir.graph.autodiff.emit import Emit, Values
from tessera_build.ir.graph.autodiff.regions import Walking, outside_tangents, record, zeros
from tessera_build.ir.graph.autodiff.replay import Replay, live_part
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.ir.graph.ops.op import number_of


def differentiate_linear_solve(walk: Walking, node: GraphNode) -> None:
    """The tangent of the solution; whether there is one has none."""
    right = _change_of_right(walk, node)
    if right is None:
        return
    type_, recorder = walk.type(node.outputs[0]), walk.recorder
    if recorder is None:
        walk.tangents[node.outputs[0]] = _solved(walk, node, right, _same(walk, node))
        return

    def back(_: Emit, cotangents: Values) -> Values:
        (cotangent,) = cotangents
        assert cotangent is not None
        symmetric = node.attributes["kind"] == "cg"
        region = _same(walk, node) if symmetric else _transposed(walk, node)
        return [_solved(walk, node, cotangent, region)]

    (walk.tangents[node.outputs[0]],) = recorder.step("linear_solve", (right,), (type_,), back)


def _change_of_right(walk: Walking, node: GraphNode) -> int | None:
    """db - dA x, as a value or a linear value."""
    emit = Emit(walk.recorder or walk.to)
    change, moved = walk.tangents.get(node.inputs[0]), _change_of_map(walk, node)
    if moved is None:
        return change
    return emit.op("neg", moved) if change is None else emit.op("sub", change, moved)


def _change_of_map(walk: Walking, node: GraphNode) -> int | None:
    """dA x: what the map gives of the solution changes by, because of what the map captures."""
    (region,) = node.regions
    outside = outside_tangents(walk, (region,))
    if not outside:
        return None
    inner = walk.inside(walk.recorder)
    inner.tangents.update(outside)
    inner.values[region.args[0]] = walk.value(node.outputs[0])
    inner.nodes(region.nodes)
    return inner.tangents.get(region.results[0])


def _solved(walk: Walking, node: GraphNode, right: int, region: Region) -> int:
    """The solution for another right side, which must be one."""
    to = walk.to
    found, good = to.node("linear_solve", (right,), node.attributes, (region,))
    place = f" of {to.span}" if to.span else ""
    return to.op("checked", found, good, message=unsolved(f"a derivative{place}", node))


def unsolved(what: str, node: GraphNode) -> str:
    """The message of an equation that was not solved."""
    tolerance, limit = number_of(node.attributes, "tolerance"), node.attributes["limit"]
    return f"the linear equation of {what} is not solved to {tolerance:g} within {limit} applications"


def _same(walk: Walking, node: GraphNode) -> Region:
    """The map, written again where the builder stands."""
    again = Replay(walk.to, dict(walk.values), walk.type, walk.function.locations.get)
    return again.region(node, node.regions[0])


def _transposed(walk: Walking, node: GraphNode) -> Region:
    """The transpose of the map as a region; what it captures is constant there."""
    (region,), to = node.regions, walk.to
    type_, own = walk.type(region.args[0]), walk.inside(None)
    with to.region([type_]) as block:
        found = record(own, region, block.args, [True])
        (change,), (linear,) = found.tangents, found.args
        assert linear is not None
        passed = None if change is None else found.recorder.transposed([change], block.args, [linear])[0]
        block.yields(zeros(to, type_) if passed is None else passed)
    return live_part(block.region, block.results)
