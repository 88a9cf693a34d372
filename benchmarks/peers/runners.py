"""Each peer ready to run, with the settings that its own documentation gives for latency on a CPU.

Takes a case and the artifact that `builders` wrote for it; gives a function that runs it once. Invariant: fp32
throughout, all optimisations on, inputs converted before the clock starts; neither a builder nor a library that another
peer needs is imported.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol, cast

from benchmarks.peers.case import Case
from tessera_build.ir.graph.nodes import Array

Run = Callable[[], Sequence[Array]]


class Runner(NamedTuple):
    """One peer. `module` is what a process imports, against the clock; `load` makes an artifact ready to run."""

    module: str
    load: Callable[[Case, Path], Run]


def tessera(case: Case, artifact: Path) -> Run:
    """A bundle: the runtime alone."""
    runtime = importlib.import_module("tessera_runtime")
    model, feeds = runtime.load(artifact, threads=case.threads), case.feeds()
    names = [spec.name for spec in model.outputs]
    wanted = {spec.name: feeds[spec.name] for spec in model.inputs}

    def run() -> list[Array]:
        found = model.run(wanted)
        return [found[name] for name in names]

    return run


class _Value(Protocol):
    name: str


class Session(Protocol):
    """What we use of onnxruntime's session, whose own types are looser."""

    def get_inputs(self) -> list[_Value]:
        """All of them."""
        ...

    def run(self, names: None, feeds: dict[str, Array]) -> list[Array]:
        """All outputs."""
        ...


def onnxruntime_session(model: Path, threads: int, optimised: Path | None = None) -> Session:
    """All graph optimisations; `optimised` is where the result is saved, in onnxruntime's own format."""
    library = importlib.import_module("onnxruntime")
    options = library.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
        options.add_session_config_entry("session.save_model_format", "ORT")
    return cast(Session, library.InferenceSession(str(model), options, providers=["CPUExecutionProvider"]))


def onnxruntime(case: Case, artifact: Path) -> Run:
    """A session on the saved file."""
    session, feeds = onnxruntime_session(artifact, case.threads), case.feeds()
    wanted = {given.name: feeds[given.name] for given in session.get_inputs()}
    return lambda: session.run(None, wanted)


def openvino_properties(threads: int) -> dict[str, object]:
    """One stream with the latency hint in f32."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }


def openvino(case: Case, artifact: Path) -> Run:
    """The exported model, with inputs and outputs shared instead of copied."""
    library, feeds = importlib.import_module("openvino"), case.feeds()
    compiled = library.Core().import_model(artifact.read_bytes(), "CPU", openvino_properties(case.threads))
    request, count = compiled.create_infer_request(), len(compiled.outputs)
    names = {name for given in compiled.inputs for name in given.get_names()}
    wanted = {name: value for name, value in feeds.items() if name in names}

    def run() -> list[Array]:
        found = request.infer(wanted, share_inputs=True, share_outputs=True)
        return [found[index] for index in range(count)]

    return run


def inductor(case: Case, artifact: Path) -> Run:
    """The package alone; inputs in the order of the recipe, which is that of the file."""
    torch, library = importlib.import_module("torch"), importlib.import_module("torch._inductor")
    torch.set_num_threads(case.threads)
    compiled = library.aoti_load_package(str(artifact))
    given = [torch.from_numpy(value) for value in case.feeds().values()]

    def run() -> list[Array]:
        with torch.inference_mode():
            found = compiled(*given)
        return [part.numpy() for part in (found if isinstance(found, list | tuple) else [found])]

    return run


RUNNERS: Final[dict[str, Runner]] = {
    "tessera": Runner("tessera_runtime", tessera),
    "onnxruntime": Runner("onnxruntime", onnxruntime),
    "openvino": Runner("openvino", openvino),
    "inductor": Runner("torch", inductor),
}
