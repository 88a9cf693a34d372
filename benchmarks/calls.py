"""What one call costs beyond its arithmetic: a model that adds four floats, from Python and through the C ABI.

    python -m benchmarks.calls [--rounds 50]

onnxruntime takes turns with `Model.run`. The C ABI is called by a loop in machine code, on a call that was prepared
once, as a server in C would do. Prints the best and the median of the rounds in microseconds.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

import tessera_runtime
from bundle_format import media
from bundle_format.reader import open_bundle
from tessera_build.backends.llvm.variant import codegen_options
from tessera_build.config import load_target
from tessera_build.driver.build import build
from tessera_build.driver.machine import options_of
from tessera_build.driver.roofline import compiled_function
from tessera_runtime.cpu.abi import Call, ErrorRecord
from tessera_runtime.cpu.image import CodeImage
from tessera_runtime.cpu.pool import PROCESS_POOLS

_CALLS = 1000
_LOOP = """
define i32 @calls(ptr %pair, i64 %count) {
entry:
  %code = load ptr, ptr %pair, align 8
  %call.at = getelementptr i8, ptr %pair, i64 8
  %call = load ptr, ptr %call.at, align 8
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %status = call i32 %code(ptr %call)
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %count
  br i1 %more, label %loop, label %done
done:
  ret i32 %status
}
"""


def four_floats() -> onnx.ModelProto:
    """y = a + b."""
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "aby"}
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["y"])], "g", [values["a"], values["b"]], [values["y"]]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _through_abi(path: Path) -> Callable[[], object]:
    """A thousand runs of one prepared call, in machine code."""
    options = codegen_options(options_of(load_target("native"), ()))
    loop = compiled_function([_LOOP], "calls", options)
    with open_bundle(path) as bundle:
        (layer,) = bundle.variants[0].layers(media.ELF_CODE)
        image = CodeImage(memoryview(bytes(bundle.read(layer))))
    arrays = [np.ones(16, np.float32) for _ in range(4)]
    a, b, y, workspace = (array.ctypes.data for array in arrays)
    inputs, outputs, error = (ctypes.c_void_p * 2)(a, b), (ctypes.c_void_p * 1)(y), ErrorRecord()
    call = Call(
        size=ctypes.sizeof(Call),
        inputs=ctypes.addressof(inputs),
        outputs=ctypes.addressof(outputs),
        workspace=workspace,
        services=PROCESS_POOLS.get(image, 1).services(),
        error=ctypes.addressof(error),
    )
    pair = (ctypes.c_void_p * 2)(image.address("tessera_run"), ctypes.addressof(call))

    def run() -> object:
        if loop(ctypes.addressof(pair), _CALLS):
            raise RuntimeError("the call failed")
        return image, arrays, inputs, outputs, error, call  # addresses are all that the call holds

    return run


def _microseconds(run: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(_CALLS // calls):
        run()
    return (time.perf_counter() - start) / _CALLS * 1e6


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    rounds = parser.parse_args().rounds
    model, feeds = four_floats(), {name: np.ones(4, np.float32) for name in "ab"}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "add.tessera"
        build(model, targets=["native"], out=path)
        with tessera_runtime.load(path, threads=1) as loaded:
            runs: dict[str, tuple[Callable[[], object], int]] = {
                "Model.run": (lambda: loaded.run(feeds), 1),
                "onnxruntime": (lambda: len(session.run(None, feeds)), 1),
                "C ABI": (_through_abi(path), _CALLS),
            }
            found = {name: [_microseconds(*run)] for name, run in runs.items()}
            for _ in range(rounds):
                for name, run in runs.items():
                    found[name].append(_microseconds(*run))
    for name, times in found.items():
        print(f"{name:<12} best {min(times):7.3f} µs, median {statistics.median(times):7.3f} µs")


if __name__ == "__main__":
    main()
