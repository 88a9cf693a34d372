"""The tile interpreter against numpy, and the erasure invariant.

Takes hand-made and random tile functions. Invariant: bindings never change a bit of the result.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.rewrite import FunctionBuilder
from tessera_build.ir.core.scalar import ScalarBuilder
from tessera_build.ir.core.types import BF16, F16, F32, I8, I32, I64, DType, memref, tile
from tessera_build.ir.tile.erase import strip_bindings
from tessera_build.ir.tile.nodes import (
    Alloc,
    Binding,
    Contract,
    Copy,
    For,
    If,
    Iota,
    Load,
    Reduce,
    Relation,
    Store,
    View,
    ViewAxis,
    Wait,
)
from tessera_build.ir.tile.reference import TileError, interpreted, run
from tessera_build.ir.tile.spec import verify
from tessera_build.ir.tile.text import CLASSES
from tests.ir import functions

pytestmark = pytest.mark.numerics
CHECKED = ViewAxis(0, 1, checked=True)


def arrays(function: Function, dims: dict[str, int], seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    for value in function.args:
        type_ = function.types[value]
        shape = [dims[str(e)] if str(e) in dims else int(str(e)) for e in type_.shape]
        found.append((random.standard_normal(shape) * 4).astype(type_.dtype.numpy))
    return found


@settings(max_examples=60)
@given(functions.tile_functions(), st.integers(1, 9), st.integers(1, 9))
def test_bindings_when_erased_then_result_is_bitwise_the_same(function: Function, m: int, k: int) -> None:
    verify(function)
    erased = strip_bindings(function)
    assert all(getattr(node, "binding", None) is None for node in erased.walk())
    dims = {"M": m, "K": k}
    first, second = arrays(function, dims, m), arrays(function, dims, m)
    run(function, first, dims)
    run(erased, second, dims)
    assert [a.tobytes() for a in first] == [a.tobytes() for a in second]
    assert not np.isnan(first[2].astype(np.float64)).any()


@pytest.mark.parametrize("dtype", [F32, F16, BF16, I32], ids=str)
def test_contract_when_sequential_then_is_one_fma_a_step(dtype: DType) -> None:
    b = FunctionBuilder("f")
    a, w, out = (b.arg(memref(dtype, *s)) for s in ((5, 7), (7, 3), (5, 3)))
    whole = (ViewAxis(0), ViewAxis(1))
    views = [
        b.emit(lambda r, v=v, s=s: View(r, v, (0, 0), whole), memref(dtype, *s))
        for v, s in ((a, (5, 7)), (w, (7, 3)), (out, (5, 3)))
    ]
    start = b.emit(lambda r: Load(r, views[2]), tile(dtype, 5, 3))
    total = b.emit(lambda r: Contract(r, start, views[0], views[1], "mk,kn->mn"), tile(dtype, 5, 3))
    b.add(Store(views[2], total))
    function = b.finish()
    verify(function)
    x, y, z = arrays(function, {}, 3)
    expected = z.copy()
    for step in range(7):
        # Long double holds the product and the sum of small numbers exactly enough to round once.
        exact = x[:, step : step + 1].astype(np.longdouble) * y[step].astype(np.longdouble) + expected
        expected = exact.astype(np.float64).astype(dtype.numpy) if dtype.is_float else exact.astype(np.int32)
    run(function, [x, y, z], {})
    np.testing.assert_array_equal(z.astype(np.float64), expected.astype(np.float64))


def windows(axes: tuple[ViewAxis, ...], offsets: tuple[int, ...], shape: tuple[int, ...], pad: float) -> np.ndarray:
    """The tile that a view of arange(6*7) shows."""
    b = FunctionBuilder("f")
    source, out = b.arg(memref(F32, 6, 7)), b.arg(memref(F32, *shape))
    view = b.emit(lambda r: View(r, source, offsets, axes), memref(F32, *shape))
    loaded = b.emit(lambda r: Load(r, view, pad), tile(F32, *shape))
    everything = tuple(ViewAxis(i) for i in range(len(shape)))
    target = b.emit(lambda r: View(r, out, (0,) * len(shape), everything), memref(F32, *shape))
    b.add(Store(target, loaded))
    result = np.zeros(shape, np.float32)
    run(b.finish(), [np.arange(42, dtype=np.float32).reshape(6, 7), result], {})
    return result


def test_view_when_checked_then_pads_outside() -> None:
    seen = windows((CHECKED, ViewAxis(1, 2)), (-1, 1), (3, 3), -5.0)
    assert seen.tolist() == [[-5, -5, -5], [1, 3, 5], [8, 10, 12]]


def test_view_when_two_axes_walk_one_then_shows_windows() -> None:
    seen = windows((ViewAxis(1), ViewAxis(1, 2), ViewAxis(-1)), (2, 0), (3, 2, 2), 0.0)
    assert seen[:, :, 0].tolist() == [[14, 16], [15, 17], [16, 18]]
    assert (seen[..., 0] == seen[..., 1]).all()


def test_view_when_unchecked_and_outside_then_is_refused() -> None:
    with pytest.raises(TileError, match="leaves the buffer on axis 1") as caught:
        windows((ViewAxis(0), ViewAxis(1)), (0, 5), (2, 3), 0.0)
    assert caught.value.code == "INDEX_OUT_OF_RANGE"
    with pytest.raises(TileError, match="axis 0"):
        windows((ViewAxis(0), ViewAxis(1)), (-1, 0), (2, 3), 0.0)


def gather(indices: list[int], *, checked: bool) -> np.ndarray:
    b = FunctionBuilder("gather")
    table, chosen, out = b.arg(memref(F32, 4, 2)), b.arg(memref(I64, 3)), b.arg(memref(F32, 3, 2))
    picks = b.emit(lambda r: View(r, chosen, (0,), (ViewAxis(0), ViewAxis(-1))), memref(I64, 3, 1))
    rows = b.emit(lambda r: Load(r, picks), tile(I64, 3, 1))
    # A step of 0 is not allowed; a tile axis that checks the gathered axis must walk it, so rows step 0 by `axis` -1.
    axes = (ViewAxis(-1), ViewAxis(1, 1, checked=checked))
    view = b.emit(lambda r: View(r, table, (0, 0), axes, rows, 0), memref(F32, 3, 2))
    loaded = b.emit(lambda r: Load(r, view), tile(F32, 3, 2))
    target = b.emit(lambda r: View(r, out, (0, 0), (ViewAxis(0), ViewAxis(1))), memref(F32, 3, 2))
    b.add(Store(target, loaded))
    function = b.finish()
    verify(function)
    result = np.zeros((3, 2), np.float32)
    run(function, [np.arange(8, dtype=np.float32).reshape(4, 2), np.array(indices), result], {})
    return result


def test_gather_when_indices_inside_then_picks_rows() -> None:
    assert gather([3, 0, 3], checked=False).tolist() == [[6, 7], [0, 1], [6, 7]]


def test_gather_when_index_outside_then_is_refused() -> None:
    with pytest.raises(TileError, match="leaves the buffer on axis 0"):
        gather([3, 4, 0], checked=True)


def reduced(order: str, values: list[float]) -> float:
    b = FunctionBuilder("sum")
    source, out = b.arg(memref(F32, len(values))), b.arg(memref(F32, 1))
    builder = ScalarBuilder([F32, F32])
    program = builder.finish(builder.op("add", 0, 1))
    view = b.emit(lambda r: View(r, source, (0,), (ViewAxis(0),)), memref(F32, len(values)))
    loaded = b.emit(lambda r: Load(r, view), tile(F32, len(values)))
    total = b.emit(lambda r: Reduce((r,), (loaded,), (0,), program, (0.0,), order), tile(F32, 1))
    target = b.emit(lambda r: View(r, out, (0,), (ViewAxis(0),)), memref(F32, 1))
    b.add(Store(target, total))
    function = b.finish()
    verify(function)
    result = np.zeros(1, np.float32)
    run(function, [np.array(values, np.float32), result], {})
    return float(result[0])


def test_reduce_when_order_differs_then_rounds_in_that_order() -> None:
    values = [1e8, 3.0, -1e8, 4.0, 1.0]  # 1e8 + 3 rounds to 1e8
    assert reduced("seq", values) == 5.0
    assert reduced("tree(2)", values) == 8.0  # (1e8 - 1e8 + 1) + (3 + 4)
    assert reduced("tree(4)", values) == 7.0  # ((1e8 + 1) - 1e8) + (3 + 4), and 1e8 + 1 rounds to 1e8


def test_reduce_when_combine_takes_tuples_then_finds_the_first_maximum() -> None:
    b = FunctionBuilder("argmax")
    source, out = b.arg(memref(F32, 6)), b.arg(memref(I32, 1))
    builder = ScalarBuilder([F32, I32, F32, I32])
    later = builder.op("gt", 2, 0)
    program = builder.finish(builder.op("select", later, 2, 0), builder.op("select", later, 3, 1))
    view = b.emit(lambda r: View(r, source, (0,), (ViewAxis(0),)), memref(F32, 6))
    loaded = b.emit(lambda r: Load(r, view), tile(F32, 6))
    numbers = b.emit(lambda r: Iota(r, 0, 0), tile(I32, 6))
    best, where = b.value(tile(F32, 1)), b.value(tile(I32, 1))
    b.add(Reduce((best, where), (loaded, numbers), (0,), program, (float("-inf"), -1.0)))
    target = b.emit(lambda r: View(r, out, (0,), (ViewAxis(0),)), memref(I32, 1))
    b.add(Store(target, where))
    function = b.finish()
    verify(function)
    result = np.zeros(1, np.int32)
    run(function, [np.array([1, 5, 2, 5, 0, 3], np.float32), result], {})
    assert result[0] == 1


def test_scratch_when_copied_through_then_moves_the_domain_only() -> None:
    b = FunctionBuilder("copy")
    source, out = b.arg(memref(I8, symbol("N"))), b.arg(memref(I8, symbol("N")))
    with b.region() as body:
        scratch = b.emit(lambda r: Alloc(r, Binding(space="stack")), memref(I8, 4))
        shown = b.emit(lambda r: View(r, source, (symbol("i"),), (CHECKED,)), memref(I8, 4))
        inside = b.emit(lambda r: View(r, scratch, (0,), (ViewAxis(0),)), memref(I8, 4))
        target = b.emit(lambda r: View(r, out, (symbol("i"),), (CHECKED,)), memref(I8, 4))
        for node in (Copy(shown, inside, 9.0), Wait(0), Copy(inside, target)):
            b.add(node)
    b.add(For((), "i", symbol("N"), 4, (), body.region))
    function = b.finish((), {"dims": ("N",)})
    verify(function)
    data, result = np.arange(10, dtype=np.int8), np.zeros(10, np.int8)
    run(function, [data, result], {"N": 10})
    np.testing.assert_array_equal(result, data)


@pytest.mark.parametrize(
    ("relation", "expected"), [("lt", [1, 1, 0]), ("le", [1, 1, 1]), ("eq", [0, 0, 1]), ("ne", [1, 1, 0])]
)
def test_if_when_relation_holds_then_runs_its_region(relation: Relation, expected: list[int]) -> None:
    b = FunctionBuilder("if")
    out = b.arg(memref(I32, 3))
    with b.region() as body:
        results: list[int] = []
        regions = [b.region(), b.region()]
        made = []
        for value, opened in zip((1, 0), regions, strict=True):
            with opened as inner:
                inner.yields(b.emit(lambda r, v=value: Iota(r, 0, v), tile(I32, 1)))
            made.append(inner.region)
        results.append(b.value(tile(I32, 1)))
        b.add(If((results[0],), symbol("i"), relation, 2, made[0], made[1]))
        target = b.emit(lambda r: View(r, out, (symbol("i"),), (ViewAxis(0),)), memref(I32, 1))
        b.add(Store(target, results[0]))
    b.add(For((), "i", 3, 1, (), body.region))
    function = b.finish()
    verify(function)
    result = np.zeros(3, np.int32)
    run(function, [result], {})
    assert result.tolist() == expected


def test_run_when_buffers_do_not_fit_then_is_refused() -> None:
    b = FunctionBuilder("f")
    b.arg(memref(F32, symbol("N")))
    function = b.finish((), {"dims": ("N",)})
    with pytest.raises(TileError, match="does not fit"):
        run(function, [np.zeros(3, np.float32)], {"N": 4})
    with pytest.raises(TileError, match="no value for N"):
        run(function, [np.zeros(3, np.float32)], {})


def test_interpreter_when_asked_then_covers_every_node_class() -> None:
    assert interpreted() == frozenset(CLASSES.values())


def test_scalar_buffer_when_stored_then_is_written() -> None:
    b = FunctionBuilder("f")
    out = b.arg(memref(I32))
    target = b.emit(lambda r: View(r, out, (), (ViewAxis(-1),)), memref(I32, 1))
    b.add(Store(target, b.emit(lambda r: Iota(r, 0, 7), tile(I32, 1))))
    function = b.finish()
    verify(replace(function, name="scalar"))
    result = np.zeros((), np.int32)
    run(function, [result], {})
    assert result == 7
