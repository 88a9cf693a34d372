"""Tasks that exchange axes: the same elements for any shape, order of axes and element type, and code without gathers.

Transpositions move bits, so results are compared byte by byte with numpy; with arithmetic fused to them the sum has
one rounding in numpy as well. The assembly is that of the kernels that a build for x86-64-v4 or v3 would contain.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tessera_build.backends.llvm.emit_kernel import kernel_ir
from tessera_build.backends.llvm.objects import assembly
from tessera_build.backends.llvm.variant import codegen_options
from tessera_build.config import load_target
from tessera_build.driver.machine import machine_of, options_of
from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.node import walk
from tessera_build.ir.core.types import BF16, BOOL, F16, F32, F64, I4, I8, I16, I32, I64, U8, DType, tensor
from tessera_build.ir.graph.builder import GraphBuilder, graph_nodes
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.passes.store_transposed import StoreTransposed
from tessera_build.ir.tile.nodes import View
from tessera_build.lower.program.assemble import lower_module
from tests.lower.compiled import check_module, compile_module
from tests.lower.execution import AVX2, AVX512
from tests.lower.tile_programs import Program, check

_SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
_TYPES = (F32, F64, I64, I32, I16, I8, U8, I4, BOOL, F16, BF16)
_EXTENTS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 23, 33, 40)


def _random(shape: Sequence[int], dtype: DType, seed: int = 0) -> Array:
    numbers = np.random.default_rng(seed).integers(-120, 120, shape)
    if dtype == BOOL:
        return np.greater(numbers, 0)
    return (numbers % 8 - 4 if dtype == I4 else numbers).astype(dtype.numpy)


def _transposition(dtype: DType, shape: Sequence[int], perm: Sequence[int], dynamic: Sequence[int] = ()) -> Module:
    b = GraphBuilder(dims={f"D{axis}": (1, None) for axis in dynamic})
    extents = [symbol(f"D{axis}") if axis in dynamic else extent for axis, extent in enumerate(shape)]
    b.output("y", b.op("transpose", b.input("x", tensor(dtype, *extents)), perm=tuple(perm)))
    return b.finish()


def _same(found: Array, expected: Array) -> None:
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("machine", [AVX512, AVX2], ids=["avx512", "avx2"])
def test_transpose_when_shape_order_and_type_are_random_then_elements_are_numpys(machine: object) -> None:
    chosen = AVX512 if machine is AVX512 else AVX2

    @settings(_SETTINGS, max_examples=30)
    @given(st.data())
    def moved(data: st.DataObject) -> None:
        shape = data.draw(st.lists(st.sampled_from(_EXTENTS), min_size=2, max_size=4))
        perm = data.draw(st.permutations(range(len(shape))))
        x = _random(shape, data.draw(st.sampled_from(_TYPES)))
        dtype = next(t for t in _TYPES if t.numpy == x.dtype)
        found = compile_module(_transposition(dtype, shape, perm), chosen).run({"x": x}, {}, threads=2)["y"]
        _same(found, np.ascontiguousarray(x.transpose(perm)))

    moved()


@pytest.mark.parametrize("perm", [(0, 2, 1), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("dynamic", [(1,), (2,), (1, 2), (0, 1, 2)])
def test_transpose_when_extents_are_dynamic_then_small_and_large_ones_are_exact(
    perm: tuple[int, ...], dynamic: tuple[int, ...]
) -> None:
    known = (2, 24, 19)
    compiled = compile_module(_transposition(F32, known, perm, dynamic))
    for changed in ((2, 24, 19), (1, 3, 40), (3, 40, 3), (2, 1, 1), (20, 17, 16), (5, 150, 301)):
        shape = [c if axis in dynamic else k for axis, (c, k) in enumerate(zip(changed, known, strict=True))]
        x = _random(shape, F32)
        found = compiled.run({"x": x}, {f"D{axis}": shape[axis] for axis in dynamic}, threads=2)["y"]
        _same(found, np.ascontiguousarray(x.transpose(perm)))


@pytest.mark.parametrize("perm", [(0, 3, 1, 2), (0, 2, 3, 1), (3, 0, 1, 2), (2, 3, 0, 1)])
def test_transpose_when_axes_move_together_then_small_dynamic_ones_share_tiles(perm: tuple[int, ...]) -> None:
    compiled = compile_module(_transposition(F32, (2, 7, 9, 24), perm, (1, 2)))
    for rows, columns in ((7, 9), (1, 1), (16, 3), (40, 33)):
        x = _random((2, rows, columns, 24), F32)
        found = compiled.run({"x": x}, {"D1": rows, "D2": columns}, threads=2)["y"]
        _same(found, np.ascontiguousarray(x.transpose(perm)))


@pytest.mark.parametrize("shape", [(300, 500), (16, 5000), (5000, 16), (3, 20000), (20000, 3)])
def test_transpose_when_a_matrix_is_large_then_its_blocks_cover_it(shape: tuple[int, int]) -> None:
    x = _random(shape, I32)
    found = compile_module(_transposition(I32, shape, (1, 0))).run({"x": x}, {}, threads=2)["y"]
    _same(found, np.ascontiguousarray(x.T))


@pytest.mark.parametrize("dtype", [F64, I16, I8, F16, BOOL])
@pytest.mark.parametrize("shape", [(16, 16), (4, 20), (20, 3)])
def test_permute_when_a_matrix_of_any_type_is_transposed_then_elements_follow(
    shape: tuple[int, int], dtype: DType, tmp_path: Path
) -> None:
    p = Program()
    p.put(p.permute(p.whole(p.buffer(*shape, dtype=dtype)), (1, 0)))
    function = p.finish()
    for machine in (AVX512, AVX2):
        check(function, tmp_path, machine)


@pytest.mark.parametrize("dtype", [F32, F64, I8, I16, F16, BOOL])
@pytest.mark.parametrize("step", [2, 3, 4, 5])
def test_slice_when_it_takes_every_nth_element_then_each_is_its_own(step: int, dtype: DType) -> None:
    b, extent = GraphBuilder(), 16 * step * 3 + 5  # whole vectors and a rest
    x = b.input("x", tensor(dtype, 5, extent))
    b.output("y", b.op("slice", x, starts=(0, 1), stops=(5, extent), steps=(1, step)))
    values = _random((5, extent), dtype)
    found = compile_module(b.finish()).run({"x": values}, {})["y"]
    _same(found, np.ascontiguousarray(values[:, 1::step]))


def _sum(b: GraphBuilder, sides: tuple[int, int]) -> int:
    """Two transposed operands, one that is not, and a row."""
    rows, columns = sides
    x, y = (b.input(name, tensor(F32, columns, rows)) for name in ("x", "y"))
    total = b.op("add", b.op("transpose", x, perm=(1, 0)), b.input("z", tensor(F32, rows, columns)))
    total = b.op("add", total, b.input("row", tensor(F32, columns)))
    return b.op("add", total, b.op("transpose", y, perm=(1, 0)))


@pytest.mark.parametrize("sides", [(16, 16), (5, 33), (33, 5), (47, 62), (2, 3)])
def test_sum_when_operands_are_transposed_then_bits_are_numpys(sides: tuple[int, int]) -> None:
    b = GraphBuilder()
    rows, columns = sides
    b.output("out", b.op("mul", _sum(b, sides), b.input("column", tensor(F32, rows, 1))))
    rng = np.random.default_rng(1)
    shapes = {"x": (columns, rows), "y": (columns, rows), "z": sides, "row": (columns,), "column": (rows, 1)}
    v = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    found = compile_module(b.finish()).run(v, {})["out"]
    _same(found, ((np.add(np.add(v["x"].T, v["z"]), v["row"])) + v["y"].T) * v["column"])


def _scores(dims: tuple[Extent, int]) -> Module:
    """Queries by transposed keys, both computed."""
    rows, depth = dims
    b = GraphBuilder(dims={"S": (1, None)})
    x = b.input("x", tensor(F32, 1, rows, 3, depth))
    q, k = (b.op("transpose", b.op(name, x), perm=(0, 2, 1, 3)) for name in ("neg", "abs"))
    b.output("y", b.op("matmul", q, k, transpose_b=True))
    return b.finish()


@pytest.mark.parametrize("rows", [1, 5, 16, 50])
def test_product_when_its_second_operand_is_stored_transposed_then_bits_stay(rows: int) -> None:
    for module in (_scores((rows, 24)), _scores((symbol("S"), 24))):
        moved = StoreTransposed().run(module)
        assert [bool(n.attributes["transpose_b"]) for n in graph_nodes(moved.entries["main"]) if n.op == "matmul"] == [
            False
        ]
        x = np.random.default_rng(2).standard_normal((1, rows, 3, 24)).astype(np.float32)
        before, after = (compile_module(m).run({"x": x}, {"S": rows})["y"] for m in (module, moved))
        _same(after, before)


def test_product_when_its_second_operand_was_transposed_before_then_one_transposition_is_left() -> None:
    moved = StoreTransposed().run(_scores((20, 24)))
    orders = [n.attributes["perm"] for n in graph_nodes(moved.entries["main"]) if n.op == "transpose"]
    assert sorted(orders, key=str) == [(0, 2, 1, 3), (0, 2, 3, 1)]


def _texts(module: Module, target: str) -> str:
    """The assembly of all kernels of a module."""
    config = load_target(target)
    options = codegen_options(options_of(config, ()))
    kernels = lower_module(module, machine_of(config)).variant.kernels
    return "\n".join(assembly(kernel_ir(kernel, options, "kernel"), options) for kernel in kernels)


def test_pad_when_most_rows_are_outside_then_loads_stay_in_the_operand_and_whole_axes_are_not_checked() -> None:
    b = GraphBuilder(dims={"N": (1, None)})
    x = b.input("x", tensor(F32, symbol("N"), 4, 128))
    b.output("y", b.op("pad", x, low=(0, 3, 0), high=(0, 900, 0), value=-2.0))
    module = b.finish()
    values = np.random.default_rng(0).standard_normal((2, 4, 128)).astype(np.float32)
    check_module(module, {"x": values}, {"N": 2})
    machine = machine_of(load_target("x86-64-v4"))
    (record,) = lower_module(module, machine).launches[0]
    views = [
        n for n in walk(record.tile_function.nodes) if isinstance(n, View) and n.buffer == record.tile_function.args[0]
    ]
    assert [[axis.checked for axis in view.axes] for view in views] == [[False, True, False]]
    # One choice between the row and the operand's first element; the mask itself is no choice.
    assert re.search(r"\bcmov", _texts(module, "x86-64-v4"))


def _borders(dtype: DType) -> Module:
    return _transposition(dtype, (1, 40, 40, 64), (0, 3, 1, 2))


def _added(_: DType) -> Module:
    b = GraphBuilder()
    b.output("out", _sum(b, (64, 48)))
    return b.finish()


@pytest.mark.parametrize("axis", [1, 2])
def test_softmax_when_its_input_is_transposed_then_no_pass_gathers(axis: int) -> None:
    b = GraphBuilder()
    x = b.op("transpose", b.input("x", tensor(F32, 2, 48, 33)), perm=(0, 2, 1))
    b.output("y", b.op("softmax", b.op("mul", x, b.scalar(0.5, F32)), axis=axis))
    module = b.finish()
    assert "gather" not in _texts(module, "x86-64-v4")
    values = np.random.default_rng(3).standard_normal((2, 48, 33)).astype(np.float32)
    check_module(module, {"x": values}, {})


@pytest.mark.parametrize("queries", [40, 2])
def test_attention_when_keys_are_turned_into_columns_then_nothing_is_gathered(queries: int) -> None:
    b = GraphBuilder()
    q, k, v = (b.input(n, tensor(F32, 1, 3, e, 64)) for n, e in (("q", queries), ("k", 72), ("v", 72)))
    b.output("y", b.op("attention", q, k, v, scale=0.125))
    assert "gather" not in _texts(b.finish(), "x86-64-v4")


@pytest.mark.parametrize("target", ["x86-64-v4", "x86-64-v3"])
def test_slice_when_every_second_element_is_taken_then_loads_are_plain(target: str) -> None:
    b = GraphBuilder()
    x = b.input("x", tensor(F32, 40, 128))
    b.output("y", b.op("slice", x, starts=(0, 0), stops=(40, 128), steps=(1, 2)))
    assert "gather" not in _texts(b.finish(), target)


@pytest.mark.parametrize("target", ["x86-64-v4", "x86-64-v3"])
@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        (_borders, F32),
        (_borders, F64),
        (_borders, I16),
        (_borders, I8),
        (_borders, BOOL),
        (_borders, F16),
        (_added, F32),
    ],
)
def test_transpose_when_compiled_then_shuffles_registers_without_gathers_or_spills(
    make: Callable[[DType], Module], dtype: DType, target: str
) -> None:
    text = _texts(make(dtype), target)
    assert "gather" not in text
    assert not re.search(r"\bv?(pinsr|pextr)", text), "elements move one by one"
    assert re.search(r"\bv?(punpck|unpck|perm|shuf)", text)
    assert not re.search(r"mov[a-z0-9]+\s+%[xyz]mm\d+, -?\d*\(%rsp\)", text), "registers are spilled"
