"""LinearRegressor and LinearClassifier: a product, and what ai.onnx.ml does with scores.

Takes rows of features [N, F]; gives scores, and labels. Invariant: the one score of two classes becomes two as
onnxruntime makes them.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.containers import Value
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.ml.scores import (
    chosen,
    first_largest,
    floats,
    labels_of,
    matrix,
    named,
    post_transform,
    regressed,
    spelled,
    transformed,
)
from tessera_build.ir.core.types import F32, int_extent


def _scores(c: Context, n: Call, targets: int) -> Tensor:
    """x coefficientsᵀ + intercepts, in f32."""
    x = matrix(c, c.cast(n.input(0), F32), n.op)
    coefficients = n.numbers("coefficients")
    if targets < 1 or len(coefficients) % targets:
        raise ill_formed(f"{n.op} has another number of coefficients", found=f"{len(coefficients)} for {targets}")
    width = len(coefficients) // targets
    c.unify(x.shape[1], width, f"{n.op} has another number of features")
    weights = c.constant(floats(coefficients, F32.numpy, targets, width))
    scores = c.op("matmul", x, weights, transpose_b=True)
    intercepts = n.numbers("intercepts", ())
    if not intercepts:
        return scores
    return c.op("add", scores, c.constant(floats(intercepts, F32.numpy, targets)))


def _linear_regressor(c: Context, n: Call) -> Tensor:
    return regressed(c, _scores(c, n, n.integer("targets", 1)), post_transform(n))


def _linear_classifier(c: Context, n: Call) -> tuple[Value, ...]:
    labels, scores = _classified(c, n)
    return spelled(n, "classlabels_strings", labels), scores


def _classified(c: Context, n: Call) -> tuple[Tensor, Tensor]:
    n.ignore("multi_class")
    stated = n.numbers("intercepts", ())
    features = n.input(0).shape[-1]
    classes = len(stated) or len(n.numbers("coefficients")) // int_extent(features)
    scores = _scores(c, n, classes)
    word = post_transform(n)
    if classes > 1:
        labels = labels_of(n, "classlabels_ints", "classlabels_strings", classes)
        if len(labels) != classes:
            raise ill_formed("LinearClassifier has another number of labels", expected=str(classes), found=str(labels))
        return named(c, first_largest(c, scores), labels), transformed(c, scores, word)
    labels = labels_of(n, "classlabels_ints", "classlabels_strings", 2)
    pair = (labels[0], labels[1]) if len(labels) == 2 else (0, 1)
    positive = c.reshape(c.op("gt", scores, c.scalar(0.0, F32)), (scores.shape[0],))
    second = any(n.has(name) for name in ("classlabels_ints", "classlabels_strings")) and len(labels) == 2
    return chosen(c, positive, pair), _single(c, scores, word, second)


def _single(c: Context, scores: Tensor, word: str, second: bool) -> Tensor:
    """The result of a classifier with one score: two columns where it has two labels."""
    if word == "PROBIT" and second:
        raise unsupported("LinearClassifier with one score, two labels and PROBIT has no agreed result")
    if word in ("PROBIT", "LOGISTIC"):
        scores = transformed(c, scores, word)
    if not second:
        return scores
    return c.op("concat", c.op("sub", c.scalar(1.0, F32), scores), scores, axis=1)


LINEAR_OPERATORS: Mapping[str, Translator] = {
    "LinearRegressor": _linear_regressor,
    "LinearClassifier": _linear_classifier,
}
