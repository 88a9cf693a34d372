"""What onnxruntime and onnx's reference say of a case, and how far an answer may be from theirs.

Takes cases; gives outputs or None, and the first difference. Invariant: integers are compared exactly; floats by the
maximum of the output, special values by their places.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from tessera_build.ir.graph.nodes import Array
from tests.redrawn.cases import Case, Feeds

Answers = list[list[Array]]
_TOLERANCES = {"bfloat16": 2e-2, "float16": 3e-3}


def by_onnxruntime(case: Case) -> Answers | None:
    """Its answers to all calls; None when it refuses the model or a call."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(
            case.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return [_arrays(session.run(None, feeds)) for feeds in case.calls]
    except Exception:
        return None


def by_reference(case: Case) -> Answers | None:
    """The answers of onnx's reference; None when it cannot."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            evaluator = ReferenceEvaluator(case.model)
            return [_arrays(evaluator.run(None, _copied(feeds))) for feeds in case.calls]
    except Exception:
        return None


def by_doubles(case: Case) -> Answers | None:
    """The reference's answers where each float32 that goes in is a double; None when it cannot.

    What is left of values that cancel, such as a mean of equal numbers less one of them, is rounding alone: oracles
    that round alike agree on it, and mean nothing by it.
    """
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    if any(node.op_type in ("Cast", "CastLike") for node in model.graph.node):
        return None
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    calls = [{n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in f.items()} for f in case.calls]
    return by_reference(Case(case.name, model, calls, case.steps))


def farther(found: Answers, oracle: Answers, exact: Answers) -> bool:
    """True unless the answers lie at most as far from the exact ones as an oracle's do, output by output."""
    for results, references, truths in zip(found, oracle, exact, strict=True):
        for result, reference, truth in zip(results, references, truths, strict=True):
            if result.dtype != np.float32 or result.shape != truth.shape or not np.isfinite(truth).all():
                return True
            wide = np.asarray(truth, np.float64)
            errors = [float(np.max(np.abs(np.asarray(a, np.float64) - wide), initial=0.0)) for a in (result, reference)]
            if not errors[0] <= errors[1]:
                return True
    return False


def _copied(feeds: Feeds) -> dict[str, object]:
    return {name: np.array(array) for name, array in feeds.items()}


def _arrays(values: Sequence[object] | object) -> list[Array]:
    """Arrays of tensors; sequences one after the other."""
    found: list[Array] = []
    for value in values if isinstance(values, Sequence) else [values]:
        found.extend(np.asarray(v) for v in (value if isinstance(value, list) else [value]))
    return found


def difference(found: Answers, wanted: Answers, steps: int = 0) -> str:
    """The first difference beyond the tolerance, else nothing."""
    for call, (results, references) in enumerate(zip(found, wanted, strict=True)):
        if len(results) != len(references):
            return f"call {call}: {len(results)} outputs, not {len(references)}"
        for position, (result, reference) in enumerate(zip(results, references, strict=True)):
            text = _differs(result, reference, steps)
            if text:
                return f"call {call}, output {position}: {text}"
    return ""


def _differs(result: Array, reference: Array, steps: int) -> str:
    if (result.dtype, result.shape) != (reference.dtype, reference.shape):
        return f"{result.dtype}{result.shape}, not {reference.dtype}{reference.shape}"
    if reference.dtype.kind in "iubOU":
        other = np.asarray(result != reference)
        if steps and reference.dtype.itemsize == 1 and reference.dtype.kind in "iu":
            other = np.abs(result.astype(np.int64) - reference.astype(np.int64)) > steps
        return _shown(result, reference, other) if other.any() else ""
    left, right = result.astype(np.float64), reference.astype(np.float64)
    usual = np.isfinite(right)
    other = np.where(usual, False, ~((left == right) | (np.isnan(left) & np.isnan(right))))
    scale = float(np.max(np.abs(right), initial=0.0, where=usual & (np.abs(right) < 1e30)))
    relative = _TOLERANCES.get(reference.dtype.name, 1e-4) + steps * 1e-2
    with np.errstate(invalid="ignore"):
        near = np.abs(left - right) <= relative * np.maximum(scale, np.abs(right)) + 1e-37
    other |= usual & ~near
    return _shown(result, reference, other) if other.any() else ""


def _shown(result: Array, reference: Array, other: Array) -> str:
    place = tuple(int(i) for i in np.argwhere(other)[0]) if other.ndim else ()
    count = int(np.sum(other))
    return f"{result[place]!r}, not {reference[place]!r} at {place}, {count} of {other.size} elements"


def outputs_of(model: onnx.ModelProto) -> list[str]:
    """Names in order."""
    return [info.name for info in model.graph.output]
