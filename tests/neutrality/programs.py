"""The four tile programs that every machine must run unchanged, each with inputs and the dims of one call.

Takes nothing; gives `Program` records. Invariant: extents are symbolic or do not divide the tiles, so that ragged
edges are part of every comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tessera.kernel import kernel
from tessera.tile import TileBuilder
from tessera.values import Buffer
from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import F32, memref
from tessera_build.ir.tile.reference import run
from tessera_build.kernels.attention import attention
from tessera_build.kernels.attention_shape import AttentionSchedule, AttentionShape
from tessera_build.kernels.product import ProductSchedule, product
from tessera_build.kernels.softmax import softmax

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A tile program, its inputs, the shape of its output and its dims; `exact`: no operation but + - * / and fma."""

    function: Function
    inputs: tuple[Array, ...]
    output: tuple[int, ...]
    dims: Mapping[str, int]
    exact: bool = False

    def buffers(self) -> list[Array]:
        """Fresh buffers for one run, the output last and full of NaN."""
        return [*(x.copy() for x in self.inputs), np.full(self.output, np.nan, np.float32)]

    def reference(self) -> Array:
        """The output by the Tile reference interpreter."""
        buffers = self.buffers()
        run(self.function, buffers, self.dims)
        return buffers[-1]


def _random(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def elementwise_map() -> Program:
    extent = symbol("n")

    @kernel(x=memref(F32, extent), y=memref(F32, extent), out=memref(F32, extent))
    def blend(tile: TileBuilder, x: Buffer, y: Buffer, out: Buffer) -> None:
        for i in tile.range(extent, 48):
            left, right = tile.load(x[i : i + 48]), tile.load(y[i : i + 48])
            tile.store(out[i : i + 48], left * 2.0 + tile.maximum(right, left) / 3.0)

    return Program(blend, (_random(0, 1003), _random(1, 1003)), (1003,), {"n": 1003}, exact=True)


def row_softmax() -> Program:
    function = softmax(F32, symbol("r"), symbol("c"), width=64, order="tree(16)")
    return Program(function, (_random(2, 5, 133),), (5, 133), {"r": 5, "c": 133})


def matrix_product() -> Program:
    function = product(F32, (symbol("m"), symbol("n"), symbol("k")), ProductSchedule(6, 32, 16))
    inputs = (_random(3, 37, 45), _random(4, 45, 50))
    return Program(function, inputs, (37, 50), {"m": 37, "n": 50, "k": 45}, exact=True)


def whole_row_attention() -> Program:
    shape = AttentionShape(4, 7, 21, 8, 12, heads=2, mask=(2, 1, 1, 21))
    schedule = AttentionSchedule(tile_m=4, tile_n=16, tile_e=16, block=32)
    inputs = (_random(5, 4, 7, 8), _random(6, 4, 21, 8), _random(7, 4, 21, 12), _random(8, 2, 1, 1, 21))
    return Program(attention(F32, shape, schedule, 0.3), inputs, (4, 7, 12), {})


def online_attention() -> Program:
    names = ("g", "m", "n", "h", "b")
    g, m, n, h, b = (symbol(name) for name in names)
    shape = AttentionShape(g, m, n, 8, 12, heads=h, mask=(b, 1, m, n))
    schedule = AttentionSchedule(tile_m=4, tile_n=16, tile_e=16, block=16, rows=2)
    inputs = (_random(5, 4, 7, 8), _random(6, 4, 41, 8), _random(7, 4, 41, 12), _random(8, 2, 1, 7, 41))
    dims: dict[str, int] = dict(zip(names, (4, 7, 41, 2, 2), strict=True))
    return Program(attention(F32, shape, schedule, 0.3), inputs, (4, 7, 12), dims)


PROGRAMS = {
    "map": elementwise_map,
    "softmax": row_softmax,
    "product": matrix_product,
    "attention": whole_row_attention,
    "online attention": online_attention,
}
