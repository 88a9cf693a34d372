"""A model's own results: lists, maps and strings, put together from the outputs of a run.

Takes: what a bundle says of its results, and arrays by the names of its outputs.
Gives: the values that onnxruntime gives for the model that the bundle was built from.
Invariant: where a bundle says nothing, every output is a result.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from bundle_format.schema import Result
from tessera_runtime.arrays import Array, TensorSpec
from tessera_runtime.compat.values import NodeArg, node_arg, type_text

Answer = Array | list[Array] | list[dict[int | str, float]] | None


def results_of(outputs: Sequence[TensorSpec], told: Sequence[Result]) -> tuple[Result, ...]:
    """What the model gives, in its order."""
    return tuple(told) or tuple(Result(spec.name, "tensor", (spec.name,)) for spec in outputs)


def shown(result: Result, specs: Mapping[str, TensorSpec]) -> NodeArg:
    """A result as onnxruntime shows it; the elements of a list without any are called floats."""
    first = specs[result.outputs[0]] if result.outputs else None
    if first is not None and result.kind in ("tensor", "words"):
        shown_as = node_arg(first)
        return shown_as if result.kind == "tensor" else NodeArg(result.name, "tensor(string)", shown_as.shape)
    element = type_text("f32" if first is None else first.dtype)
    key = "string" if result.kind == "word_maps" else "int64"
    kinds = {"sequence": f"seq({element})", "nothing": f"optional({element})"}
    return NodeArg(result.name, kinds.get(result.kind, f"seq(map({key},{element}))"), [])


def assembled(result: Result, arrays: Mapping[str, Array]) -> Answer:
    """The value of a result, of the outputs that it is made of."""
    parts = [arrays[name] for name in result.outputs]
    match result.kind:
        case "tensor":
            return parts[0]
        case "sequence":
            return parts
        case "words":
            return np.take(np.asarray(result.labels, dtype=object), parts[0].astype(np.int64))
        case "integer_maps":
            return _maps(tuple(int(label) for label in result.labels), parts[0])
        case "word_maps":
            return _maps(result.labels, parts[0])
        case _:
            return None


def _maps(labels: Sequence[int | str], scores: Array) -> list[dict[int | str, float]]:
    return [dict(zip(labels, row, strict=True)) for row in scores.tolist()]
