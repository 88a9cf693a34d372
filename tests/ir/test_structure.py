"""Reflection, building and rewriting of nodes.

Takes nodes of every level. Invariant: a node survives the trip through its generic form, and what does not change
stays the same object.
"""

from dataclasses import fields, is_dataclass

import pytest
from hypothesis import given, settings

from tessera_build.ir.core.node import Function, Node, Span
from tessera_build.ir.core.rewrite import FunctionBuilder, eliminate_dead, map_nodes, substitute
from tessera_build.ir.core.structure import (
    SEGMENTS,
    Generic,
    class_table,
    defs_of,
    from_generic,
    regions_of,
    rename,
    to_generic,
    uses_of,
)
from tessera_build.ir.core.types import BOOL, F32, memref, tensor, tile
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.ir.graph.text import CLASSES as GRAPH
from tessera_build.ir.schedule.text import CLASSES as SCHEDULE
from tessera_build.ir.target import kernel
from tessera_build.ir.target.text import CLASSES as TARGET
from tessera_build.ir.tile.nodes import Alloc, For, Load, Store, View, ViewAxis
from tessera_build.ir.tile.text import CLASSES as TILE
from tests.ir import functions

pytestmark = pytest.mark.unit


def same(left: Node, right: Node) -> bool:
    """Equal content; nodes themselves compare by identity."""
    if type(left) is not type(right):
        return False
    names = [f.name for f in fields(left) if not regions_of(left) or f.name not in {"body", "then", "otherwise"}]
    # By text, because a NaN in a scalar program is not equal to itself.
    return all(repr(getattr(left, n)) == repr(getattr(right, n)) for n in names) and all(
        a.args == b.args and a.results == b.results and all(map(same, a.nodes, b.nodes))
        for a, b in zip(regions_of(left), regions_of(right), strict=True)
    )


def check_generic(function: Function, classes: dict[str, type[Node]]) -> None:
    assert function.nodes
    for node in function.walk():
        assert is_dataclass(node)
        assert same(from_generic(to_generic(node), classes), node)


@settings(max_examples=25)
@given(functions.graph_functions(), functions.schedule_functions())
def test_dataflow_nodes_when_generic_then_rebuild_equal(graph: Function, task: Function) -> None:
    check_generic(graph, GRAPH)
    check_generic(task, SCHEDULE)


@settings(max_examples=25)
@given(functions.tile_functions(), functions.target_functions())
def test_loop_nodes_when_generic_then_rebuild_equal(tiles: Function, machine: Function) -> None:
    check_generic(tiles, TILE)
    check_generic(machine, TARGET)


@pytest.mark.parametrize(("mask", "other"), [(None, None), (3, None), (None, 4), (3, 4)])
def test_optional_operands_when_generic_then_are_told_apart(mask: int | None, other: int | None) -> None:
    node = kernel.Load(0, 1, 2, mask, other)
    generic = to_generic(node)
    assert generic.attributes[SEGMENTS] == (1, 1, int(mask is not None), int(other is not None))
    assert same(from_generic(generic, TARGET), node)


BROKEN = {
    "unknown attribute": (Generic("ttile.store", (0, 1), (), {"pda": 1}, ()), "has no attribute pda"),
    "missing attribute": (Generic("ttile.for", (), (), {"index": "i"}, ()), "missing|too few|belongs"),
    "operands": (Generic("ttile.store", (0, 1, 2), (), {}, ()), "too many|too few"),
    "results": (Generic("ttile.store", (0, 1), (2,), {}, ()), "too many"),
    "wrong type": (Generic("ttile.wait", (), (), {"pending": "1"}, ()), "is not int"),
    "extent": (Generic("ttile.iota", (), (0,), {"axis": 0, "offset": "i"}, ()), "is not int or Dim"),
    "tuple": (Generic("ttile.permute", (0,), (1,), {"permutation": 1}, ()), "is not tuple"),
    "program": (Generic("ttile.map", (), (1,), {"program": "add"}, ()), "is not tuple"),
    "literal": (Generic("ttile.if", (), (), {"left": 1, "relation": 2, "right": 1}, ()), "too few|is not str"),
    "record": (Generic("ttile.wait", (), (), {"pending": 1, "binding": {"speed": 1}}, ()), "no field speed"),
    "segments": (Generic("ttarget.load", (0, 1), (2,), {}, ()), SEGMENTS),
    "class": (Generic("ttile.sort", (), (), {}, ()), "not a node"),
}


@pytest.mark.errors
@pytest.mark.parametrize("case", BROKEN)
def test_generic_when_it_does_not_fit_then_is_refused(case: str) -> None:
    generic, message = BROKEN[case]
    with pytest.raises(ValueError, match=message):
        from_generic(generic, TILE | TARGET)


def test_rename_when_regions_use_values_then_changes_them_too() -> None:
    b = FunctionBuilder("f")
    x = b.arg(memref(F32, 4))
    with b.region([tile(F32, 4)]) as body:
        view = b.emit(lambda r: View(r, x, (0,), (ViewAxis(0),)), memref(F32, 4))
        b.add(Store(view, body.args[0]))
        body.yields(body.args[0])
    loop = For((9,), "i", 4, 1, (8,), body.region)
    renamed = rename(loop, {x: 100, 8: 200, 9: 300, body.args[0]: 400})
    assert (uses_of(renamed), defs_of(renamed)) == ((200,), (300,))
    (region,) = regions_of(renamed)
    assert (region.args, region.results) == ((400,), (400,))
    assert uses_of(region.nodes[0]) == (100,)
    assert rename(loop, {77: 78}) is loop
    kept = rename(loop, {9: 300, body.args[0]: 400, 8: 200}, defs=False)
    assert defs_of(kept) == (9,)


def test_builder_when_finished_then_keeps_types_and_spans_of_what_is_there() -> None:
    b = FunctionBuilder("f")
    x = b.arg(tensor(F32, 4))
    unused = b.value(tensor(BOOL))
    b.span = Span("layer")
    y = b.emit(lambda r: GraphNode("neg", (x,), (r,)), tensor(F32, 4))
    z = b.emit(lambda r: GraphNode("abs", (y,), (r,)), tensor(F32, 4), Span("other"))
    function = b.finish([z], {"dims": ()})
    assert unused not in function.types
    assert [str(function.locations[n]) for n in function.nodes] == ["layer", "other"]
    again = FunctionBuilder.resume(function)
    assert again.value(tensor(F32)) > z


def test_substitute_when_values_chain_then_follows_and_keeps_spans() -> None:
    b = FunctionBuilder("f")
    x = b.arg(tensor(F32))
    y = b.emit(lambda r: GraphNode("neg", (x,), (r,)), tensor(F32))
    z = b.emit(lambda r: GraphNode("neg", (y,), (r,)), tensor(F32))
    w = b.emit(lambda r: GraphNode("exp", (z,), (r,)), tensor(F32), Span("exp"))
    function = substitute(b.finish([w, z]), {z: y, y: x})
    assert function.results == (w, x)
    assert uses_of(function.nodes[2]) == (x,)
    assert str(function.locations[function.nodes[2]]) == "exp"
    assert [n.op for n in eliminate_dead(function).nodes if isinstance(n, GraphNode)] == ["exp"]


def test_dead_nodes_when_inside_a_region_then_go_and_stores_stay() -> None:
    b = FunctionBuilder("f")
    x = b.arg(memref(F32, 4))
    with b.region() as body:
        view = b.emit(lambda r: View(r, x, (0,), (ViewAxis(0),)), memref(F32, 4))
        b.emit(lambda r: View(r, x, (0,), (ViewAxis(0),)), memref(F32, 4))
        loaded = b.emit(lambda r: Load(r, view), tile(F32, 4))
        b.emit(lambda r: Load(r, view), tile(F32, 4))
        b.add(Store(view, loaded))
    b.add(For((), "i", 4, 1, (), body.region), Span("loop"))
    b.emit(Alloc, memref(F32, 4))
    function = b.finish()
    swept = eliminate_dead(function)
    assert [type(n).__name__ for n in swept.walk()] == ["For", "View", "Load", "Load", "Store", "Alloc"]
    assert str(swept.locations[swept.nodes[0]]) == "loop"
    swept = eliminate_dead(function, lambda n: isinstance(n, For | Store))
    assert [type(n).__name__ for n in swept.walk()] == ["For", "View", "Load", "Store"]


def test_map_nodes_when_nothing_changes_then_gives_the_same_nodes() -> None:
    b = FunctionBuilder("f")
    x = b.arg(tensor(F32))
    b.emit(lambda r: GraphNode("neg", (x,), (r,)), tensor(F32))
    function = b.finish()
    assert map_nodes(function, lambda node: node).nodes[0] is function.nodes[0]


def test_class_table_when_a_class_names_itself_then_is_listed_by_dialect() -> None:
    assert class_table([GraphNode]) == {"tgraph.*": GraphNode}
