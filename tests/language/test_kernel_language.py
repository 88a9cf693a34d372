"""The kernel language: Python syntax becomes unbound Tile IR, and misuse is refused with the author's line."""

from __future__ import annotations

import numpy as np
import pytest

from tessera.errors import KernelError
from tessera.kernel import kernel
from tessera.tile import Carry, TileBuilder
from tessera.values import Buffer
from tessera_build.ir.core.dims import floordiv, symbol
from tessera_build.ir.core.types import BF16, F32, I64, memref
from tessera_build.ir.tile import nodes as t
from tessera_build.ir.tile.reference import TileError, run
from tessera_build.ir.tile.spec import verify

N = symbol("n")


@pytest.mark.unit
def test_operators_when_chained_then_join_into_one_map_and_keep_their_order() -> None:
    @kernel(x=memref(F32, 8), out=memref(F32, 8))
    def chain(tile: TileBuilder, x: Buffer, out: Buffer) -> None:
        loaded = tile.load(x[:])
        tile.store(out[:], 1.0 - (loaded * 3.0 + loaded) / 7.0)

    (joined,) = (n for n in chain.walk() if isinstance(n, t.Map))
    assert [op.name for op in joined.program.ops if op.name != "const"] == ["mul", "add", "div", "sub"]
    x, out = np.linspace(-1, 1, 8, dtype=np.float32), np.zeros(8, np.float32)
    run(chain, [x, out], {})
    three, seven, one = np.float32(3), np.float32(7), np.float32(1)
    assert np.array_equal(out, one - (x * three + x) / seven)


@pytest.mark.unit
def test_value_when_used_twice_then_is_computed_once() -> None:
    @kernel(x=memref(F32, 8), out=memref(F32, 8))
    def twice(tile: TileBuilder, x: Buffer, out: Buffer) -> None:
        shared = tile.exp(tile.load(x[:]))
        tile.store(out[:], (shared + 1.0) * shared)

    names = [op.name for n in twice.walk() if isinstance(n, t.Map) for op in n.program.ops]
    assert names.count("exp") == 1


@pytest.mark.unit
@pytest.mark.parametrize(
    ("extent", "step", "offset", "checked"),
    [(64, 16, 0, False), (65, 16, 0, True), (N, 1, 0, True), (64, 16, 1, True), (48, 16, 16, False)],
)
def test_slice_when_it_may_leave_the_buffer_then_is_checked(extent: int, step: int, offset: int, checked: bool) -> None:
    @kernel(x=memref(F32, 64), out=memref(F32, 16))
    def read(tile: TileBuilder, x: Buffer, out: Buffer) -> None:
        for i in tile.range(extent, step):
            tile.store(out[:], tile.load(x[i + offset : i + offset + 16]))

    view = next(n for n in read.walk() if isinstance(n, t.View) and n.buffer == read.args[0])
    assert view.axes == (t.ViewAxis(0, 1, checked),)


@pytest.mark.unit
def test_loop_when_it_has_one_turn_then_leaves_no_loop() -> None:
    @kernel(x=memref(F32, 8), out=memref(F32, 8))
    def once(tile: TileBuilder, x: Buffer, out: Buffer) -> None:
        for i in tile.range(8, 8):
            tile.store(out[i : i + 8], tile.load(x[i : i + 8]))

    assert not [n for n in once.walk() if isinstance(n, t.For)]


@pytest.mark.unit
def test_kernel_when_traced_then_is_legal_unbound_and_knows_its_lines_and_dims() -> None:
    heads = symbol("heads")

    @kernel(x=memref(F32, N, 8), out=memref(F32, N, 8))
    def pick(tile: TileBuilder, x: Buffer, out: Buffer) -> None:
        for i in tile.range(N):
            tile.store(out[i, :], tile.load(x[floordiv(i, heads), :]))

    verify(pick)
    assert pick.attributes["dims"] == ("n", "heads")
    assert all(getattr(n, "binding", None) is None for n in pick.walk())
    assert {span.origin for span in pick.locations.values()} == {"test_kernel_language.py"}
    assert all(node in pick.locations for node in pick.walk())


@pytest.mark.errors
def test_carry_when_its_type_changes_then_refuses() -> None:
    with pytest.raises(KernelError, match="changes the type of 'total'") as caught:

        @kernel(x=memref(F32, N), out=memref(F32, 1))
        def grow(tile: TileBuilder, x: Buffer, out: Buffer) -> None:
            state = Carry(total=tile.zeros((1,), F32))
            for i in tile.range(N, 4, carry=state):
                state.total = tile.load(x[i : i + 4])

    assert "test_kernel_language.py" in str(caught.value)


@pytest.mark.errors
def test_slice_when_its_length_is_symbolic_then_refuses() -> None:
    with pytest.raises(KernelError, match="static, positive length"):

        @kernel(x=memref(F32, N), out=memref(F32, N))
        def whole(tile: TileBuilder, x: Buffer, out: Buffer) -> None:
            tile.store(out[:], tile.load(x[:]))


@pytest.mark.errors
def test_operator_when_element_types_differ_then_refuses() -> None:
    with pytest.raises(KernelError, match="two element types"):

        @kernel(x=memref(F32, 4), y=memref(BF16, 4), out=memref(F32, 4))
        def mixed(tile: TileBuilder, x: Buffer, y: Buffer, out: Buffer) -> None:
            tile.store(out[:], tile.load(x[:]) + tile.load(y[:]))


@pytest.mark.errors
def test_shapes_when_they_do_not_broadcast_then_refuses() -> None:
    with pytest.raises(KernelError, match="do not broadcast"):

        @kernel(x=memref(F32, 8), out=memref(F32, 8))
        def uneven(tile: TileBuilder, x: Buffer, out: Buffer) -> None:
            tile.store(out[:], tile.load(x[:]) + tile.load(x[0:3]))


@pytest.mark.errors
def test_dot_when_an_axis_differs_then_names_it() -> None:
    with pytest.raises(KernelError, match="axis 'k'"):

        @kernel(x=memref(F32, 8, 8), out=memref(F32, 8, 8))
        def product(tile: TileBuilder, x: Buffer, out: Buffer) -> None:
            tile.store(out[:, :], tile.dot(tile.zeros((8, 8), F32), x[:, 0:4], x[:, :], "mk,kn->mn"))


@pytest.mark.errors
def test_index_when_an_axis_is_missing_then_refuses() -> None:
    with pytest.raises(KernelError, match="number of indices"):

        @kernel(x=memref(F32, 8, 8), out=memref(F32, 8))
        def short(tile: TileBuilder, x: Buffer, out: Buffer) -> None:
            tile.store(out[:], tile.load(x[:]))


@pytest.mark.errors
def test_store_when_shapes_differ_then_refuses() -> None:
    with pytest.raises(KernelError, match="another shape or type"):

        @kernel(x=memref(F32, 8), out=memref(F32, 8))
        def part(tile: TileBuilder, x: Buffer, out: Buffer) -> None:
            tile.store(out[0:4], tile.load(x[:]))


@pytest.mark.unit
def test_index_when_data_is_in_range_then_stands_in_index_expressions() -> None:
    @kernel(x=memref(F32, N), at=memref(I64, 2), out=memref(F32, 2))
    def pick(tile: TileBuilder, x: Buffer, at: Buffer, out: Buffer) -> None:
        for i in tile.range(2):
            j = tile.index(tile.element(at, i), N)
            tile.put(tile.element(x, j), out, i)

    verify(pick)
    assert [n.extent for n in pick.walk() if isinstance(n, t.Let)] == [N]
    loads = [n for n in pick.walk() if isinstance(n, t.View) and n.buffer == pick.args[0]]
    assert not any(axis.checked for view in loads for axis in view.axes), "the range is known, so nothing is checked"
    x, out = np.arange(5, dtype=np.float32), np.zeros(2, np.float32)
    run(pick, [x, np.array([4, 1]), out], {"n": 5})
    assert out.tolist() == [4, 1]
    with pytest.raises(TileError, match="out of range"):
        run(pick, [x, np.array([0, 5]), out], {"n": 5})


@pytest.mark.unit
def test_carry_when_a_condition_and_data_decide_then_values_pass_out_of_both() -> None:
    """The largest index found in a list, where negative entries are left out."""

    @kernel(at=memref(I64, N), out=memref(I64, 1))
    def largest(tile: TileBuilder, at: Buffer, out: Buffer) -> None:
        state = Carry(best=tile.constant(-1, I64))
        for i in tile.range(N, carry=state):
            value = tile.element(at, i)
            j = tile.index(tile.map("max", value, tile.constant(0, I64)), 100)
            with tile.when(0, "lt", j, carry=state):
                state.best = tile.map("max", state.best, tile.number(j))
        tile.put(state.best, out, 0)

    verify(largest)
    out = np.zeros(1, np.int64)
    run(largest, [np.array([3, -7, 41, 12]), out], {"n": 4})
    assert out[0] == 41


@pytest.mark.unit
def test_index_tile_when_it_leaves_the_buffer_then_loads_pad_and_stores_do_nothing() -> None:
    @kernel(x=memref(F32, 4, 5), at=memref(I64, 6), out=memref(F32, 6), changed=memref(F32, 5))
    def choose(tile: TileBuilder, x: Buffer, at: Buffer, out: Buffer, changed: Buffer) -> None:
        places = tile.load(at[:])
        tile.store(out[:], tile.load(x[2, places], pad=-1.0))
        tile.store(changed[places], tile.cast(places, F32))

    verify(choose)
    x = np.arange(20, dtype=np.float32).reshape(4, 5)
    out, changed = np.zeros(6, np.float32), np.zeros(5, np.float32)
    run(choose, [x, np.array([0, 4, -1, 5, 2, 2]), out, changed], {})
    assert out.tolist() == [10, 14, -1, -1, 12, 12]
    assert changed.tolist() == [0, 0, 2, 0, 4]


@pytest.mark.errors
def test_index_tile_when_beside_a_slice_then_refuses() -> None:
    with pytest.raises(KernelError, match="beside integers only"):

        @kernel(x=memref(F32, 4, 5), at=memref(I64, 6), out=memref(F32, 6))
        def mixed(tile: TileBuilder, x: Buffer, at: Buffer, out: Buffer) -> None:
            tile.store(out[:], tile.load(x[0:4, tile.load(at[:])]))


@pytest.mark.errors
def test_index_when_the_tile_has_several_elements_then_refuses() -> None:
    with pytest.raises(KernelError, match="an index is one integer"):

        @kernel(at=memref(I64, 6), out=memref(I64, 6))
        def several(tile: TileBuilder, at: Buffer, out: Buffer) -> None:
            tile.put(tile.constant(1, I64), out, tile.index(tile.load(at[:]), 6))
