"""onnxruntime as the independent reference: it reads the model from its own file, not from our Graph IR.

Takes: the model as the user gave it (a path, or the bytes of a protobuf).
Gives: `OnnxReference`, which runs it on one thread.
Invariant: nothing of Tessera stands between the file and the answer.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, final

import numpy as np
import onnxruntime

from tessera_build.ir.graph.nodes import Array
from tessera_build.verify.compare import error_of
from tessera_build.verify.errors import VerificationError

_FATAL_ONLY = 4  # what it refuses comes as an exception
# Runs of one model in floats of 32 bits that nothing turns are nearer to each other.
_FAR: Final = 1e-4
# By output, how far runs with and without the optimiser are from each other.
Apart = dict[str, float]


@final
class OnnxReference:
    """A session of onnxruntime; `version` goes into the proof. Not `optimised`: it computes what the file says."""

    def __init__(self, model: Path | bytes, threads: int = 1, *, optimised: bool = True) -> None:
        self._model, self._threads, self._plain = model, threads, None if optimised else self
        options = onnxruntime.SessionOptions()
        if not optimised:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _FATAL_ONLY
        source = str(model) if isinstance(model, Path) else model
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors are of many types, with the C++ exception's text
            raise _refused("onnxruntime does not load the model", error) from error
        self._inputs = {value.name for value in self._session.get_inputs()}
        self._outputs = [value.name for value in self._session.get_outputs()]
        self.version: Final = str(onnxruntime.__version__)

    def near(self, inputs: Mapping[str, Array], answers: Mapping[str, Array]) -> tuple[dict[str, Array], Apart]:
        """All outputs, each by the run that is nearer to `answers`: with the optimiser, or without it.

        The optimiser takes quantised steps together and rounds in other places; a step or a choice that is turned by
        that moves an answer by any amount. Without it, the file alone says where numbers are rounded. The second run is
        made only where the first one is far from `answers`.
        """
        found = self.run(inputs)
        far = [name for name, array in found.items() if name in answers and error_of(answers[name], array) > _FAR]
        if not far or self._plain is self:
            return found, {}
        if self._plain is None:
            self._plain = OnnxReference(self._model, self._threads, optimised=False)
        plain = self._plain.run(inputs)
        between = {name: error_of(plain[name], found[name]) for name in far}
        nearer = {n for n in far if error_of(answers[n], plain[n]) < error_of(answers[n], found[n])}
        return {name: plain[name] if name in nearer else array for name, array in found.items()}, between

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by the names that they have in a bundle: those of a sequence are called name[0], name[1], ...

        Strings are left out: a bundle gives their places in a list that onnxruntime does not tell.
        """
        feeds = {name: array for name, array in inputs.items() if name in self._inputs}
        try:
            results = self._session.run(self._outputs, feeds)
        except Exception as error:
            raise _refused("onnxruntime does not run the model on these inputs", error) from error
        found: dict[str, Array] = {}
        for name, result in zip(self._outputs, results, strict=True):
            found |= _arrays(name, result)
        return found


def _arrays(name: str, result: object) -> dict[str, Array]:
    """A result as arrays: rows of scores by label (ZipMap) in the order of the labels, as a bundle gives them."""
    if result is None:
        return {}
    if not isinstance(result, list):
        array = np.asarray(result)
        return {} if array.dtype.kind in "OU" else {name: array}
    members: list[object] = result
    rows = [member for member in members if isinstance(member, dict)]
    if rows:
        scores: list[dict[object, float]] = rows
        return {name: np.asarray([list(row.values()) for row in scores], np.float32)}
    return {f"{name}[{index}]": np.asarray(member) for index, member in enumerate(members)}


def _refused(message: str, error: Exception) -> VerificationError:
    return VerificationError(
        "REFERENCE_FAILED",
        message,
        found=" ".join(str(error).split())[:400],
        hint="build with --no-verify to get a bundle without this proof",
    )
