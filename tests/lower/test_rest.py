"""Columns that whole registers do not fill: the last tile is as small as they are, and its results are those of any."""

from __future__ import annotations

import numpy as np
import pytest

from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.target import kernel as k
from tessera_build.lower.program.assemble import lower_module
from tessera_build.lower.program.estimate import operations_of
from tests.lower.compiled import check_module
from tests.lower.execution import AVX512


def _product(rows: int, depth: int, columns: int) -> Module:
    rng, b = np.random.default_rng(0), GraphBuilder()
    x = b.input("x", tensor(F32, rows, depth))
    w = b.constant(rng.standard_normal((depth, columns)).astype(np.float32))
    y = b.op("add", b.op("matmul", x, w), b.constant(rng.standard_normal(columns).astype(np.float32)))
    b.output("y", b.op("max", y, b.scalar(0.0, F32)))
    return b.finish()


def _depthwise(channels: int) -> Module:
    rng, b = np.random.default_rng(0), GraphBuilder()
    x = b.input("x", tensor(F32, 1, 15, 15, channels))
    w = b.constant(rng.standard_normal((channels, 1, 3, 3)).astype(np.float32))
    side = {"strides": (1, 1), "low": (1, 1), "high": (1, 1), "dilations": (1, 1)}
    b.output("y", b.op("conv", x, w, groups=channels, layout="NHWC", **side))
    return b.finish()


def _lanes(module: Module) -> set[int]:
    """Lanes of all fused multiply-adds of a module's kernels."""
    kernels = lower_module(module, AVX512).variant.kernels
    nodes = [(kernel, node) for kernel in kernels for node in kernel.walk() if isinstance(node, k.Op)]
    return {kernel.types[node.result].static_shape[0] for kernel, node in nodes if node.name == "fma"}


def test_columns_when_half_a_register_is_left_then_it_is_multiplied_in_half_a_register() -> None:
    assert _lanes(_product(56, 144, 24)) == {16, 8}
    assert _lanes(_product(56, 144, 32)) == {16}


def test_operations_when_the_last_tile_is_smaller_then_only_what_it_does_counts() -> None:
    found = [lower_module(_product(56, 144, columns), AVX512).launches for columns in (24, 32)]
    narrow, wide = (operations_of(launches[0][0].tile_function, {}) for launches in found)
    assert narrow * 32 == wide * 24


@pytest.mark.parametrize(
    ("rows", "depth", "columns"), [(56, 144, 24), (13, 24, 100), (5, 7, 23), (33, 24, 144), (9, 20, 40)]
)
def test_columns_when_whole_tiles_leave_some_then_answers_are_those_of_the_reference(
    rows: int, depth: int, columns: int
) -> None:
    x = np.random.default_rng(1).standard_normal((rows, depth)).astype(np.float32)
    check_module(_product(rows, depth, columns), {"x": x}, {}, AVX512)


@pytest.mark.parametrize("channels", [24, 40, 100])
def test_channels_when_whole_tiles_leave_some_then_answers_are_those_of_the_reference(channels: int) -> None:
    x = np.random.default_rng(1).standard_normal((1, 15, 15, channels)).astype(np.float32)
    check_module(_depthwise(channels), {"x": x}, {}, AVX512)
