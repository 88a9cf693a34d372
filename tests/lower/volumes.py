"""Convolutions of any rank, for tests of windows.

Takes sizes, taps and what each axis has of the rest; gives modules and inputs. Invariant: weights and inputs are drawn
from fixed seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module

DYNAMIC = 11  # what a size that is not known is in a test


@dataclass(frozen=True, slots=True)
class Volume:
    """One convolution of any rank: sizes (None: dynamic), taps, and what each axis has of the rest.

    `pads`: zeros before and after each axis; without any, half of the window's reach each.
    """

    sizes: tuple[int | None, ...]
    taps: tuple[int, ...]
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    channels: int = 19
    outputs: int = 20
    pads: tuple[tuple[int, int], ...] = ()

    def module(self) -> Module:
        """With a bias, zeros around it, and a batch of unknown size."""
        rng, rank = np.random.default_rng(3), len(self.taps)
        names = ["D", "H", "W"][-rank:]
        free = [name for name, size in zip(names, self.sizes, strict=True) if size is None]
        b = GraphBuilder(dims={"N": (1, None), **dict.fromkeys(free, (1, None))})
        sizes: list[Extent] = [symbol(n) if size is None else size for n, size in zip(names, self.sizes, strict=True)]
        x = b.input("x", tensor(F32, symbol("N"), *sizes, self.channels))
        weights = rng.standard_normal((self.outputs, self.channels, *self.taps)).astype(np.float32)
        dilations = self.dilations or (1,) * rank
        reach = [(taps - 1) * apart for taps, apart in zip(self.taps, dilations, strict=True)]
        pads = self.pads or tuple((n // 2, n - n // 2) for n in reach)
        low, high = tuple(before for before, _ in pads), tuple(after for _, after in pads)
        y = b.op(
            "conv", x, b.constant(weights), groups=1, layout="NHWC", strides=self.strides or (1,) * rank,
            dilations=dilations, low=low, high=high,
        )  # fmt: skip
        b.output("y", b.op("add", y, b.constant(rng.standard_normal(self.outputs).astype(np.float32))))
        return b.finish()

    def inputs(self) -> tuple[dict[str, Array], dict[str, int]]:
        """Inputs, and the dims that they have."""
        names = ["D", "H", "W"][-len(self.taps) :]
        dims = {"N": 2} | {name: DYNAMIC for name, size in zip(names, self.sizes, strict=True) if size is None}
        sizes = [DYNAMIC if size is None else size for size in self.sizes]
        x = np.random.default_rng(5).standard_normal((2, *sizes, self.channels)).astype(np.float32)
        return {"x": x}, dims
