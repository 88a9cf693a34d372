"""What the classifiers and regressors of ai.onnx.ml share: post transforms, labels, and results of two classes.

Takes raw scores [N, E]; gives transformed scores and labels. Invariant: conventions that the specification leaves
open, such as what a single score of two classes becomes, are onnxruntime's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tessera_build.frontends.onnx.call import Call
from tessera_build.frontends.onnx.containers import Value, Words
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed
from tessera_build.frontends.onnx.indexing import counting
from tessera_build.ir.core.types import F32, F64, I32, I64
from tessera_build.ir.graph.nodes import Array

TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
_ZERO = 1e-7  # SOFTMAX_ZERO leaves scores of at most this size out of the sum
STRINGS = "strings are refused, but for a classifier's labels: use integers, and name them outside the model"


def post_transform(n: Call) -> str:
    """The node's post transform; raises for an unknown word."""
    word = n.text("post_transform", "NONE")
    if word not in TRANSFORMS:
        raise ill_formed(f"{n.op} has an unknown post transform", expected=" | ".join(TRANSFORMS), found=word)
    return word


def transformed(c: Context, scores: Tensor, word: str) -> Tensor:
    """Scores [N, E] after a post transform."""
    match word:
        case "SOFTMAX":
            return c.op("softmax", scores, axis=1)
        case "LOGISTIC":
            return c.op("sigmoid", scores)
        case "SOFTMAX_ZERO":
            return _softmax_zero(c, scores)
        case "PROBIT":
            return _probit(c, scores)
        case _:
            return scores


def regressed(c: Context, scores: Tensor, word: str) -> Tensor:
    """A regressor's result after its post transform, of which a single target takes PROBIT only."""
    return scores if scores.shape[1] == 1 and word != "PROBIT" else transformed(c, scores, word)


def _softmax_zero(c: Context, scores: Tensor) -> Tensor:
    """A softmax in which scores of zero stay zero and count for nothing."""
    zero = c.op("le", c.op("abs", scores), c.scalar(_ZERO, scores.dtype))
    top = c.reduce("max", scores, (1,), keepdims=True)
    powers = c.op("exp", c.op("sub", scores, top))
    small = c.op("mul", scores, c.op("exp", c.op("neg", top)))
    counted = c.op("select", zero, c.scalar(0.0, scores.dtype), powers)
    total = c.reduce("sum", counted, (1,), keepdims=True)
    return c.op("div", c.op("select", zero, small, powers), total)


def _probit(c: Context, scores: Tensor) -> Tensor:
    """The inverse of the normal distribution, by Winitzki's approximation of the inverse error function."""

    def number(value: float) -> Tensor:
        return c.scalar(value, scores.dtype)

    x = c.op("sub", c.op("mul", scores, number(2.0)), number(1.0))
    log = c.op("log", c.op("mul", c.op("sub", number(1.0), x), c.op("add", number(1.0), x)))
    v = c.op("add", number(2 / (3.14159 * 0.147)), c.op("mul", log, number(0.5)))
    root = c.op("sqrt", c.op("sub", c.op("mul", v, v), c.op("mul", log, number(1 / 0.147))))
    size = c.op("sqrt", c.op("sub", root, v))
    signed = c.op("select", c.op("lt", x, number(0.0)), c.op("neg", size), size)
    return c.op("mul", signed, number(math.sqrt(2.0)))


def labels_of(n: Call, name: str, strings: str, count: int) -> tuple[int, ...]:
    """The classes' integer labels; 0, 1, ... where the node states none, or strings (see `spelled`)."""
    words = n.words(strings, ())
    if words:
        n.ignore(name)
        return tuple(range(len(words)))
    return n.integers(name, tuple(range(count))) or tuple(range(count))


def spelled(n: Call, strings: str, labels: Tensor) -> Value:
    """Labels as the node states them: places among its strings, if it has any, are a result of their own kind."""
    words = n.words(strings, ())
    return Words(labels, words) if words else labels


def first_largest(c: Context, scores: Tensor) -> Tensor:
    """The place of the first largest score of each row [N], as i64."""
    found = c.op("eq", scores, c.reduce("max", scores, (1,), keepdims=True))
    places = c.op("select", found, counting(c, 2, 1, scores.shape[1]), c.scalar(2**31 - 1, I32))
    return c.cast(c.reduce("min", places, (1,), False), I64)


def named(c: Context, places: Tensor, labels: Sequence[int]) -> Tensor:
    """Labels by their places."""
    if list(labels) == list(range(len(labels))):
        return places
    return c.op("gather", c.constant(np.asarray(labels, np.int64)), places, axis=0)


def chosen(c: Context, positive: Tensor, labels: tuple[int, int]) -> Tensor:
    """The second label where a condition holds, else the first."""
    no, yes = (c.scalar(label, I64) for label in labels)
    return c.op("select", positive, yes, no)


def numbers(c: Context, n: Call, index: int = 0) -> Tensor:
    """An operand of numbers as floats: f64 stays, everything else is computed in f32."""
    x = n.input(index)
    return x if x.dtype == F64 else c.cast(x, F32)


def matrix(c: Context, x: Tensor, what: str) -> Tensor:
    """Rows of features [N, F]; one row may come without its axis."""
    if x.rank == 1:
        return c.reshape(x, (1, x.shape[0]))
    if x.rank != 2:
        raise ill_formed(f"{what} takes rows of features", found=str(x.type))
    return x


def floats(values: Sequence[float], dtype: np.dtype[np.generic], *shape: int) -> Array:
    """Numbers of an attribute as an array of a shape; raises where there are too many or too few."""
    wanted = math.prod(shape)
    if len(values) != wanted:
        raise ill_formed("an attribute has another number of values", expected=str(wanted), found=str(len(values)))
    return np.asarray(values, np.float64).astype(dtype).reshape(shape)
