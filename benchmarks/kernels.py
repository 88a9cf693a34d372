"""Kernels against the FMA ceiling of the same core, measured in turn in the same run.

    python -m benchmarks.kernels [--target native] [--rounds 30]

Each case is one launch as the compiler makes it from a small graph (derived schedule, packed weights, nothing tuned by
hand), checked against the Graph reference before it is timed. Prints the share of the peak: best of the rounds and
median of the per-round ratios.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tessera_build.backends.llvm.emit_kernel import kernel_ir
from tessera_build.backends.llvm.objects import CodegenOptions
from tessera_build.backends.llvm.variant import codegen_options
from tessera_build.config import load_target
from tessera_build.driver.machine import machine_of, options_of
from tessera_build.driver.roofline import compiled_function, peak_gflops
from tessera_build.driver.single import LAUNCH_IR
from tessera_build.ir.core.dims import evaluate
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph import reference
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.target.host import Buffer, Launch
from tessera_build.lower.program.assemble import lower_module
from tessera_build.lower.program.records import LoweredVariant
from tessera_build.verify.aligned import aligned_copy


@dataclass(frozen=True, slots=True)
class Case:
    """A graph with one input `x` and one output `y`, and the useful work of its main launch."""

    name: str
    module: Module
    flops: int


def convolution(size: int, channels: int, out: int, kernel: int) -> Case:
    """Same-padded convolution with bias and clipping, channels last; the border is stored by a launch of its own."""
    rng, b = np.random.default_rng(0), GraphBuilder()
    x = b.op("mul", b.input("x", tensor(F32, 1, size, size, channels)), b.constant(np.float32(1.0009765625), "s"))
    w = b.constant(rng.standard_normal((out, channels, kernel, kernel)).astype(np.float32), "w")
    side = {"strides": (1, 1), "low": (kernel // 2,) * 2, "high": (kernel // 2,) * 2, "dilations": (1, 1)}
    y = b.op("conv", x, w, groups=1, layout="NHWC", **side)
    y = b.op("add", y, b.constant(rng.standard_normal(out).astype(np.float32), "b"))
    b.output("y", b.op("max", y, b.constant(np.float32(0), "zero")))
    flops = 2 * channels * out * kernel * kernel * size * size
    return Case(f"conv {kernel}x{kernel} {channels}->{out} {size}x{size}", b.finish(), flops)


def product(rows: int, depth: int, columns: int) -> Case:
    """Activations by packed weights, with bias."""
    rng, b = np.random.default_rng(0), GraphBuilder()
    x = b.input("x", tensor(F32, rows, depth))
    w = b.constant(rng.standard_normal((depth, columns)).astype(np.float32), "w")
    bias = b.constant(rng.standard_normal(columns).astype(np.float32), "b")
    b.output("y", b.op("add", b.op("matmul", x, w), bias))
    return Case(f"product {rows}x{depth}x{columns}", b.finish(), 2 * rows * depth * columns)


CASES: tuple[Callable[[], Case], ...] = (
    lambda: convolution(56, 64, 64, 3),
    lambda: convolution(28, 128, 128, 3),
    lambda: convolution(14, 256, 256, 3),
    lambda: convolution(7, 512, 512, 3),
    lambda: convolution(56, 256, 64, 1),
    lambda: convolution(14, 1024, 256, 1),
    lambda: product(128, 768, 768),
    lambda: product(128, 768, 3072),
    lambda: product(128, 3072, 768),
    lambda: product(1024, 1024, 1024),
)


class Program:
    """All launches of a case, ready to run; the last one is the one that is timed."""

    def __init__(self, case: Case, machine: CpuMachine, options: CodegenOptions) -> None:
        self.lowered: LoweredVariant = lower_module(case.module, machine)
        entry, main = self.lowered.variant.entries[0], case.module.entries["main"]
        rng = np.random.default_rng(1)
        shape = main.types[main.args[0]].static_shape
        self.feed = aligned_copy(rng.standard_normal(shape).astype(main.types[main.args[0]].dtype.numpy))
        kinds = [main.types[v].dtype.numpy for v in main.results]
        outputs = [np.zeros([evaluate(e, {}) for e in s], k) for s, k in zip(entry.outputs, kinds, strict=True)]
        self.spaces = {
            "input": [self.feed],
            "output": [aligned_copy(o) for o in outputs],
            "weight": [aligned_copy(w.array) for w in self.lowered.weights],
            "arena": [aligned_copy(np.zeros(max(64, evaluate(entry.arena_bytes, {})), np.uint8))],
        }
        launches = [n for n in entry.nodes if isinstance(n, Launch)]
        self.launches = [
            self._ready(n, kernel_ir(k, options, "kernel"), options)
            for n, k in zip(launches, self.lowered.variant.kernels, strict=True)
        ]

    def _ready(self, launch: Launch, text: str, options: CodegenOptions) -> Callable[[], int]:
        run = compiled_function([text, LAUNCH_IR], "launch", options)
        slots = (ctypes.c_int64 * len(launch.buffers))(*(self._address(b) for b in launch.buffers))
        count = evaluate(launch.count, {})
        return lambda: run(ctypes.addressof(slots), count)

    def _address(self, buffer: Buffer) -> int:
        return self.spaces[buffer.space][buffer.index].ctypes.data + evaluate(buffer.offset, {})

    def error(self, module: Module) -> float:
        """Largest error of the output against the Graph reference, relative to its largest value."""
        for launch in self.launches:
            launch()
        expected = reference.run(module, "main", {"x": self.feed})["y"]
        return float(np.abs(np.subtract(self.spaces["output"][0], expected)).max() / np.abs(expected).max())


def measure(case: Case, target: str, rounds: int) -> tuple[float, float, float]:
    """(best share of the best peak, median of per-round shares, error) of one case."""
    config = load_target(target)
    machine, options = machine_of(config), codegen_options(options_of(config, ()))
    program, peak = Program(case, machine, options), peak_gflops(machine.lanes, options)
    error = program.error(case.module)
    speeds: list[float] = []
    peaks: list[float] = []
    for _ in range(rounds):
        peaks.append(peak())
        start = time.perf_counter()
        program.launches[-1]()
        speeds.append(case.flops / (time.perf_counter() - start) / 1e9)
    shares = [s / p for s, p in zip(speeds, peaks, strict=True)]
    return max(speeds) / max(peaks), statistics.median(shares), error


def main() -> None:
    """Measure every case and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="native")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    print(f"{'kernel':<28}{'best':>8}{'median':>8}{'error':>10}")
    for make in CASES:
        case = make()
        best, median, error = measure(case, arguments.target, arguments.rounds)
        print(f"{case.name:<28}{best:>8.1%}{median:>8.1%}{error:>10.1e}", flush=True)


if __name__ == "__main__":
    main()
