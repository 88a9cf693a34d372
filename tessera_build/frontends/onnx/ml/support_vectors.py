"""SVMRegressor and SVMClassifier: kernels between rows and support vectors.

Takes rows of features [N, F]; gives weighed sums of the kernels, and what a classifier makes of them. Invariant:
distances are taken before they are squared, so that near vectors lose no digits; conventions are onnxruntime's.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.containers import Value
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.ml.scores import (
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
from tessera_build.ir.core.types import F32
from tessera_build.ir.graph.nodes import Array

_LEAST_CHANCE = 1e-7
_MOST_COUPLED = 64  # classes: their pairs are kept on the stack
_KERNELS = ("LINEAR", "POLY", "RBF", "SIGMOID")


def _kernel(c: Context, n: Call, x: Tensor, vectors: NDArray[np.float32]) -> Tensor:
    """The kernel of every row with every support vector [N, S]."""
    kind = n.text("kernel_type", "LINEAR")
    stated = (*n.numbers("kernel_params", ()), 0.0, 0.0, 0.0)
    gamma, offset, degree = (c.scalar(value, F32) for value in stated[:3])
    if kind not in _KERNELS:
        raise ill_formed(f"{n.op} has an unknown kernel", expected=" | ".join(_KERNELS), found=kind)
    if kind == "RBF":
        rows, features = x.shape
        apart = c.op("sub", c.reshape(x, (rows, 1, features)), c.constant(vectors[None]))
        distance = c.reduce("sum", c.op("mul", apart, apart), (2,), False)
        return c.op("exp", c.op("neg", c.op("mul", gamma, distance)))
    products = c.op("matmul", x, c.constant(vectors), transpose_b=True)
    if kind == "LINEAR":
        return products
    inner = c.op("add", c.op("mul", gamma, products), offset)
    return c.op("tanh", inner) if kind == "SIGMOID" else c.op("pow", inner, degree)


def _rows(c: Context, n: Call, features: int) -> Tensor:
    x = matrix(c, c.cast(n.input(0), F32), n.op)
    return c.retyped(x, (x.shape[0], c.unify(features, x.shape[1], f"{n.op} has another number of features")))


def _regressor(c: Context, n: Call) -> Tensor:
    supports, coefficients = n.integer("n_supports", 0), n.numbers("coefficients")
    rho, word = n.numbers("rho"), post_transform(n)
    one_class = n.integer("one_class", 0)
    if supports > 0:
        stated = n.numbers("support_vectors")
        features = len(stated) // supports
        vectors = floats(stated, F32.numpy, supports, features).astype(np.float32)
        kernels = _kernel(c, n, _rows(c, n, features), vectors)
    else:
        n.ignore("support_vectors", "kernel_type", "kernel_params")
        kernels = _rows(c, n, len(coefficients))
    weights = c.constant(floats(coefficients, F32.numpy, len(coefficients), 1))
    score = c.op("add", c.op("matmul", kernels, weights), c.scalar(rho[0], F32))
    if one_class:
        signs = c.scalar(1.0, F32), c.scalar(-1.0, F32)
        score = c.op("select", c.op("gt", score, c.scalar(0.0, F32)), *signs)
    return regressed(c, score, word)


def _classifier(c: Context, n: Call) -> tuple[Value, ...]:
    counts, coefficients = n.integers("vectors_per_class", ()), n.numbers("coefficients")
    if len(counts) < 2:
        raise unsupported("SVMClassifier without support vectors of two classes is not built")
    stated, supports, classes = n.numbers("support_vectors"), sum(counts), len(counts)
    features = len(stated) // max(supports, 1)
    vectors = floats(stated, F32.numpy, supports, features).astype(np.float32)
    weights = _weights(floats(coefficients, F32.numpy, classes - 1, supports), counts)
    rho = floats(n.numbers("rho"), F32.numpy, weights.shape[1])
    kernels = _kernel(c, n, _rows(c, n, features), vectors)
    decisions = c.op("add", c.op("matmul", kernels, c.constant(weights)), c.constant(rho))
    labels = labels_of(n, "classlabels_ints", "classlabels_strings", classes)
    if len(labels) != classes:
        raise ill_formed("SVMClassifier has another number of labels", expected=str(classes), found=str(len(labels)))
    slopes, shifts, word = n.numbers("prob_a", ()), n.numbers("prob_b", ()), post_transform(n)
    winners = first_largest(c, _votes(c, decisions, classes))
    if slopes and classes > _MOST_COUPLED:
        raise unsupported("SVMClassifier with probabilities of this many classes is not built", found=str(classes))
    if slopes:
        scores = transformed(c, _probabilities(c, decisions, (slopes, shifts), classes), word)
    else:
        scores = _decided(c, decisions, classes, word)
    return spelled(n, "classlabels_strings", named(c, winners, labels)), scores


def _weights(coefficients: Array, counts: Sequence[int]) -> NDArray[np.float32]:
    """Weights of the support vectors in each decision between two classes [S, P], in the order (0, 1), (0, 2), ..."""
    starts, dense = [0, *itertools.accumulate(counts)], coefficients.astype(np.float32)
    columns: list[NDArray[np.float32]] = []
    for i, j in itertools.combinations(range(len(counts)), 2):
        column = np.zeros(starts[-1], np.float32)
        column[starts[i] : starts[i + 1]] = dense[j - 1, starts[i] : starts[i + 1]]
        column[starts[j] : starts[j + 1]] = dense[i, starts[j] : starts[j + 1]]
        columns.append(column)
    return np.stack(columns, 1)


def _votes(c: Context, decisions: Tensor, classes: int) -> Tensor:
    """How many decisions each class wins [N, C]."""
    pairs = list(itertools.combinations(range(classes), 2))
    won, lost = np.zeros((2, len(pairs), classes), np.float32)
    for place, (i, j) in enumerate(pairs):
        won[place, i], lost[place, j] = 1, 1
    first = c.cast(c.op("gt", decisions, c.scalar(0.0, F32)), F32)
    second = c.op("sub", c.scalar(1.0, F32), first)
    return c.op("add", c.op("matmul", first, c.constant(won)), c.op("matmul", second, c.constant(lost)))


def _decided(c: Context, decisions: Tensor, classes: int, word: str) -> Tensor:
    """The decisions as scores; the only one of two classes becomes two columns."""
    if classes > 2:
        return transformed(c, decisions, word)
    if word == "PROBIT":
        raise unsupported("SVMClassifier with one score, two labels and PROBIT has no agreed result")
    if word in ("NONE", "LOGISTIC"):
        return transformed(c, c.op("concat", c.op("neg", decisions), decisions, axis=1), word)
    return c.op("concat", c.op("sub", c.scalar(1.0, F32), decisions), decisions, axis=1)


def _probabilities(
    c: Context, decisions: Tensor, platt: tuple[Sequence[float], Sequence[float]], classes: int
) -> Tensor:
    """Probabilities of all classes from those of each pair, which are logistic in its decision."""
    slopes, shifts = (c.constant(floats(values, F32.numpy, classes * (classes - 1) // 2)) for values in platt)
    chances = c.op("sigmoid", c.op("neg", c.op("add", c.op("mul", decisions, slopes), shifts)))
    low, high = c.scalar(_LEAST_CHANCE, F32), c.scalar(1 - _LEAST_CHANCE, F32)
    chances = c.op("min", c.op("max", chances, low), high)
    both = c.op("concat", chances, c.op("sub", c.scalar(1.0, F32), chances), axis=1)
    pairs = list(itertools.combinations(range(classes), 2))
    column = {pair: place for place, pair in enumerate(pairs)} | {
        (j, i): len(pairs) + place for place, (i, j) in enumerate(pairs)
    }
    square = np.asarray([column.get((i, j), 0) for i, j in itertools.product(range(classes), repeat=2)])
    table = c.op("gather", both, c.constant(square), axis=1)
    return c.op("coupled", c.reshape(table, (table.shape[0], classes, classes)))


SUPPORT_VECTOR_OPERATORS: Mapping[str, Translator] = {"SVMRegressor": _regressor, "SVMClassifier": _classifier}
