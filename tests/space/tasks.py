"""Tasks of every kind for tests of the search space, where they stand in small modules.

Takes nothing; gives `Setting`s by name, for a machine with short registers. Invariant: among them are a product of
weights, a grouped, a dense and a depthwise convolution, a chain, pooling, rows reduced along and across vectors,
elementwise and exchanging movement, static and dynamic.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.trace import Schedule
from tessera_build.lower.program.assemble import lower_module
from tessera_build.lower.program.kernels import Setting, derived, subject_of
from tessera_build.space.derive import spaces_of
from tessera_build.space.sample import Space
from tests.lower.execution import AVX2

Build = Callable[[GraphBuilder], int]
_SIDES = {"strides": (1, 1), "dilations": (1, 1), "layout": "NHWC"}


def _weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _product(b: GraphBuilder) -> int:
    y = b.op("matmul", b.input("x", tensor(F32, 7, 24)), b.constant(_weights(24, 19)))
    return b.op("max", b.op("add", y, b.constant(_weights(19))), b.scalar(0.0, F32))


def _batched(b: GraphBuilder) -> int:
    return b.op("matmul", b.input("x", tensor(F32, symbol("N"), 40)), b.constant(_weights(40, 33)))


def _convolution(b: GraphBuilder) -> int:
    x = b.input("x", tensor(F32, 1, 9, 8, 4))
    return b.op("conv", x, b.constant(_weights(10, 2, 3, 3)), groups=2, low=(0, 0), high=(0, 0), **_SIDES)


def _tapped(b: GraphBuilder) -> int:
    x = b.input("x", tensor(F32, 1, 21, 20, 48))
    return b.op("conv", x, b.constant(_weights(40, 48, 3, 3)), groups=1, low=(1, 1), high=(1, 1), **_SIDES)


def _strided(b: GraphBuilder) -> int:
    x = b.input("x", tensor(F32, 1, 28, 28, 512))
    around = _SIDES | {"strides": (2, 2), "low": (0, 0), "high": (0, 0)}
    return b.op("conv", x, b.constant(_weights(64, 512, 1, 1)), groups=1, **around)


def _depthwise(b: GraphBuilder) -> int:
    x = b.input("x", tensor(F32, 1, 9, 8, 20))
    return b.op("conv", x, b.constant(_weights(20, 1, 3, 3)), groups=20, low=(1, 1), high=(1, 1), **_SIDES)


def _bottleneck(b: GraphBuilder) -> int:
    alone = _SIDES | {"low": (0, 0), "high": (0, 0)}
    x = b.op("conv", b.input("x", tensor(F32, 1, 64, 64, 16)), b.constant(_weights(48, 16, 1, 1)), groups=1, **alone)
    x = b.op("max", x, b.scalar(0.0, F32))
    y = b.op("conv", x, b.constant(_weights(48, 1, 3, 3)), groups=48, low=(1, 1), high=(1, 1), **_SIDES)
    return b.op("conv", y, b.constant(_weights(16, 48, 1, 1)), groups=1, **alone)


def _pool(b: GraphBuilder) -> int:
    around = {"window": (1, 3, 3, 1), "strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 1)}
    x = b.input("x", tensor(F32, symbol("N"), 9, 9, 5))
    return b.op("reduce_window", x, kind="max", low=(0, 1, 1, 0), high=(0, 1, 1, 0), **around)


def _softmax(b: GraphBuilder) -> int:
    return b.op("softmax", b.input("x", tensor(F32, symbol("N"), 4, 21)), axis=2)


def _columns(b: GraphBuilder) -> int:
    return b.op("softmax", b.input("x", tensor(F32, 3, 6, 70)), axis=1)


def _elementwise(b: GraphBuilder) -> int:
    return b.op("exp", b.input("x", tensor(F32, 300, 150)))


def _moved(b: GraphBuilder) -> int:
    return b.op("exp", b.op("transpose", b.input("x", tensor(F32, 40, 41, 43)), perm=(2, 0, 1)))


BUILDS: dict[str, Build] = {
    "product": _product,
    "batched": _batched,
    "convolution": _convolution,
    "tapped": _tapped,
    "strided": _strided,
    "depthwise": _depthwise,
    "bottleneck": _bottleneck,
    "pool": _pool,
    "softmax": _softmax,
    "columns": _columns,
    "elementwise": _elementwise,
    "moved": _moved,
}


def module_of(name: str) -> Module:
    """The module with that task."""
    builder = GraphBuilder(dims={"N": (1, None)})
    builder.output("y", BUILDS[name](builder))
    return builder.finish()


def setting_of(name: str, machine: CpuMachine = AVX2) -> Setting:
    """The task that has the most to do of a module with one operator."""
    met: list[Setting] = []

    def choose(setting: Setting, machine: CpuMachine) -> Schedule:
        met.append(setting)
        return derived(setting, machine)

    lower_module(module_of(name), machine, choose=choose)
    return met[-1]


def spaces(name: str, machine: CpuMachine = AVX2) -> tuple[Space, ...]:
    """The search space of that task."""
    return spaces_of(subject_of(setting_of(name, machine)), machine)
