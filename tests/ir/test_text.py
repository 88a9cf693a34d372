"""Text of every level: what is printed parses back equal, xDSL can read it, and wrong text is refused where it is.

Takes random small functions. Invariant: text, hash and spans survive the round trip.
"""

import contextlib
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin
from xdsl.parser import Parser as XdslParser

from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.hashing import hash_function
from tessera_build.ir.core.node import Function, Region, Span
from tessera_build.ir.core.rewrite import FunctionBuilder
from tessera_build.ir.core.text.lexer import Lexer, TextError
from tessera_build.ir.core.text.literals import print_attribute
from tessera_build.ir.core.text.values import ValueParser
from tessera_build.ir.core.types import DTYPES, F32, I64, tensor
from tessera_build.ir.graph import text as graph_text
from tessera_build.ir.graph.nodes import GraphNode, Module, StatePair
from tessera_build.ir.schedule import text as schedule_text
from tessera_build.ir.target import text as target_text
from tessera_build.ir.target.host import Apart, Buffer, Entry, Guard, Launch, Variant
from tessera_build.ir.tile import text as tile_text
from tests.ir import functions

pytestmark = pytest.mark.unit

Level = tuple[Callable[..., str], Callable[[str], Function]]
GRAPH: Level = (graph_text.print_function, graph_text.parse_function)
SCHEDULE: Level = (schedule_text.print_function, schedule_text.parse_function)
TILE: Level = (tile_text.print_function, tile_text.parse_function)
TARGET: Level = (target_text.print_function, target_text.parse_function)


def xdsl_reads(text: str) -> None:
    """xDSL is the judge of whether this is MLIR."""
    context = Context(allow_unregistered=True)
    context.load_dialect(Builtin)
    XdslParser(context, text).parse_module().verify()


def check_round_trip(function: Function, level: Level) -> None:
    print_function, parse_function = level
    for locations in (False, True):
        text = print_function(function, locations=locations)
        again = parse_function(text)
        assert print_function(again, locations=locations) == text
        assert hash_function(again) == hash_function(function)
        spans = [function.locations.get(n) if locations else None for n in function.walk()]
        assert [again.locations.get(n) for n in again.walk()] == spans
        assert [again.types[a] for a in again.args] == [function.types[a] for a in function.args]
        assert (again.name, dict(again.attributes)) == (function.name, dict(function.attributes))
    xdsl_reads(print_function(function))


@settings(max_examples=40)
@given(functions.graph_functions())
def test_graph_function_when_printed_then_parses_equal(function: Function) -> None:
    check_round_trip(function, GRAPH)


@settings(max_examples=40)
@given(functions.schedule_functions())
def test_task_when_printed_then_parses_equal(function: Function) -> None:
    check_round_trip(function, SCHEDULE)


@settings(max_examples=40)
@given(functions.tile_functions())
def test_tile_function_when_printed_then_parses_equal(function: Function) -> None:
    check_round_trip(function, TILE)


@settings(max_examples=40)
@given(functions.target_functions())
def test_kernel_when_printed_then_parses_equal(function: Function) -> None:
    check_round_trip(function, TARGET)


ATTRIBUTES = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(list(DTYPES.values()))
    | st.just(symbol("N") * 2 + 1),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(ATTRIBUTES)
def test_attribute_when_printed_then_parses_equal(value: object) -> None:
    text = print_attribute(value)  # type: ignore[arg-type]
    again = ValueParser(Lexer(text)).attribute()
    assert (again, repr(again)) == (value, repr(value))


@given(st.integers(0, 2**64 - 1))
def test_float_when_it_has_any_bits_then_keeps_them(bits: int) -> None:
    value = float(np.array(bits, np.uint64).view(np.float64))
    again = ValueParser(Lexer(print_attribute(value))).attribute()
    assert isinstance(again, float)
    assert np.float64(again).tobytes() == np.float64(value).tobytes()


def state_module() -> Module:
    b = FunctionBuilder("main")
    x, state = b.arg(tensor(F32, symbol("N"), 4)), b.arg(tensor(F32, 4))
    weight = b.emit(
        lambda r: GraphNode("constant", (), (r,), {"digest": "sha256:aa", "dtype": F32, "shape": (4,)}), tensor(F32, 4)
    )
    total = b.emit(lambda r: GraphNode("add", (state, weight), (r,)), tensor(F32, 4))
    result = b.emit(lambda r: GraphNode("add", (x, total), (r,)), tensor(F32, symbol("N"), 4), Span("add_1"))
    main = b.finish([result, total])
    other = replace(main, name="second")
    return Module(
        {"main": main, "decode": other},
        {"sha256:aa": np.ones(4, np.float32)},
        {"N": (1, None), "K": (None, 8)},
        {"main": ("x", "h"), "decode": ("x", "h 2")},
        {"main": ("y", "h"), "decode": ("y", "h")},
        {"main": (StatePair(main.args[1], main.results[1]),)},
        {"sha256:aa": "weight"},
        ((symbol("N") * 2, "==", symbol("K"), 'twice "N" is K'), (symbol("K"), ">=", 3, "at least 3")),
    )


def test_module_when_printed_then_parses_equal() -> None:
    module = state_module()
    text = graph_text.print_module(module, locations=True)
    again = graph_text.parse_module(text, module.constants)
    assert graph_text.print_module(again, locations=True) == text
    assert list(again.entries) == ["main", "decode"]
    assert (dict(again.dims), again.input_names, again.constant_names) == (
        dict(module.dims),
        module.input_names,
        module.constant_names,
    )
    assert again.guards == module.guards
    (pair,) = again.states["main"]
    main = again.entries["main"]
    assert (pair.incoming, pair.outgoing) == (main.args[1], main.results[1])
    xdsl_reads(text)


def test_module_when_a_constant_is_not_given_then_is_refused() -> None:
    with pytest.raises(TextError, match="sha256:aa"):
        graph_text.parse_module(graph_text.print_module(state_module()), {})


@given(functions.target_functions())
@settings(max_examples=5)
def test_variant_when_printed_then_parses_equal(kernel: Function) -> None:
    n = symbol("N")
    launch = Launch("kernel", n * 2, (Buffer("input"), Buffer("arena", 0, n * 64)), (n,), 3)
    apart = Apart(Buffer("input", 1), Buffer("output"), Region((), (replace(launch, node=4),)))
    entry = Entry("main", ("N",), (Guard(n, "le", 128, 0), apart, launch), n * 64 + 64, ((n, 4), ()))
    variant = Variant((entry, replace(entry, name="decode", nodes=())), (kernel,), 2)
    text = target_text.print_variant(variant)
    again = target_text.parse_variant(text)
    assert target_text.print_variant(again) == text
    assert again.entries[0].outputs == entry.outputs
    assert again.entries[0].arena_bytes == entry.arena_bytes
    assert hash_function(again.kernels[0]) == hash_function(kernel)
    assert target_text.print_entry(target_text.parse_entry(target_text.print_entry(entry))) in text.replace(
        "\n  ", "\n"
    )
    xdsl_reads(text)


FUNC = '"tgraph.func"() <{sym_name = "f"}> ({\n'
WRONG = {
    "character": ("§", "not a token", "1:1"),
    "value": (FUNC + '  "tgraph.return"(%0) : (f32) -> ()\n}) : () -> ()', "%0 is not defined here", "2:19"),
    "twice": (FUNC + "^bb0(%0: f32, %0: f32):\n}) : () -> ()", "%0 is defined twice", "2:15"),
    "terminator": (FUNC + "}) : () -> ()", "ends in", "1:1"),
    "type": (FUNC + '^bb0(%0: f32):\n "tgraph.return"(%0) : (f64) -> ()\n}) : () -> ()', "an operand is f32", "3:2"),
    "dtype": (FUNC + "^bb0(%0: f33):", "f33 is not an element type", "2:10"),
    "extent": (FUNC + '^bb0(%0: tensor<?xf32>):\n "tgraph.return"() : () -> ()\n}) : () -> ()', "no extent", "1:1"),
    "class": (
        FUNC + ' "ttile.wait"() <{pending = 0}> : () -> ()\n "tgraph.return"() : () -> ()\n}) : () -> ()',
        "level",
        "2:2",
    ),
    "key": ('"tgraph.func"() <{a = 1, a = 2}>', "given twice", "1:32"),
    "end": ('"tgraph.func"() <{', "a word belongs here", "1:19"),
    "rest": (FUNC + ' "tgraph.return"() : () -> ()\n}) : () -> ()\n"x"', "ends after", "4:1"),
    "dim": ('"tgraph.func"() <{a = #tessera.dim<"N+">}>', "dimension expression", "1:36"),
    "utf8": (r'"\FF"() : () -> ()', "not UTF-8", "1:1"),
    "escape": (r'"\q"() : () -> ()', "escape", "1:1"),
    "deep": ('"a"() <{a = ' + "[" * 100, "levels of nesting", "1:76"),
    "large": ('"a"() <{a = ' + "9" * 5000, "64 bits", "1:13"),
}


@pytest.mark.errors
@pytest.mark.parametrize("case", WRONG)
def test_text_when_wrong_then_error_points_at_it(case: str) -> None:
    text, message, where = WRONG[case]
    with pytest.raises(TextError, match=message) as caught:
        graph_text.parse_function(text)
    assert caught.value.where == where
    line, caret = caught.value.message.splitlines()[-2:]
    assert caret.strip() == "^"
    assert len(line) < 200


@given(functions.tile_functions(), st.data())
@settings(max_examples=60)
def test_text_when_damaged_then_parses_or_raises_text_error(function: Function, data: st.DataObject) -> None:
    text = tile_text.print_function(function)
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start, min(len(text), start + 5)))
    damaged = text[:start] + data.draw(st.text(max_size=3)) + text[end:]
    with contextlib.suppress(TextError):
        tile_text.parse_function(damaged)


def test_float_attribute_when_infinite_then_prints_bits() -> None:
    assert print_attribute(math.inf) == "0x7FF0000000000000 : f64"
    assert print_attribute(1e16) == "1.0e+16"
    with pytest.raises(ValueError, match="64 bits"):
        print_attribute(2**64)


def test_locations_when_printed_then_xdsl_reads_them() -> None:
    b = FunctionBuilder("f")
    x = b.arg(tensor(F32))
    b.emit(lambda r: GraphNode("neg", (x,), (r,)), tensor(F32), Span("model.py", 3, 4))
    b.emit(lambda r: GraphNode("abs", (x,), (r,)), tensor(F32), Span("conv1/Relu"))
    text = graph_text.print_function(b.finish([]), locations=True)
    assert 'loc("model.py":3:4)' in text
    assert 'loc("conv1/Relu")' in text
    xdsl_reads(text)


def test_text_when_values_are_renumbered_then_is_the_same() -> None:
    def build(waste: int) -> Function:
        b = FunctionBuilder("f")
        x = b.arg(tensor(I64, 2))
        b.values([tensor(I64, 2)] * waste)
        y = b.emit(lambda r: GraphNode("neg", (x,), (r,)), tensor(I64, 2))
        return b.finish([y])

    assert graph_text.print_function(build(0)) == graph_text.print_function(build(5))
