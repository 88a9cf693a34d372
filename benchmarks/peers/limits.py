"""What no kernel of rows can be faster than, in the shape of a peer: a copy, and the exponentials, of as many numbers.

Takes a case with one input; gives runners. Invariant: the copy writes to memory that is there already and costs no
call of a runtime; the exponentials are a bundle of that one operator, called as the model beside it is called.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.peers.runners import Case, Run, Runner
from tessera_build.ir.graph.nodes import Array

_ALIGNMENT = 64


class Copy:
    """The input to another place."""

    module = "numpy"

    def build(self, case: Case) -> Path:
        """Nothing to build: the input's own file."""
        return case.folder / f"{case.name}.npz"

    def load(self, case: Case, artifact: Path) -> Run:  # noqa: ARG002  (the artifact is the case's own input)
        """Both ends begin a cache line."""
        (value,) = case.feeds().values()
        given, taken = _aligned(value), _aligned(value)

        def run() -> list[Array]:
            np.copyto(taken, given)
            return [taken]

        return run


class Exponentials:
    """Of every number of the input."""

    module = "tessera_runtime"

    def build(self, case: Case) -> Path:
        """A bundle."""
        from onnx import TensorProto, helper  # noqa: PLC0415  (a process that only loads must import neither)

        from tessera_build.driver.build import build  # noqa: PLC0415

        ((name, value),) = case.feeds().items()
        described = [helper.make_tensor_value_info(n, TensorProto.FLOAT, value.shape) for n in (name, "e")]
        graph = helper.make_graph([helper.make_node("Exp", [name], ["e"])], "e", described[:1], described[1:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        source, path = case.artifact("exponentials", "onnx"), case.artifact("exponentials", "tessera")
        source.write_bytes(model.SerializeToString(deterministic=True))
        build(source, targets=["native"], out=path)
        return path

    def load(self, case: Case, artifact: Path) -> Run:
        """The runtime alone."""
        model = importlib.import_module("tessera_runtime").load(artifact, threads=case.threads)
        feeds = case.feeds()
        return lambda: list(model.run(feeds).values())


def _aligned(value: Array) -> Array:
    room = np.zeros(value.nbytes + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    found = room[start : start + value.nbytes].view(value.dtype).reshape(value.shape)
    found[...] = value
    return found


LIMITS: Final[dict[str, Callable[[], Runner]]] = {"copy": Copy, "exponentials": Exponentials}
