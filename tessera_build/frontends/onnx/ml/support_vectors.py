"""SVMRegressor: kernels between rows and support vectors.

Takes rows of features [N, F]; gives the weighed sum of the kernels [N, 1]. Invariant: distances are taken before they
are squared, so that near vectors lose no digits.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed
from tessera_build.frontends.onnx.ml.scores import floats, matrix, post_transform, regressed
from tessera_build.ir.core.types import F32

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


SUPPORT_VECTOR_OPERATORS: Mapping[str, Translator] = {"SVMRegressor": _regressor}
