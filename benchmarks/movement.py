"""Movement kernels beside numpy, onnxruntime and a plain copy of as many bytes, measured in turn in the same run.

    python -m benchmarks.movement [--target native] [--rounds 30] [--only NAME]

Each case is the last launch of a small graph as the compiler makes it, on one thread, checked against the Graph
reference bit for bit. Prints the best time, and the best times of the others over it (above 1: we are faster).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from onnx import helper

from benchmarks.kernels import Case, Program
from tessera_build.backends.llvm.variant import codegen_options
from tessera_build.config import load_target
from tessera_build.driver.machine import machine_of, options_of
from tessera_build.ir.core.types import F32, DType, dtype_of, tensor
from tessera_build.ir.graph import reference
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array

_OPSET = 21


@dataclass(frozen=True, slots=True)
class Transpose:
    """A transposition of one shape; with `add`, another operand of the result's shape is added."""

    name: str
    shape: tuple[int, ...]
    perm: tuple[int, ...]
    dtype: DType = F32

    def case(self) -> Case:
        """The graph with one input and one output."""
        b = GraphBuilder()
        b.output("y", b.op("transpose", b.input("x", tensor(self.dtype, *self.shape)), perm=self.perm))
        return Case(self.name, b.finish(), 0)

    def session(self) -> onnxruntime.InferenceSession:
        """The same model for onnxruntime, on one thread."""
        kind = helper.np_dtype_to_tensor_dtype(self.dtype.numpy)
        node = helper.make_node("Transpose", ["x"], ["y"], perm=list(self.perm))
        x = helper.make_tensor_value_info("x", kind, self.shape)
        y = helper.make_tensor_value_info("y", kind, [self.shape[p] for p in self.perm])
        model = helper.make_model(
            helper.make_graph([node], "g", [x], [y]), opset_imports=[helper.make_opsetid("", _OPSET)]
        )
        model.ir_version = 10
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(model.SerializeToString(), options)


F64, I8, I16 = (dtype_of(np.dtype(t)) for t in (np.float64, np.int8, np.int16))

CASES: tuple[Transpose, ...] = (
    Transpose("image out, 16 channels", (1, 320, 320, 16), (0, 3, 1, 2)),
    Transpose("image out, 3 channels", (1, 320, 320, 3), (0, 3, 1, 2)),
    Transpose("image in, 3 channels", (1, 3, 320, 320), (0, 2, 3, 1)),
    Transpose("features out, 64 channels", (1, 56, 56, 64), (0, 3, 1, 2)),
    Transpose("features out, 512 channels", (1, 7, 7, 512), (0, 3, 1, 2)),
    Transpose("features in, 256 channels", (1, 256, 14, 14), (0, 2, 3, 1)),
    Transpose("heads", (1, 128, 12, 64), (0, 2, 1, 3)),
    Transpose("keys", (1, 128, 12, 64), (0, 2, 3, 1)),
    Transpose("matrix 1000", (1000, 1000), (1, 0)),
    Transpose("matrix 1024", (1024, 1024), (1, 0)),
    Transpose("matrix 1000, f64", (1000, 1000), (1, 0), F64),
    Transpose("matrix 1000, 16 bits", (1000, 1000), (1, 0), I16),
    Transpose("matrix 1000, 8 bits", (1000, 1000), (1, 0), I8),
)


def _best(actions: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """The least time of each action, taken in turn; several calls at a time where one is short."""
    best = [float("inf")] * len(actions)
    counts: list[int] = []
    for action in actions:
        start = time.perf_counter()
        action()
        counts.append(max(1, int(2e-4 / (time.perf_counter() - start))))
    for _ in range(rounds):
        for index, (action, count) in enumerate(zip(actions, counts, strict=True)):
            start = time.perf_counter()
            for _ in range(count):
                action()
            best[index] = min(best[index], (time.perf_counter() - start) / count)
    return best


def measure(case: Transpose, target: str, rounds: int) -> list[float]:
    """Best times of ours, numpy's, onnxruntime's and a copy's."""
    config = load_target(target)
    made = case.case()
    program = Program(made, machine_of(config), codegen_options(options_of(config, ())))
    for launch in program.launches:
        launch()
    x, y = program.feed, program.spaces["output"][0]
    expected = reference.run(made.module, "main", {"x": x})["y"]
    if y.tobytes() != expected.tobytes():
        raise SystemExit(f"{case.name}: wrong elements")
    other: Array = np.empty_like(y)
    flat: Array = np.empty_like(x)
    session = case.session()
    binding = session.io_binding()
    binding.bind_cpu_input("x", np.ascontiguousarray(x))
    binding.bind_output("y")

    def by_numpy() -> None:
        np.copyto(other, x.transpose(case.perm))

    return _best(
        (
            program.launches[-1],
            by_numpy,
            lambda: session.run_with_iobinding(binding),
            lambda: np.copyto(flat, x),
        ),
        rounds,
    )


def main() -> None:
    """Measure every case and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="native")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    print(f"{'kernel':<28}{'µs':>9}{'GB/s':>7}{'numpy':>8}{'ort':>8}{'copy':>8}")
    for case in CASES:
        if arguments.only in case.name:
            ours, by_numpy, by_peer, copied = measure(case, arguments.target, arguments.rounds)
            moved = 2 * np.prod(case.shape) * case.dtype.bytes / ours / 1e9
            others = "".join(f"{t / ours:>8.2f}" for t in (by_numpy, by_peer, copied))
            print(f"{case.name:<28}{ours * 1e6:>9.1f}{moved:>7.1f}{others}", flush=True)


if __name__ == "__main__":
    main()
