"""What no kernel of rows can be faster than, in the shape of a peer: a copy, and the exponentials, of as many numbers.

Takes a case with one input; gives runners. Invariant: the copy writes to memory that is there already and costs no
call of a runtime; the exponentials are a bundle of that one operator, called as the model beside it is called.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.peers.case import Case
from benchmarks.peers.runners import Run, Runner
from tessera_build.ir.graph.nodes import Array
from tessera_build.verify.aligned import aligned_copy


def copy(case: Case, _artifact: Path) -> Run:
    """The input to another place; both ends begin a cache line."""
    (value,) = case.feeds().values()
    given, taken = aligned_copy(value), aligned_copy(value)

    def run() -> list[Array]:
        np.copyto(taken, given)
        return [taken]

    return run


def exponentials(case: Case, artifact: Path) -> Run:
    """Of every number of the input, by the runtime alone."""
    model = importlib.import_module("tessera_runtime").load(artifact, threads=case.threads)
    feeds = case.feeds()
    return lambda: list(model.run(feeds).values())


LIMITS: Final[dict[str, Runner]] = {
    "copy": Runner("numpy", copy),
    "exponentials": Runner("tessera_runtime", exponentials),
}
