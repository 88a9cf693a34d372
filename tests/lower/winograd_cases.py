"""Convolutions whose algorithm a test chooses, whatever the cost model would.

Takes sizes; gives modules with one convolution and what follows it, and choosers that rewrite it. Invariant: the
weights' error stays far below every tolerance that these modules are compared under.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from tessera_build.ir.core.dims import Extent, evaluate, symbol
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.nodes import Compute
from tessera_build.ir.schedule.trace import Bind, Pack, Rewrite, Schedule, Split, Step, Tensorise
from tessera_build.lower.program.kernels import Chooser, Setting, derived
from tessera_build.space.toom_cook import Transform, taps_first, tiles_for
from tessera_build.space.winograd import window_of
from tessera_build.space.winograd_error import transform_error

SIDES = {"strides": (1, 1), "dilations": (1, 1), "low": (1, 1), "high": (1, 1)}


@dataclass(frozen=True, slots=True)
class Shape:
    """One convolution: images, height, width (None: dynamic), channels in and out, zeros before and after, taps.

    `apart`: columns from one tap to the next; `strides`: inputs from one output to the next.
    """

    images: int | None
    height: int | None
    width: int | None
    channels: int
    outputs: int
    low: tuple[int, int] = (1, 1)
    high: tuple[int, int] = (1, 1)
    taps: tuple[int, int] = (3, 3)
    apart: int = 1
    strides: tuple[int, int] = (1, 1)

    @property
    def extents(self) -> tuple[Extent, Extent, Extent]:
        """Images, height and width as the input's type has them."""
        named = zip((self.images, self.height, self.width), ("N", "H", "W"), strict=True)
        images, height, width = (symbol(name) if extent is None else extent for extent, name in named)
        return images, height, width


def module_of(shape: Shape, epilogue: str = "") -> Module:
    """A convolution with `epilogue`: any of "bias", "residual", "relu" in one word, applied in that order."""
    rng = np.random.default_rng(3)
    free = zip((shape.images, shape.height, shape.width), ("N", "H", "W"), strict=True)
    b = GraphBuilder(dims={name: (1, None) for extent, name in free if extent is None})
    images, height, width = shape.extents
    x = b.input("x", tensor(F32, images, height, width, shape.channels))
    weights = rng.standard_normal((shape.outputs, shape.channels, *shape.taps)).astype(np.float32)
    sides = SIDES | {"low": shape.low, "high": shape.high, "dilations": (1, shape.apart), "strides": shape.strides}
    y = b.op("conv", x, b.constant(weights), groups=1, layout="NHWC", **sides)
    if "bias" in epilogue:
        y = b.op("add", y, b.constant(rng.standard_normal(shape.outputs).astype(np.float32)))
    if "residual" in epilogue:
        reach = shape.taps[0] - 1, (shape.taps[1] - 1) * shape.apart
        around = [a + b - n for a, b, n in zip(shape.low, shape.high, reach, strict=True)]
        along = zip((height, width), around, shape.strides, strict=True)
        rows, columns = ((extent + more - 1) // step + 1 for extent, more, step in along)
        y = b.op("add", y, b.input("r", tensor(F32, images, rows, columns, shape.outputs)))
    if "relu" in epilogue:
        y = b.op("max", y, b.scalar(0.0, F32))
    b.output("y", y)
    return b.finish()


def inputs_of(module: Module, sizes: dict[str, int], seed: int = 5) -> dict[str, Array]:
    """Standard normal inputs at these sizes of the dims."""
    rng, main = np.random.default_rng(seed), module.entries["main"]
    found: dict[str, Array] = {}
    for name, value in zip(module.input_names["main"], main.args, strict=True):
        extents = [e if isinstance(e, int) else evaluate(e, sizes) for e in main.types[value].shape]
        found[name] = rng.standard_normal(extents).astype(np.float32)
    return found


@dataclass(frozen=True, slots=True)
class Strips:
    """A schedule by numbers: tiles of `tile` outputs, `rows` by `columns` of them a strip, `block` a register tile.

    `panels` of outputs make a group.
    """

    tile: int
    rows: int
    columns: int
    block: int
    vectors: int = 2
    chunk: int = 8
    panels: int = 0

    def schedule(self, node: Compute, machine: CpuMachine) -> Schedule:
        """The trace for one sum of products."""
        window = window_of(node)
        assert window is not None
        width, channels = self.vectors * machine.lanes, window.channels
        transform = Transform.of(self.tile, window.taps, window.strides)
        chunk = min(self.chunk, channels.extent) if isinstance(channels.extent, int) else self.chunk
        steps: tuple[Step, ...] = (
            Rewrite(self.tile, self.block, self.panels),
            Split(window.rows.axis, self.rows * transform.rows.tile),
            Split(window.columns.axis, self.columns * transform.columns.tile),
            Split(node.axes[-1].name, width),
            Pack(1, width),
            Split(channels.name, chunk),
            Tensorise(channels.name),
        )
        return Schedule(
            (*steps, *(Bind(axis.name, "parallel") for axis in (node.axes if self.panels else node.axes[:-1])))
        )

    def chooser(self) -> Chooser:
        """Rewrites every task that can be rewritten."""

        def choose(setting: Setting, machine: CpuMachine) -> Schedule:
            sums = [n for n in setting.task.function.nodes if isinstance(n, Compute) and n.combine != "none"]
            if len(sums) == 1 and window_of(sums[0]) is not None:
                return self.schedule(sums[0], machine)
            return derived(setting, machine)

        return choose


def fingerprint() -> str:
    """Weights at the points of every transform and the errors they were found to have, as one digest."""
    weights = np.random.default_rng(4).standard_normal((40, 70, 3, 3)).astype(np.float32)
    transforms = [Transform.of(tile, (3, 3)) for tile in tiles_for((3, 3))]
    moved = taps_first(weights, (2, 3, 1, 0))
    points = [transform.transformed(moved).tobytes() for transform in transforms]
    errors = [transform_error(moved, transform).hex().encode() for transform in transforms]
    return sha256(b"".join((*points, *errors))).hexdigest()
