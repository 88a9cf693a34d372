"""Each peer with the settings that its own documentation gives for latency on a CPU.

Takes a case (an ONNX file with its inputs beside it) and a number of threads; gives an artifact on disk, and a function
that runs it once. Invariant: fp32 throughout, all optimisations on, inputs converted before the clock starts.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast

import numpy as np

from tessera_build.ir.graph.nodes import Array

Run = Callable[[], Sequence[Array]]


@dataclass(frozen=True, slots=True)
class Case:
    """A model in `folder`: NAME.onnx and NAME.npz; what peers make of it goes into `folder`/artifacts."""

    name: str
    folder: Path
    threads: int

    @property
    def model(self) -> Path:
        """The ONNX file."""
        return self.folder / f"{self.name}.onnx"

    def feeds(self) -> dict[str, Array]:
        """The inputs by name."""
        with np.load(self.folder / f"{self.name}.npz") as found:
            return {name: found[name] for name in found.files}

    def artifact(self, peer: str, suffix: str) -> Path:
        """Where a peer's artifact lies."""
        folder = self.folder / "artifacts"
        folder.mkdir(exist_ok=True)
        return folder / f"{self.name}.{peer}.{self.threads}.{suffix}"


class Runner(Protocol):
    """One peer. `module` is what a process imports; `build` writes the artifact that `load` reads."""

    module: str

    def build(self, case: Case) -> Path:
        """Write the artifact; gives its path."""
        ...

    def load(self, case: Case, artifact: Path) -> Run:
        """Make the artifact ready to run."""
        ...


class Tessera:
    """This project, built and proved for the machine at hand."""

    module = "tessera_runtime"

    def build(self, case: Case) -> Path:
        """A bundle."""
        from tessera_build.driver.build import build  # noqa: PLC0415  (a process that only loads must not import it)

        path = case.artifact("tessera", "tessera")
        build(case.model, targets=["native"], out=path)
        return path

    def load(self, case: Case, artifact: Path) -> Run:
        """The runtime alone."""
        runtime = importlib.import_module("tessera_runtime")
        model, feeds = runtime.load(artifact, threads=case.threads), case.feeds()
        names = [spec.name for spec in model.outputs]
        wanted = {spec.name: feeds[spec.name] for spec in model.inputs}

        def run() -> list[Array]:
            found = model.run(wanted)
            return [found[name] for name in names]

        return run


class Onnxruntime:
    """All graph optimisations, saved in its own format."""

    module = "onnxruntime"

    def build(self, case: Case) -> Path:
        """An .ort file."""
        path = case.artifact("onnxruntime", "ort")
        _session(case.model, case.threads, path)
        return path

    def load(self, case: Case, artifact: Path) -> Run:
        """A session on the saved file."""
        session, feeds = _session(artifact, case.threads), case.feeds()
        wanted = {given.name: feeds[given.name] for given in session.get_inputs()}
        return lambda: session.run(None, wanted)


class _Value(Protocol):
    name: str


class _Session(Protocol):
    """What we use of onnxruntime's session, whose own types are looser."""

    def get_inputs(self) -> list[_Value]: ...

    def run(self, names: None, feeds: dict[str, Array]) -> list[Array]: ...


def _session(model: Path, threads: int, optimised: Path | None = None) -> _Session:
    library = importlib.import_module("onnxruntime")
    options = library.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
        options.add_session_config_entry("session.save_model_format", "ORT")
    return cast(_Session, library.InferenceSession(str(model), options, providers=["CPUExecutionProvider"]))


class OpenVino:
    """One stream with the latency hint in f32."""

    module = "openvino"

    def _properties(self, case: Case) -> dict[str, object]:
        return {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": case.threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
        }

    def build(self, case: Case) -> Path:
        """An exported compiled model."""
        library, path = importlib.import_module("openvino"), case.artifact("openvino", "blob")
        compiled = library.Core().compile_model(str(case.model), "CPU", self._properties(case))
        path.write_bytes(compiled.export_model().getvalue())
        return path

    def load(self, case: Case, artifact: Path) -> Run:
        """The exported model, with inputs and outputs shared instead of copied."""
        library, feeds = importlib.import_module("openvino"), case.feeds()
        compiled = library.Core().import_model(artifact.read_bytes(), "CPU", self._properties(case))
        request, count = compiled.create_infer_request(), len(compiled.outputs)
        names = {name for given in compiled.inputs for name in given.get_names()}
        wanted = {name: value for name, value in feeds.items() if name in names}

        def run() -> list[Array]:
            found = request.infer(wanted, share_inputs=True, share_outputs=True)
            return [found[index] for index in range(count)]

        return run


class Inductor:
    """PyTorch's ahead-of-time Inductor, weights frozen and products tuned; from the recipe, not from the ONNX file."""

    module = "torch"

    def build(self, case: Case) -> Path:
        """A .pt2 package; needs g++."""
        torch, inductor = importlib.import_module("torch"), importlib.import_module("torch._inductor")
        options = importlib.import_module("torch._inductor.config")
        made = importlib.import_module("benchmarks.peers.export").recipe(case.name)
        path = case.artifact("inductor", "pt2")
        torch.set_num_threads(case.threads)
        options.freezing, options.max_autotune, options.cpp.threads = True, True, case.threads
        options.max_autotune_gemm_backends = "CPP,ATEN"
        with torch.no_grad():
            program = torch.export.export(made.module, tuple(made.inputs.values()))
            inductor.aoti_compile_and_package(program, package_path=str(path))
        return path

    def load(self, case: Case, artifact: Path) -> Run:
        """The package alone; inputs in the order of the recipe, which is that of the file."""
        torch, inductor = importlib.import_module("torch"), importlib.import_module("torch._inductor")
        torch.set_num_threads(case.threads)
        compiled = inductor.aoti_load_package(str(artifact))
        given = [torch.from_numpy(value) for value in case.feeds().values()]

        def run() -> list[Array]:
            with torch.inference_mode():
                found = compiled(*given)
            return [part.numpy() for part in (found if isinstance(found, list | tuple) else [found])]

        return run


RUNNERS: Final[dict[str, Callable[[], Runner]]] = {
    "tessera": Tessera,
    "onnxruntime": Onnxruntime,
    "openvino": OpenVino,
    "inductor": Inductor,
}
