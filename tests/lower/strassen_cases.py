"""Products for the tests of Strassen's algorithm, and the schedules that cut them into halves.

Takes extents and what follows the product; gives modules, their tasks and traces. Invariant: the same numbers always.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.nodes import Compute
from tessera_build.ir.schedule.trace import Bind, Pack, Prefetch, Rewrite, Schedule, Split, Tensorise
from tessera_build.lower.program.kernels import Chooser, Setting, derived
from tessera_build.space.strassen import STRASSEN


@dataclass(frozen=True, slots=True)
class Sizes:
    """Extents of a product: [images, rows, depth] by [depth, columns], or by its transpose; None: the dim N or S."""

    images: int | None
    rows: int | None
    depth: int
    columns: int
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Cut:
    """Rows and registers of a register tile, steps emitted, the piece of half the depth that is summed at a time.

    `group` tiles of rows make sums of weights for themselves; 0: all of them.
    """

    rows: int
    vectors: int
    steps: int
    piece: int
    group: int = 0

    def schedule(self, lanes: int, image: bool = False) -> Schedule:
        """The trace, of a matrix or of an image's pixels."""
        width = self.vectors * lanes
        rows, vector, depth = ("_d2", "_d3", "_c") if image else ("_d1", "_d2", "_k")
        return Schedule(
            (
                Rewrite(2, self.piece, self.group, algorithm=STRASSEN),
                Split(rows, self.rows),
                Split(vector, width),
                Pack(1, width),
                Split(depth, self.steps),
                Tensorise(depth),
                Prefetch(1),
                Bind("_d0", "parallel"),
                Bind(vector, "parallel"),
            )
        )

    def chooser(self) -> Chooser:
        """Takes the trace for every product of constant weights."""

        def choose(setting: Setting, machine: CpuMachine) -> Schedule:
            nodes = [n for n in setting.task.function.nodes if isinstance(n, Compute) and n.combine != "none"]
            if setting.task.kind != "contraction" or len(nodes[0].reduction) > 1:
                return derived(setting, machine)
            return self.schedule(machine.lanes, len(setting.task.domain) > 3)

        return choose


def module_of(sizes: Sizes, epilogue: str = "") -> Module:
    """The product, then what `epilogue` names: a bias, gelu, a residual."""
    rng, b = np.random.default_rng(3), GraphBuilder()
    images = symbol("N") if sizes.images is None else sizes.images
    rows = symbol("S") if sizes.rows is None else sizes.rows
    x = b.input("x", tensor(F32, images, rows, sizes.depth))
    shape = (sizes.columns, sizes.depth) if sizes.transposed else (sizes.depth, sizes.columns)
    y = b.op("matmul", x, b.constant(rng.standard_normal(shape).astype(np.float32)), transpose_b=sizes.transposed)
    if "bias" in epilogue:
        y = b.op("add", y, b.constant(rng.standard_normal(sizes.columns).astype(np.float32)))
    if "erf" in epilogue:
        y = b.op("mul", y, b.op("erf", y))
    if "residual" in epilogue:
        y = b.op("add", y, b.input("r", tensor(F32, images, rows, sizes.columns)))
    b.output("y", y)
    return b.finish()


def image_of(images: int, padded: bool) -> Module:
    """A 1x1 convolution of images of 6 x 7 with bias, residual and rectifier; `padded`: a 3x3 one reads the result."""
    rng, b = np.random.default_rng(4), GraphBuilder()
    sides = {"strides": (1, 1), "dilations": (1, 1)}
    x = b.op("abs", b.input("x", tensor(F32, images, 6, 7, 96)))
    w = b.constant(rng.standard_normal((64, 96, 1, 1)).astype(np.float32))
    y = b.op("conv", x, w, groups=1, layout="NHWC", low=(0, 0), high=(0, 0), **sides)
    y = b.op("add", y, b.constant(rng.standard_normal(64).astype(np.float32)))
    y = b.op("add", y, b.input("r", tensor(F32, images, 6, 7, 64)))
    y = b.op("max", y, b.constant(np.float32(0)))
    if padded:
        taps = b.constant(rng.standard_normal((8, 64, 3, 3)).astype(np.float32))
        y = b.op("conv", y, taps, groups=1, layout="NHWC", low=(1, 1), high=(1, 1), **sides)
    b.output("y", y)
    return b.finish()


def inputs_of(module: Module, seed: int = 1) -> dict[str, Array]:
    """Seeded inputs of static shapes."""
    rng, main = np.random.default_rng(seed), module.entries["main"]
    kinds = [main.types[argument] for argument in main.args]
    names = module.input_names["main"]
    return {n: rng.standard_normal(k.static_shape).astype(np.float32) for n, k in zip(names, kinds, strict=True)}
