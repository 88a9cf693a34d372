"""Threads of the pool have room for what kernels keep on their stacks, whatever the system gives by default."""

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tessera_build.driver.build import build

ROOT = Path(__file__).parents[2]
_SMALL = 192 << 10  # less than what Winograd's strips take; glibc gives new threads as much as this limit says
_PROGRAM = """
import sys, threading
import numpy as np
import tessera_runtime

def run():
    with tessera_runtime.load(sys.argv[1], threads=2) as model:
        for _ in range(50):
            model.run(x=np.ones((1, 64, 56, 56), np.float32))
    print("done")

threading.stack_size(8 << 20)  # the caller's own stack is its own affair
thread = threading.Thread(target=run)
thread.start()
thread.join()
"""


def test_pool_when_the_system_gives_threads_little_stack_then_kernels_still_run(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((64, 64, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64, 56, 56])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64, 56, 56])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    build(model, ["native"], tmp_path / "m.tessera", verify=False, workers=1, cache=False)
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path / "m.tessera")],
        cwd=ROOT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_STACK, (_SMALL, hard)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
