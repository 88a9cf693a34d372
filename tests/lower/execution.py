"""Runs a lowered variant launch by launch through the Tile reference interpreter: no back end, no machine code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np

from tessera_build.ir.core.dims import Extent, evaluate
from tessera_build.ir.core.types import Type
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.target.host import Buffer, Launch
from tessera_build.ir.tile import reference
from tessera_build.lower.program.assemble import lower_module
from tessera_build.lower.program.kernels import Chooser, derived
from tessera_build.lower.program.records import LoweredVariant

AVX512 = CpuMachine("avx512", lanes=16, registers=32, fused=True, scales=True)
AVX2 = CpuMachine("avx2", lanes=8, registers=16, fused=True)


class Memory:
    """Inputs, outputs, weights and the arena of one call."""

    def __init__(
        self, lowered: LoweredVariant, module: Module, inputs: Mapping[str, Array], sizes: dict[str, int]
    ) -> None:
        entry, function = lowered.variant.entries[0], module.entries["main"]
        self.sizes = sizes
        kinds = [function.types[v] for v in function.results]
        self.spaces: dict[str, list[Array]] = {
            "input": [np.ascontiguousarray(inputs[n]) for n in module.input_names["main"]],
            "weight": [w.array for w in lowered.weights],
            "output": [
                np.zeros([evaluate(e, sizes) for e in shape], kind.dtype.numpy)
                for shape, kind in zip(entry.outputs, kinds, strict=True)
            ],
            "arena": [np.full(max(64, evaluate(entry.arena_bytes, sizes)), 0xFF, np.uint8)],
        }

    def array(self, buffer: Buffer, kind: Type, strides: tuple[Extent, ...] | None) -> Array:
        """The array that a kernel argument of this type and these strides (elements) sees."""
        flat = self.spaces[buffer.space][buffer.index].reshape(-1).view(np.uint8)
        shape = tuple(evaluate(e, self.sizes) for e in kind.shape)
        size = kind.dtype.bytes
        steps = None if not strides else tuple(evaluate(s, self.sizes) * size for s in strides)
        return np.ndarray(shape, kind.dtype.numpy, flat.data, evaluate(buffer.offset, self.sizes), steps)


def run_tiles(
    module: Module,
    inputs: Mapping[str, Array],
    sizes: dict[str, int],
    machine: CpuMachine = AVX512,
    choose: Chooser = derived,
) -> tuple[list[Array], LoweredVariant]:
    """Outputs of the entry `main`, computed by interpreting every launch's tile program."""
    lowered = lower_module(module, machine, choose=choose)
    memory = Memory(lowered, module, inputs, sizes)
    launches = [n for n in lowered.variant.entries[0].nodes if isinstance(n, Launch)]
    for launch, record in zip(launches, lowered.launches[0], strict=True):
        if evaluate(launch.count, sizes) == 0:
            continue
        function = record.tile_function
        given = cast(tuple[tuple[Extent, ...] | None, ...], function.attributes.get("strides", ()))
        strides = given or (None,) * len(function.args)
        arrays = [
            memory.array(b, function.types[a], s)
            for b, a, s in zip(launch.buffers, function.args, strides, strict=True)
        ]
        reference.run(function, arrays, sizes)
    return memory.spaces["output"], lowered
