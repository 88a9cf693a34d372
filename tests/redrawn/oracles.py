"""What onnxruntime and onnx's reference say of a case, and how far an answer may be from theirs.

Takes cases; gives outputs or None, and the first difference. Invariant: integers are compared exactly; floats by the
maximum of the output, special values by their places.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from tessera_build.ir.graph.nodes import Array
from tests.redrawn.cases import MICROSOFT, Case, Feeds

Answers = list[list[Array]]
Doubles = npt.NDArray[np.float64]
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


def by_reference(case: Case, fused: Sequence[type[OpRun]] = ()) -> Answers | None:
    """The answers of onnx's reference, with definitions of operators it lacks; None when it cannot."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            evaluator = ReferenceEvaluator(case.model, new_ops=list(fused))
            return [_arrays(evaluator.run(None, _copied(feeds))) for feeds in case.calls]
    except Exception:
        return None


class FastGelu(OpRun):
    """The fused operator as its schema defines it: onnx's reference has none of onnxruntime's own domain."""

    op_domain = MICROSOFT

    def _run(self, x: Doubles, bias: Doubles | None = None) -> tuple[Doubles]:
        x = x if bias is None else x + bias
        return (x * (0.5 * (1 + np.tanh(x * (0.035677408136300125 * x * x + 0.7978845608028654)))),)


def by_doubles(case: Case, moved: int = 0) -> Answers | None:
    """The reference's answers where each float32 that goes in is a double; None when it cannot.

    What is left of values that cancel, such as a mean of equal numbers less one of them, is rounding alone: oracles
    that round alike agree on it, and mean nothing by it. Where `moved` is the seed of a draw, each input lies half a
    step of a float32 up or down, and the answers are what a single rounding may make of them.
    """
    draws = np.random.default_rng(moved) if moved else None
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    if any(node.op_type in ("Cast", "CastLike") for node in model.graph.node):
        return None
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(_wide(numpy_helper.to_array(tensor), draws), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    calls = [{n: _wide(a, draws) if a.dtype == np.float32 else a for n, a in feeds.items()} for feeds in case.calls]
    return by_reference(Case(case.name, model, calls, case.steps), [FastGelu])


def _wide(values: Array, draws: np.random.Generator | None) -> Array:
    wide = values.astype(np.float64)
    return wide if draws is None else wide * (1 + draws.choice([-(2.0**-24), 2.0**-24], values.shape))


def beyond_rounding(case: Case, found: Answers, oracle: Answers, exact: Answers) -> bool:
    """True unless answers differ from an oracle's by no more than inputs rounded once would make of the exact ones."""
    drawn = [answers for draw in range(1, 5) if (answers := by_doubles(case, draw)) is not None]
    if not drawn:
        return True
    for call, results in enumerate(found):
        for place, result in enumerate(results):
            reference, truth = oracle[call][place], exact[call][place]
            moved = [answers[call][place] for answers in drawn]
            if result.dtype != np.float32 or any(a.shape != result.shape for a in (reference, truth, *moved)):
                return True
            with np.errstate(invalid="ignore"):
                reach = np.max([np.abs(np.subtract(other, truth, dtype=np.float64)) for other in moved], axis=0)
                ill = np.abs(np.subtract(result, reference, dtype=np.float64)) <= reach
            if _differs(np.where(ill, reference, result), reference, case.steps):
                return True
    return False


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
