"""LabelEncoder and ZipMap: numbers for numbers by a table, and scores with their labels.

Takes tensors and lists of labels; gives `look_up` over sorted keys, or the scores with their labels. Invariant: of
equal keys the last one holds, a key of NaN is found by any NaN, and keys that are strings are refused.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.containers import ScoreMaps
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.ml.scores import STRINGS, matrix
from tessera_build.ir.core.types import dtype_of
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.shapes import count

_KINDS = ("int64s", "floats", "tensor")
_TYPES = {"int64s": np.dtype(np.int64), "floats": np.dtype(np.float32)}


def _label_encoder(c: Context, n: Call) -> Tensor:
    strings = [name for name in ("keys_strings", "values_strings", "classes_strings") if n.has(name)]
    if strings:
        raise unsupported("LabelEncoder maps strings", found=", ".join(strings), hint=STRINGS)
    x, keys, values = n.input(0), _listed(n, "keys"), _listed(n, "values")
    if len(keys) != len(values) or not len(keys):
        raise ill_formed("LabelEncoder has another number of keys than values", found=f"{len(keys)}, {len(values)}")
    if keys.dtype != x.dtype.numpy:
        raise ill_formed("LabelEncoder's keys have another element type", expected=str(x.dtype), found=str(keys.dtype))
    default = c.constant(_default(n, values.dtype))
    rows = {key: row for row, key in enumerate(keys.tolist()) if key == key}
    ordered = sorted(rows)
    result = default
    if ordered:
        table, named = np.asarray(ordered).astype(keys.dtype), values[[rows[key] for key in ordered]]
        flat = c.reshape(x, (count(x.shape),))
        found = c.op("look_up", flat, c.constant(table), c.constant(named), default)
        result = c.reshape(found, x.shape)
    unknown = [row for row, key in enumerate(keys.tolist()) if key != key]
    if unknown:
        result = c.op("select", c.op("isnan", x), c.constant(values[unknown[-1]].reshape(())), result)
    return c.broadcast_to(result, x.shape)


def _listed(n: Call, what: str) -> Array:
    """The keys or the values as a vector."""
    present = [kind for kind in _KINDS if n.has(f"{what}_{kind}")]
    if len(present) != 1:
        raise ill_formed(f"LabelEncoder needs one list of {what}", found=", ".join(present) or "none")
    value = n.value(f"{what}_{present[0]}")
    return value.reshape(-1) if isinstance(value, np.ndarray) else np.asarray(value).astype(_TYPES[present[0]])


def _default(n: Call, dtype: np.dtype[np.generic]) -> Array:
    """The value of a number that is no key."""
    n.ignore("default_string", "default_int64", "default_float")
    stated = n.value("default_tensor") if n.has("default_tensor") else None
    if isinstance(stated, np.ndarray):
        return stated.reshape(()).astype(dtype)
    kind = dtype_of(dtype)
    number = n.number("default_float", -0.0) if kind.is_float else n.integer("default_int64", -1)
    return np.asarray(number).astype(dtype)


def _zip_map(c: Context, n: Call) -> ScoreMaps:
    """The scores [N, E] with their labels, of which onnxruntime makes maps that are sorted by them."""
    scores = n.input(0)
    labels = n.words("classlabels_strings", ()) or n.integers("classlabels_int64s", ())
    if scores.rank not in (1, 2) or not labels:
        raise ill_formed("ZipMap takes rows of scores and their labels", found=f"{scores.type}, {list(labels)}")
    rows = matrix(c, scores, "ZipMap")
    c.unify(rows.shape[1], len(labels), "ZipMap has another number of labels than scores")
    scores = c.retyped(rows, (rows.shape[0], len(labels)))
    order = sorted(range(len(labels)), key=lambda column: labels[column])
    if order == list(range(len(labels))):
        return ScoreMaps(scores, labels)
    arranged = tuple(labels[column] for column in order)
    return ScoreMaps(c.op("gather", scores, c.constant(np.asarray(order, np.int64)), axis=1), arranged)


LABEL_OPERATORS: Mapping[str, Translator] = {"LabelEncoder": _label_encoder, "ZipMap": _zip_map}
