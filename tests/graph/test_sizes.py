"""Sizes that come from data, in Graph IR: who depends on them, what the reference does, which bounds follow."""

from __future__ import annotations

import numpy as np
import pytest

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import Extent, floordiv, maximum, minimum, mod, symbol
from tessera_build.ir.core.spec import SpecError
from tessera_build.ir.core.types import F32, I64, tensor
from tessera_build.ir.graph import reference
from tessera_build.ir.graph.builder import GraphBuilder, graph_nodes
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.graph.sizes import data_sizes, symbol_ranges, upper_bound
from tessera_build.ir.graph.spec import verify_module
from tessera_build.ir.graph.text import parse_module, print_module

N, ROWS, WIDTH = symbol("N"), symbol("rows"), symbol("width")
X = np.arange(30, dtype=np.float32).reshape(5, 6)


def model(*, guarded: bool = False) -> Module:
    """The first rows of x, doubled, and each row's sum written `width` times; two sizes that nobody needs."""
    builder = GraphBuilder()
    x, counts = builder.input("x", tensor(F32, N, 6)), builder.input("counts", tensor(I64, 2))
    builder.node("sizes", (counts,), {"names": ("rows", "width"), "uppers": (N, -1)})
    first = builder.op("slice", x, starts=(0, 0), stops=(ROWS, 6), steps=(1, 1))
    doubled = builder.op("mul", first, builder.scalar(2.0, first))
    total = builder.op("reduce", doubled, kind="sum", axes=(1,), keepdims=True)
    builder.output("first", doubled)
    builder.output("wide", builder.op("broadcast_to", total, shape=(ROWS, WIDTH)))
    builder.node("sizes", (counts,), {"names": ("unused", "wanted"), "uppers": (N, N)})
    if guarded:
        builder.guard(symbol("wanted"), ">=", 2, "at least two are wanted")
    return builder.finish()


def feeds(rows: int, width: int) -> dict[str, Array]:
    return {"x": X, "counts": np.array([rows, width], np.int64)}


def names_left(module: Module) -> list[str]:
    return list(data_sizes(module.entries["main"]))


@pytest.mark.parametrize(("rows", "width"), [(0, 3), (5, 0), (3, 2)])
def test_reference_when_sizes_are_read_then_shapes_follow(rows: int, width: int) -> None:
    for module in (model(), run_passes(model(), verify_each=True)):
        found = reference.run(module, "main", feeds(rows, width))
        np.testing.assert_array_equal(found["first"], 2 * X[:rows])
        assert found["wide"].shape == (rows, width)
        _, dims = reference.run_with_sizes(module, "main", feeds(rows, width), module.entries["main"].results)
        assert (dims["N"], dims["rows"], dims["width"]) == (5, rows, width)


@pytest.mark.parametrize("rows", [-1, 6])
def test_reference_when_a_size_is_out_of_bounds_then_says_so(rows: int) -> None:
    with pytest.raises(TesseraError, match="out of bounds") as caught:
        reference.run(model(), "main", feeds(rows, 1))
    assert (caught.value.code, caught.value.expected) == ("SIZE_BEYOND_BOUND", "0 to 5")


def test_sizes_when_nobody_mentions_them_then_are_dropped() -> None:
    assert names_left(model()) == ["rows", "width", "unused", "wanted"]
    assert names_left(run_passes(model())) == ["rows", "width"]


def test_sizes_when_a_guard_mentions_them_then_stay_and_it_is_checked() -> None:
    module = run_passes(model(guarded=True), verify_each=True)
    assert names_left(module) == ["rows", "width", "unused", "wanted"]
    reference.run(module, "main", feeds(3, 2))
    with pytest.raises(TesseraError, match="at least two are wanted"):
        reference.run(module, "main", feeds(3, 1))


def test_module_when_printed_then_parses_equal() -> None:
    module = model()
    text = print_module(module)
    assert print_module(parse_module(text, module.constants)) == text


def test_spec_when_a_size_is_mentioned_before_it_is_read_then_refuses() -> None:
    module = model()
    function = module.entries["main"]
    nodes = sorted(graph_nodes(function), key=lambda node: node.op == "sizes")
    moved = type(function)("main", function.args, tuple(nodes), function.results, function.types)
    with pytest.raises(SpecError, match="'rows' is neither a dim"):
        verify_module(
            type(module)({"main": moved}, module.constants, module.dims, module.input_names, module.output_names)
        )


def test_ranges_when_sizes_have_bounds_then_know_them() -> None:
    builder = GraphBuilder(dims={"N": (1, 64)})
    counts = builder.input("counts", tensor(I64, 3))
    builder.input("x", tensor(F32, N))
    builder.node("sizes", (counts,), {"names": ("a", "b", "c"), "uppers": (N * 2, -1, symbol("N") + 1)})
    module = builder.finish()
    assert symbol_ranges(module, module.entries["main"]) == {"N": (1, 64), "a": (0, 128), "b": (0, None), "c": (0, 65)}


A, B, OPEN = symbol("a"), symbol("b"), symbol("open")
BOUNDS: list[tuple[Extent, Extent | None]] = [
    (N * 3 + 1, N * 3 + 1),
    (A, N),
    (A * B * 4, N * N * 4),
    (A + B - 1, N * 2 - 1),
    (A - B, N),
    (N - A, N),
    (minimum(A, 7), minimum(N, 7)),
    (minimum(OPEN, N), N),
    (maximum(A, 7), maximum(N, 7)),
    (floordiv(A + 3, 4), floordiv(N + 3, 4)),
    (mod(OPEN, 8), 7),
    (OPEN, None),
    (A * OPEN, None),
    (N - OPEN, N),
]


@pytest.mark.parametrize(("extent", "expected"), BOUNDS, ids=[str(extent) for extent, _ in BOUNDS])
def test_upper_bound_when_asked_then_is_an_extent_over_dims(extent: Extent, expected: Extent | None) -> None:
    sizes = {"a": N, "b": A, "open": -1}
    ranges = {"N": (1, None), "a": (0, None), "b": (0, None), "open": (0, None)}
    assert upper_bound(extent, sizes, ranges) == expected
