"""Products of bytes as machine code: exact on machines with and without an instruction for them.

Takes seeded bytes of the whole range; compares with numpy's int64 sums, bit for bit. Invariant: operands reach the
ends of their ranges, where an instruction that saturates would give another answer.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.types import I8, I32, U8, DType, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.tile import nodes as t
from tessera_build.lower.program.assemble import lower_module
from tests.lower.compiled import compile_module
from tests.lower.execution import run_tiles

WIDE = CpuMachine("words", lanes=16, registers=32, fused=True)
BYTES = CpuMachine("bytes", lanes=16, registers=32, fused=True, byte_products=True)
HALF = CpuMachine("half", lanes=8, registers=16, fused=True)
QUARTER = CpuMachine("quarter", lanes=4, registers=16, fused=False)
MACHINES = {m.name: m for m in (WIDE, BYTES, HALF, QUARTER)}


def _bytes(rng: np.random.Generator, dtype: DType, *shape: int) -> Array:
    """Bytes of the whole range, one in four at an end of it."""
    info = np.iinfo(np.uint8 if dtype == U8 else np.int8)
    values = rng.integers(info.min, info.max + 1, shape)
    ends = rng.choice([info.min, info.max], shape)
    return np.where(rng.random(shape) < 0.25, ends, values).astype(dtype.numpy)


def _runnable(machine: CpuMachine) -> CpuMachine:
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    needed = {"bytes": "avx512_vnni", "words": "avx512bw", "half": "avx2"}.get(machine.name, "sse2")
    if needed not in flags:
        pytest.skip(f"this processor has no {needed}")
    return machine


def _product(weights: Array, m: Extent, flip: bool = False) -> Module:
    b = GraphBuilder(dims={} if isinstance(m, int) else {"N": (1, None)})
    x = b.input("x", tensor(U8, m, weights.shape[1 if flip else 0]))
    b.output("y", b.op("matmul", x, b.constant(weights), transpose_b=flip))
    return b.finish()


def _instructions(module: Module, machine: CpuMachine) -> set[str]:
    lowered = lower_module(module, machine)
    bindings = [n.binding for r in lowered.launches[0] for n in r.tile_function.walk() if isinstance(n, t.Contract)]
    return {b.instruction or "" for b in bindings if b is not None}


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 31, 64, 257])
@pytest.mark.parametrize("name", MACHINES)
def test_matmul_when_operands_are_bytes_then_sums_are_exact(name: str, depth: int) -> None:
    machine, rng = _runnable(MACHINES[name]), np.random.default_rng(depth)
    shapes = ((1, 1), (3, 2), (7, 16), (17, 33), (5, 130))
    b, data, expected = GraphBuilder(), dict[str, Array](), dict[str, Array]()
    for number, (rows, columns) in enumerate(shapes):
        x, w = _bytes(rng, U8, rows, depth), _bytes(rng, I8, depth, columns)
        data[f"x{number}"] = x
        expected[f"y{number}"] = (x.astype(np.int64) @ w.astype(np.int64)).astype(np.int32)
        b.output(f"y{number}", b.op("matmul", b.input(f"x{number}", tensor(U8, rows, depth)), b.constant(w)))
    for label, found in compile_module(b.finish(), machine).run(data, {}).items():
        np.testing.assert_array_equal(found, expected[label])


@pytest.mark.parametrize("name", MACHINES)
def test_matmul_when_every_product_is_largest_then_nothing_saturates(name: str) -> None:
    w = np.full((48, 32), -128, np.int8)
    x = np.full((6, 48), 255, np.uint8)
    found = compile_module(_product(w, 6), _runnable(MACHINES[name])).run({"x": x}, {})["y"]
    np.testing.assert_array_equal(found, np.full((6, 32), 48 * 255 * -128, np.int32))


@pytest.mark.parametrize("flip", [False, True])
def test_matmul_when_rows_are_dynamic_then_every_size_is_exact(flip: bool) -> None:
    rng = np.random.default_rng(3)
    w = _bytes(rng, I8, 50, 37)
    module = _product(w.T.copy() if flip else w, symbol("N"), flip)
    assert _instructions(module, WIDE) == {"dot4"}
    compiled = compile_module(module)
    for rows in (1, 2, 13, 64):
        x = _bytes(rng, U8, rows, 50)
        np.testing.assert_array_equal(
            compiled.run({"x": x}, {"N": rows})["y"], (x.astype(np.int64) @ w.astype(np.int64)).astype(np.int32)
        )


def test_matmul_when_both_are_data_or_signs_differ_then_sums_are_exact_all_the_same() -> None:
    rng = np.random.default_rng(4)
    for left in (U8, I8):
        for right in (U8, I8):
            b = GraphBuilder()
            x, y = b.input("x", tensor(left, 3, 9, 21)), b.input("w", tensor(right, 3, 21, 19))
            b.output("z", b.op("matmul", x, y))
            data = {"x": _bytes(rng, left, 3, 9, 21), "w": _bytes(rng, right, 3, 21, 19)}
            found = compile_module(b.finish()).run(data, {})["z"]
            np.testing.assert_array_equal(found, data["x"].astype(np.int32) @ data["w"].astype(np.int32))


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("channels", [1, 3, 8, 18])
def test_conv_when_operands_are_bytes_then_sums_are_exact(name: str, channels: int) -> None:
    machine, rng = _runnable(MACHINES[name]), np.random.default_rng(channels)
    for groups, strides, low in ((1, (1, 1), (0, 0)), (1, (2, 1), (1, 2)), (2, (1, 2), (1, 0))):
        w = _bytes(rng, I8, 6 * groups, channels, 3, 3)
        b = GraphBuilder()
        x = b.input("x", tensor(U8, 2, 9, 8, channels * groups))
        window = {"strides": strides, "low": low, "high": (1, 0), "dilations": (1, 2)}
        for offset in (0, 1):  # stored borders, and memory without any
            source = b.op("add", x, b.scalar(offset, x)) if offset else x
            b.output(f"y{offset}", b.op("conv", source, b.constant(w), **window, groups=groups, layout="NHWC"))
        module, data = b.finish(), {"x": _bytes(rng, U8, 2, 9, 8, channels * groups)}
        found = compile_module(module, machine).run(data, {})
        tiles, _ = run_tiles(module, data, {}, machine)
        for (label, array), reference in zip(found.items(), tiles, strict=True):
            expected = _convolved(np.add(data["x"], np.uint8(int(label[1:]))), w, strides, low, groups)
            np.testing.assert_array_equal(array, expected)
            np.testing.assert_array_equal(reference, expected)


def _convolved(x: Array, w: Array, strides: tuple[int, int], low: tuple[int, int], groups: int) -> Array:
    """The sums by definition, in int64."""
    padded = np.pad(x.astype(np.int64), [(0, 0), (low[0], 1), (low[1], 0), (0, 0)])
    high, wide = (padded.shape[1] - 3) // strides[0] + 1, (padded.shape[2] - 5) // strides[1] + 1
    outputs, per_group = w.shape[:2]
    total = np.zeros((x.shape[0], high, wide, outputs), np.int64)
    for i in range(3):
        for j in range(3):
            part = padded[:, i : i + strides[0] * high : strides[0], 2 * j : 2 * j + strides[1] * wide : strides[1]]
            part = part[:, :high, :wide].reshape(*part[:, :high, :wide].shape[:3], groups, per_group)
            taps = w[:, :, i, j].astype(np.int64).reshape(groups, outputs // groups, per_group)
            total += np.einsum("nhwgc,goc->nhwgo", part, taps).reshape(total.shape)
    return total.astype(np.int32)


def test_result_type_when_operands_are_bytes_then_it_is_i32() -> None:
    b = GraphBuilder()
    value = b.op("matmul", b.input("x", tensor(U8, 2, 3)), b.input("w", tensor(I8, 3, 4)))
    assert b.type(value).dtype == I32
