"""A process that writes one peer's artifact, with the settings that its own documentation gives for latency on a CPU.

Takes requests of `requests`: {"do": "build"}; gives seconds, bytes and the path. Invariant: what it imports never lies
in the memory of a process that loads, and its figures are of the peer alone.
"""

from __future__ import annotations

import importlib
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from onnx import TensorProto, helper

from benchmarks.peers.case import Case
from benchmarks.peers.limits import LIMITS
from benchmarks.peers.requests import Answer, serve
from benchmarks.peers.runners import RUNNERS, onnxruntime_session, openvino_properties
from tessera_build.driver.build import build


def tessera(case: Case) -> Path:
    """A bundle, built and proved for the machine at hand."""
    path = case.artifact("tessera", "tessera")
    build(case.model, targets=["native"], out=path)
    return path


def onnxruntime(case: Case) -> Path:
    """An .ort file."""
    path = case.artifact("onnxruntime", "ort")
    onnxruntime_session(case.model, case.threads, path)
    return path


def openvino(case: Case) -> Path:
    """An exported compiled model."""
    library, path = importlib.import_module("openvino"), case.artifact("openvino", "blob")
    compiled = library.Core().compile_model(str(case.model), "CPU", openvino_properties(case.threads))
    path.write_bytes(compiled.export_model().getvalue())
    return path


def inductor(case: Case) -> Path:
    """A .pt2 package of the recipe, not of the ONNX file: weights frozen and products tuned; needs g++."""
    torch, library = importlib.import_module("torch"), importlib.import_module("torch._inductor")
    options = importlib.import_module("torch._inductor.config")
    made = importlib.import_module("benchmarks.peers.export").recipe(case.name)
    path = case.artifact("inductor", "pt2")
    torch.set_num_threads(case.threads)
    options.freezing, options.max_autotune, options.cpp.threads = True, True, case.threads
    options.max_autotune_gemm_backends = "CPP,ATEN"
    with torch.no_grad():
        program = torch.export.export(made.module, tuple(made.inputs.values()))
        library.aoti_compile_and_package(program, package_path=str(path))
    return path


def copy(case: Case) -> Path:
    """Nothing to build: the input's own file."""
    return case.folder / f"{case.name}.npz"


def exponentials(case: Case) -> Path:
    """A bundle of one operator."""
    ((name, value),) = case.feeds().items()
    described = [helper.make_tensor_value_info(n, TensorProto.FLOAT, value.shape) for n in (name, "e")]
    graph = helper.make_graph([helper.make_node("Exp", [name], ["e"])], "e", described[:1], described[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    source, path = case.artifact("exponentials", "onnx"), case.artifact("exponentials", "tessera")
    source.write_bytes(model.SerializeToString(deterministic=True))
    build(source, targets=["native"], out=path)
    return path


BUILDERS: Final[dict[str, Callable[[Case], Path]]] = {
    "tessera": tessera,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "inductor": inductor,
    "copy": copy,
    "exponentials": exponentials,
}


def built(runner: str, case: Case) -> Answer:
    """Seconds and bytes of the artifact; importing what builds it is not counted, ours lies above."""
    importlib.import_module({**RUNNERS, **LIMITS}[runner].module)
    start = time.perf_counter()
    path = BUILDERS[runner](case)
    seconds = time.perf_counter() - start
    _read_again(path)
    return {"seconds": seconds, "bytes": path.stat().st_size, "artifact": str(path)}


def _read_again(path: Path) -> None:
    """Have the system hold a file as it holds one that was installed: read from the disk.

    Of one that was just written, memory that is in use for long gives small pages: 77 of GPT-2's 488 MB could be mapped
    in huge ones, after reading it 598 of 640; a token took 22.3 ms in the first state, and 19.4 all in huge pages.
    """
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            mapped.madvise(mmap.MADV_HUGEPAGE)
            for start in range(0, len(mapped), mmap.PAGESIZE):
                _ = mapped[start]


if __name__ == "__main__":
    serve(lambda runner, case: {"build": lambda _: built(runner, case)})
