"""The canonical hash: blind to how a function was written down, sensitive to what it says, linear in its size.

Takes small functions in several spellings. Invariant: nothing here recurses along a chain.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings

from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.hashing import hash_function
from tessera_build.ir.core.node import Function, Span
from tessera_build.ir.core.rewrite import FunctionBuilder, eliminate_dead, substitute
from tessera_build.ir.core.types import F32, F64, memref, tensor, tile
from tessera_build.ir.graph import text as graph_text
from tessera_build.ir.graph.nodes import GraphNode
from tessera_build.ir.tile import text as tile_text
from tessera_build.ir.tile.nodes import For, Iota, Load, Store, View, ViewAxis
from tests.ir import functions

pytestmark = pytest.mark.unit
SHAPE = tensor(F32, 4)


def add_to(b: FunctionBuilder, op: str, *inputs: int, **attributes: int) -> int:
    return b.emit(lambda r: GraphNode(op, inputs, (r,), attributes), SHAPE)


def test_hash_when_independent_nodes_swap_then_is_equal() -> None:
    def build(swap: bool) -> Function:
        b = FunctionBuilder("a" if swap else "b")
        x = b.arg(SHAPE)
        if swap:
            right, left = add_to(b, "exp", x), add_to(b, "neg", x)
        else:
            left, right = add_to(b, "neg", x), add_to(b, "exp", x)
        return b.finish([add_to(b, "sub", left, right)])

    assert hash_function(build(swap=True)) == hash_function(build(swap=False))


CHANGES: dict[str, Callable[[str], str]] = {
    "op": lambda t: t.replace("tgraph.neg", "tgraph.abs"),
    "attribute": lambda t: t.replace("axis = 1", "axis = 2"),
    "operands": lambda t: t.replace('"tgraph.sub"(%2, %3)', '"tgraph.sub"(%3, %2)'),
    "results": lambda t: t.replace('"tgraph.return"(%4)', '"tgraph.return"(%2)'),
    "type": lambda t: t.replace("xf32", "xf64"),
    "arguments": lambda t: t.replace('"tgraph.neg"(%0)', '"tgraph.neg"(%1)'),
    "function attributes": lambda t: t.replace('sym_name = "f"', 'sym_name = "f", extra = 1'),
}


@pytest.mark.parametrize("change", CHANGES)
def test_hash_when_content_changes_then_differs(change: str) -> None:
    b = FunctionBuilder("f")
    x, y = b.arg(SHAPE), b.arg(SHAPE)
    left, right = add_to(b, "neg", x), add_to(b, "softmax", y, axis=1)
    function = b.finish([add_to(b, "sub", left, right)])
    text = graph_text.print_function(function)
    changed = CHANGES[change](text)
    assert changed != text
    assert hash_function(graph_text.parse_function(changed)) != hash_function(function)


def copies(first: str, second: str, *, reverse: bool = False) -> Function:
    """Two nested loops, a load and two stores in one order or the other."""
    b = FunctionBuilder("copies")
    source, target = b.arg(memref(F32, 8, 8)), b.arg(memref(F32, 8, 8))
    i, j = symbol(first), symbol(second)
    with b.region() as outer:
        with b.region() as inner:
            shown = [
                b.emit(lambda r, v=v: View(r, v, (i, j * 2 + i), (ViewAxis(1),)), memref(F32, 2))
                for v in (source, target)
            ]
            tiles = [b.emit(lambda r, v=v: Load(r, v), tile(F32, 2)) for v in shown]
            stores = [Store(shown[0], tiles[1]), Store(shown[1], tiles[0])]
            for store in reversed(stores) if reverse else stores:
                b.add(store)
        b.add(For((), second, i + 1, 1, (), inner.region))
    b.add(For((), first, 8, 1, (), outer.region))
    return b.finish()


def test_hash_when_loop_indices_are_renamed_then_is_equal() -> None:
    expected = hash_function(copies("i", "j"))
    assert hash_function(copies("row", "a")) == expected
    assert hash_function(copies("j", "i")) == expected


def test_hash_when_effects_swap_then_differs() -> None:
    assert hash_function(copies("i", "j")) != hash_function(copies("i", "j", reverse=True))


def test_hash_when_index_expression_changes_then_differs() -> None:
    text = tile_text.print_function(copies("i", "j"))
    other = tile_text.parse_function(text.replace('dim<"i+2*j">', 'dim<"2*i+j">'))
    assert hash_function(other) != hash_function(copies("i", "j"))


def test_hash_when_spans_and_name_change_then_is_equal() -> None:
    function = copies("i", "j")
    moved = replace(function, name="other", locations={function.nodes[0]: Span("x.py", 1, 1)})
    assert hash_function(moved) == hash_function(function)


def test_hash_when_a_dim_is_called_like_an_attribute_then_only_the_index_is_canonical() -> None:
    """A loop called "seq" must not rename the string "seq" that other attributes hold."""

    def numbers(index: str) -> Function:
        b = FunctionBuilder("f")
        with b.region() as body:
            b.emit(lambda r: Iota(r, 0, symbol(index)), tile(F64, 4))
        b.add(For((), index, 4, 1, (), body.region))
        return b.finish((), {"note": "seq"})

    assert hash_function(numbers("seq")) == hash_function(numbers("i"))


@settings(max_examples=30)
@given(functions.tile_functions())
def test_hash_when_ids_are_renumbered_then_is_equal(function: Function) -> None:
    again = tile_text.parse_function(tile_text.print_function(function))
    assert hash_function(again) == hash_function(function)


def diamond(levels: int) -> Function:
    b = FunctionBuilder("diamond")
    x = b.arg(SHAPE)
    for _ in range(levels):
        x = add_to(b, "add", x, x)
    return b.finish([x])


def test_hash_when_values_are_shared_sixty_times_over_then_time_is_linear() -> None:
    start = time.process_time()
    assert hash_function(diamond(60)) != hash_function(diamond(61))
    assert time.process_time() - start < 1  # 2**60 steps would outlive the machine


def test_sweeps_when_chain_is_long_then_do_not_recurse() -> None:
    function = diamond(100_000)
    assert hash_function(function) == hash_function(replace(function, name="again"))
    assert len(eliminate_dead(replace(function, results=function.args)).nodes) == 0
    middle = function.nodes[50_000].output  # type: ignore[attr-defined]
    shortened = substitute(function, {middle: function.args[0]})
    assert len(eliminate_dead(shortened).nodes) == 49_999


def test_text_when_chain_is_long_then_does_not_recurse() -> None:
    function = diamond(20_000)
    text = graph_text.print_function(function)
    assert hash_function(graph_text.parse_function(text)) == hash_function(function)
