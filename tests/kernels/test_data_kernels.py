"""Kernels whose indices are data: machine code, Tile reference and the graph op's own reference agree bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tessera_build.frontends.onnx.grams import Gram, laid_out
from tessera_build.frontends.onnx.ml.forest import Branch, Leaf, forest
from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import Type, dtype_of, tensor
from tessera_build.ir.graph.infer import complete, infer, op_named
from tessera_build.ir.graph.nodes import Array, Attribute
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.tile.spec import verify
from tessera_build.ir.tile.text import parse_function, print_function
from tessera_build.kernels.subject import KernelSubject
from tessera_build.kernels.table import KERNELS
from tests.lower.tile_programs import MIDDLE, WIDE, check, execute

pytestmark = pytest.mark.numerics
INDEX_OUT_OF_RANGE = 1


@dataclass(frozen=True)
class Case:
    """One call: operands, attributes, and which axes of the operands are dims."""

    op: str
    operands: tuple[Array, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict[str, Attribute])
    dims: Mapping[tuple[int, int], str] = field(default_factory=dict[tuple[int, int], str])

    def sizes(self, symbolic: bool) -> dict[str, int]:
        return {n: self.operands[o].shape[a] for (o, a), n in self.dims.items()} if symbolic else {}

    def types(self, symbolic: bool) -> list[Type]:
        def extent(operand: int, axis: int, size: int) -> Extent:
            name = self.dims.get((operand, axis)) if symbolic else None
            return symbol(name) if name else size

        return [
            tensor(dtype_of(array.dtype), *(extent(o, a, size) for a, size in enumerate(array.shape)))
            for o, array in enumerate(self.operands)
        ]

    def kernel(self, symbolic: bool, lanes: int) -> tuple[Function, tuple[Type, ...]]:
        given, types = complete(op_named(self.op), self.attributes), self.types(symbolic)
        results = infer(self.op, types, given)
        return KERNELS[self.op](KernelSubject(tuple(types), results, given, lanes)), results


def numbers(seed: int, *shape: int) -> Array:
    """Few different numbers, so that there are ties, and a NaN."""
    random = np.random.default_rng(seed)
    x = random.integers(-4, 5, shape).astype(np.float32)
    x.reshape(-1)[random.integers(0, x.size)] = np.nan
    return x


def integers(seed: int, low: int, high: int, *shape: int) -> Array:
    return np.random.default_rng(seed).integers(low, high, shape)


def _boxes(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).random((*shape, 4)).astype(np.float32)


def _trees(columns: int, leaves: int, modes: Sequence[str], targets: int = 1) -> tuple[list[Branch | Leaf], list[int]]:
    """Ten trees whose conditions compare small integers with small integers; the last one is a leaf alone."""
    random = np.random.default_rng(columns + leaves)
    nodes: list[Branch | Leaf] = []
    roots: list[int] = []

    def grow(room: int) -> int:
        place = len(nodes)
        if room == 1:
            nodes.append(Leaf(tuple((t, float(random.integers(-9, 9))) for t in range(targets))))
            return place
        nodes.append(Leaf(()))
        true = int(random.integers(1, room))
        mode, tracked = modes[int(random.integers(len(modes)))], bool(random.integers(2))
        children = grow(true), grow(room - true)
        nodes[place] = Branch(int(random.integers(columns)), mode, float(random.integers(-3, 4)), *children, tracked)
        return place

    for room in (leaves, 3, leaves // 2, 7, 2, leaves, 5, 9, leaves - 1, 1):
        roots.append(grow(room))
    return nodes, roots


def _walked(columns: int, leaves: int, modes: Sequence[str], targets: int = 1, aggregate: str = "sum") -> Case:
    nodes, roots = _trees(columns, leaves, modes, targets)
    grown = forest(nodes, roots, targets, aggregate, np.dtype(np.float32))
    assert grown.attributes["masks"] == (leaves <= 64 and columns < 100 and "BRANCH_EQ" not in modes)
    rows = numbers(0, 23 if targets < 100 else 2, columns + 1)
    return Case("tree_ensemble", (rows, *grown.tables), grown.attributes, {(0, 0): "n"})


def _counted(*, last: bool) -> Case:
    """Sequences of one to three of five tokens, some of which share a column."""
    random = np.random.default_rng(3)
    pool = sorted({tuple(random.integers(0, 5, length).tolist()) for length in (1, 2, 3) for _ in range(12)})
    grams = [Gram(tokens, int(random.integers(0, 20)), float(i)) for i, tokens in enumerate(pool)]
    x = random.integers(0, 6, (7, 13)).astype(np.int32)
    attributes: dict[str, Attribute] = {"width": 20, "longest": 3, "strides": 3, "last": last}
    return Case("count_grams", (x, *laid_out(grams, 5)), attributes, {(0, 0): "n", (0, 1): "c"})


def _matrices(*shape: int) -> Array:
    """Matrices, of which the last one is singular."""
    x = np.random.default_rng(shape[1]).standard_normal(shape).astype(np.float32)
    x[-1, 3] = 0
    return x


def _sampled(kind: str) -> Case:
    """Regions in and around images, one of them without samples."""
    random = np.random.default_rng(5)
    starts, sizes = (random.uniform(-2, high, (4, 2)).astype(np.float32) for high in (6, 3))
    x = random.integers(-9, 9, (2, 5, 7, 70)).astype(np.float32)
    counts = np.array([[1, 2], [3, 1], [0, 2], [2, 2]])
    attributes: dict[str, Attribute] = {"kind": kind, "bins": (3, 2)}
    dims = {(0, 1): "h", (0, 3): "c", **dict.fromkeys(((1, 0), (2, 0), (3, 0), (4, 0)), "r")}
    return Case("sample_regions", (x, integers(1, 0, 2, 4), starts, sizes, counts), attributes, dims)


ORDERED = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GT", "BRANCH_GTE")

CASES: dict[str, Callable[[], Case]] = {
    "scatter_elements": lambda: Case(
        "scatter_elements",
        (numbers(0, 3, 5, 4), integers(1, -5, 5, 3, 7, 4), numbers(2, 3, 7, 4)),
        {"axis": 1, "reduction": "none"},
        {(0, 0): "a", (0, 1): "n", (1, 0): "a", (2, 0): "a", (0, 2): "c", (1, 2): "c", (2, 2): "c"},
    ),
    "scatter_elements that adds": lambda: Case(
        "scatter_elements",
        (integers(0, 0, 9, 6), integers(1, -6, 6, 20), integers(2, 0, 9, 20)),
        {"axis": 0, "reduction": "add"},
    ),
    "scatter_nd": lambda: Case(
        "scatter_nd",
        (
            integers(0, 0, 9, 3, 4, 70),
            np.stack([integers(1, -3, 3, 9), integers(2, -4, 4, 9)], 1),
            integers(3, 0, 9, 9, 70),
        ),
        {"reduction": "max"},
        {(1, 0): "m", (2, 0): "m", (0, 2): "c", (2, 1): "c"},
    ),
    "scatter_rows": lambda: Case(
        "scatter_rows",
        (numbers(0, 2, 3, 6, 5), numbers(1, 2, 3, 4, 5), np.array([5, 1])),
        {"circular": True},
        {(0, 2): "s", (1, 2): "t"},
    ),
    "top_k by keys": lambda: Case("top_k", (numbers(0, 2, 150),), {"k": 37, "largest": True}, {(0, 1): "n"}),
    "top_k of all": lambda: Case("top_k", (numbers(1, 3, 77),), {"k": 77, "largest": False}, {(0, 0): "r"}),
    "top_k of one": lambda: Case("top_k", (numbers(2, 3, 40),), {"k": 1, "largest": False}, {(0, 1): "n"}),
    "top_k by columns": lambda: Case("top_k", (numbers(4, 23, 9),), {"k": 3, "largest": True}, {(0, 0): "r"}),
    "top_k of few rows by columns": lambda: Case(
        "top_k", (numbers(5, 18, 5),), {"k": 5, "largest": False}, {(0, 0): "r"}
    ),
    "top_k by pairs": lambda: Case("top_k", (integers(3, -9, 9, 2, 90),), {"k": 21, "largest": True}, {(0, 1): "n"}),
    "look_up": lambda: Case(
        "look_up",
        (integers(0, 0, 30, 41), np.array([1, 4, 9, 16, 25]), numbers(1, 5), np.asarray(-1, np.float32)),
        {},
        {(0, 0): "n"},
    ),
    "trees with equalities": lambda: _walked(5, 40, (*ORDERED, "BRANCH_EQ", "BRANCH_NEQ")),
    "trees of few leaves": lambda: _walked(5, 32, ORDERED),
    "trees of 64 leaves": lambda: _walked(5, 64, ORDERED, aggregate="max"),
    "trees of many leaves": lambda: _walked(5, 90, ORDERED, targets=3),
    "trees over many columns": lambda: _walked(600, 40, ORDERED, aggregate="min"),
    "trees for several targets": lambda: _walked(5, 32, ORDERED, targets=3),
    "trees for many targets": lambda: _walked(5, 12, ORDERED, targets=300),
    "non_zero": lambda: Case("non_zero", (integers(0, 0, 2, 83).astype(np.bool_),), {}, {(0, 0): "n"}),
    "groups": lambda: Case(
        "groups",
        (np.array([1, 0, 0, 1, 1, 0], np.bool_), np.array([3, 4, 5, 0, 1, 2])),
        {},
        {(0, 0): "n", (1, 0): "n"},
    ),
    "sort_rows": lambda: Case("sort_rows", (integers(0, 0, 2, 19, 3),), {}, {(0, 0): "n", (0, 1): "w"}),
    "suppress": lambda: Case(
        "suppress",
        (
            _boxes(0, 2, 33),
            np.round(np.random.default_rng(1).random((2, 3, 33)), 1).astype(np.float32),
            np.asarray(7),
            np.asarray(0.3, np.float32),
            np.asarray(0.2, np.float32),
        ),
        {"centred": False},
        {(0, 1): "n", (1, 2): "n", (1, 1): "c"},
    ),
    "sample_regions": lambda: _sampled("avg"),
    "sample_regions by maximum": lambda: _sampled("max"),
    "max_regions": lambda: Case(
        "max_regions",
        (
            numbers(0, 2, 5, 7, 70),
            integers(1, 0, 2, 4),
            np.sort(integers(2, 0, 6, 4, 3, 2), 2),
            np.sort(integers(3, 0, 8, 4, 2, 2), 2),
        ),
        {},
        {(1, 0): "r", (2, 0): "r", (3, 0): "r", (0, 1): "h", (0, 3): "c"},
    ),
    "determinant": lambda: Case("determinant", (_matrices(2, 19, 19),), {}, {(0, 0): "b", (0, 1): "n", (0, 2): "n"}),
    "solve": lambda: Case(
        "solve",
        (_matrices(3, 21, 21), _matrices(3, 21, 5)),
        {},
        {(0, 1): "n", (0, 2): "n", (1, 1): "n", (1, 2): "m"},
    ),
    "count_grams": lambda: _counted(last=False),
    "count_grams by their last weight": lambda: _counted(last=True),
    "listed": lambda: Case(
        "listed",
        (integers(0, 0, 9, 2, 3, 5), integers(1, 0, 5, 2, 3)),
        {"most": 4},
        {(0, 1): "c", (1, 1): "c"},
    ),
}


def expected_results(case: Case, sizes: Mapping[str, int]) -> tuple[Array, ...]:
    op = op_named(case.op)
    assert op.evaluate is not None
    return op.evaluate(case.operands, complete(op, case.attributes), sizes)


@pytest.mark.parametrize("symbolic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", CASES)
def test_kernel_when_compiled_then_agrees_with_both_references(name: str, symbolic: bool, tmp_path: Path) -> None:
    case = CASES[name]()
    sizes = case.sizes(symbolic)
    function, results = case.kernel(symbolic, WIDE.lanes)
    verify(function)
    assert print_function(parse_function(print_function(function))) == print_function(function)
    wanted = expected_results(case, sizes)
    outputs = [np.zeros(w.shape, t.dtype.numpy) for w, t in zip(wanted, results, strict=True)]
    buffers = [*(a.copy() for a in case.operands), *outputs]
    assert execute(function, tmp_path, WIDE, buffers, sizes) == 0
    for found, reference in zip(outputs, wanted, strict=True):
        np.testing.assert_array_equal(found, reference)
    check(function, tmp_path, WIDE, sizes, [*case.operands, *(np.zeros_like(o) for o in outputs)])


@pytest.mark.parametrize("name", ["top_k by keys", "top_k of all", "trees of 64 leaves", "suppress"])
def test_kernel_when_vectors_are_shorter_then_gives_the_same(name: str, tmp_path: Path) -> None:
    machine: CpuMachine = MIDDLE
    case = CASES[name]()
    function, _ = case.kernel(False, machine.lanes)
    wanted = expected_results(case, {})
    outputs = [np.zeros_like(w) for w in wanted]
    assert execute(function, tmp_path, machine, [*case.operands, *outputs], {}) == 0
    for found, reference in zip(outputs, wanted, strict=True):
        np.testing.assert_array_equal(found, reference)


OUTSIDE: dict[str, Sequence[Array]] = {
    "scatter_elements that adds": (integers(0, 0, 9, 6), np.array([0, 6]), np.array([1, 1])),
    "scatter_rows": (numbers(0, 2, 3, 6, 5), numbers(1, 2, 3, 4, 5), np.array([5, -1])),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_scatter_when_an_index_is_outside_then_ends_with_a_status(name: str, tmp_path: Path) -> None:
    given = CASES[name]()
    case = Case(given.op, tuple(OUTSIDE[name]), given.attributes)
    function, _ = case.kernel(False, WIDE.lanes)
    out = np.zeros_like(case.operands[0])
    assert execute(function, tmp_path, WIDE, [*case.operands, out], {}) == INDEX_OUT_OF_RANGE
    with pytest.raises(Exception, match="outside"):
        expected_results(case, {})


@pytest.mark.parametrize("extent", [1, 2, 3, 15, 16, 17, 31, 33, 64, 100, 255, 1000])
@pytest.mark.parametrize("symbolic", [False, True], ids=["static", "dynamic"])
def test_network_when_lengths_differ_then_sorts_stably(extent: int, symbolic: bool, tmp_path: Path) -> None:
    x = np.random.default_rng(extent).integers(0, max(extent // 3, 2), (1, extent)).astype(np.int32)
    k: Attribute = symbol("n") if symbolic else extent
    case = Case("top_k", (x,), {"k": k, "largest": True}, {(0, 1): "n"})
    function, _ = case.kernel(symbolic, WIDE.lanes)
    values, places = np.zeros_like(x), np.zeros(x.shape, np.int64)
    assert execute(function, tmp_path, WIDE, [x, values, places], case.sizes(symbolic)) == 0
    wanted = np.argsort(-x[0], kind="stable")
    np.testing.assert_array_equal(places[0], wanted)
    np.testing.assert_array_equal(values[0], x[0][wanted])


def test_chances_of_pairs_when_coupled_then_agree_best(tmp_path: Path) -> None:
    r = np.random.default_rng(3).uniform(0.05, 0.95, (4, 3, 3)).astype(np.float32)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        r[:, j, i] = 1 - r[:, i, j]
    case = Case("coupled", (r,), {}, {(0, 0): "n"})
    function, _ = case.kernel(True, WIDE.lanes)
    verify(function)
    out = np.zeros((4, 3), np.float32)
    check(function, tmp_path, WIDE, case.sizes(True), [r, out])
    assert execute(function, tmp_path, WIDE, [r, out], case.sizes(True)) == 0
    (wanted,) = expected_results(case, {})
    np.testing.assert_allclose(out.astype(np.float64), wanted.astype(np.float64), atol=1e-5)
    np.testing.assert_allclose(out.sum(1), 1, atol=1e-5)
