"""Float operators of com.microsoft that onnxruntime's optimiser and exporters write: products, activations, norms.

Takes what onnxruntime documents for each; gives core ops, mostly through the translators of ONNX's own operators.
Invariant: a fused operator is exactly the operators that it stands for, so the compiler fuses them by its own rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tessera_build.frontends.onnx.call import AttributeValue, Call, Translator
from tessera_build.frontends.onnx.containers import Value
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.contraction import CONTRACTION_OPERATORS, matrix_product
from tessera_build.frontends.onnx.elementwise import ELEMENTWISE_OPERATORS
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.indexing import INDEXING_OPERATORS
from tessera_build.frontends.onnx.normalisation import NORMALISATION_OPERATORS
from tessera_build.frontends.onnx.padding import PADDING_OPERATORS
from tessera_build.frontends.onnx.pooling import POOLING_OPERATORS
from tessera_build.frontends.onnx.reductions import flattened, square
from tessera_build.frontends.onnx.windows import WINDOW_OPERATORS
from tessera_build.ir.core.types import I32, I64

# The parameters of a fused activation, in onnxruntime's order, by the attribute they are in ONNX.
_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "Clip": ("min", "max"),
    "Celu": ("alpha",),
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Selu": ("alpha", "gamma"),
    "Sigmoid": (),
    "Softplus": (),
    "Softsign": (),
    "Tanh": (),
    "ThresholdedRelu": ("alpha",),
}
_TABLES = (ELEMENTWISE_OPERATORS, NORMALISATION_OPERATORS)
# Clip has its bounds as attributes before opset 11.
_ATTRIBUTES_ONLY = 10
_LATE = 21


def applied(c: Context, op: str, *inputs: Tensor | None, **attributes: AttributeValue) -> tuple[Tensor, ...]:
    """The results of one of ONNX's own operators."""
    translate = next(table[op] for table in _TABLES if op in table)
    results = translate(c, Call(op, _ATTRIBUTES_ONLY, inputs, ("y", "mean", "inverse"), attributes))
    given = results if isinstance(results, tuple) else (results,)
    return tuple(r for r in given if isinstance(r, Tensor))


def activated(c: Context, x: Tensor, activation: str, parameters: tuple[float, ...]) -> Tensor:
    """The result of the activation that a fused operator names."""
    if activation not in _PARAMETERS:
        raise unsupported(f"the fused activation {activation} is not built")
    return applied(c, activation, x, **dict(zip(_PARAMETERS[activation], parameters, strict=False)))[0]


def _only(results: Value | tuple[Value, ...]) -> Tensor:
    first = results[0] if isinstance(results, tuple) else results
    assert isinstance(first, Tensor), "these operators give tensors"
    return first


def _fused_matmul(c: Context, n: Call) -> Tensor:
    """alpha * a @ b; a flag `transBatch` says that the first axis stands before the columns, after the batch."""
    a = _first_after_batch(c, n.input(0), n.integer("transBatchA", 0))
    b = _first_after_batch(c, n.input(1), n.integer("transBatchB", 0))
    flip_a, flip_b = (bool(n.integer(name, 0)) and t.rank > 1 for name, t in (("transA", a), ("transB", b)))
    left = c.reshape(a, (1, *a.shape)) if a.rank == 1 else a
    right = c.reshape(b, (*b.shape, 1)) if b.rank == 1 else b
    result = matrix_product(c, left, right, flip_a, flip_b)
    shape = [*result.shape[:-2], *result.shape[-2:-1][: a.rank - 1], *result.shape[-1:][: b.rank - 1]]
    return _scaled(c, c.reshape(result, shape), n.number("alpha", 1.0))


def _first_after_batch(c: Context, x: Tensor, wanted: int) -> Tensor:
    return c.transpose(x, (*range(1, x.rank - 1), 0, x.rank - 1)) if wanted and x.rank > 2 else x


def _scaled(c: Context, x: Tensor, factor: float) -> Tensor:
    return x if factor == 1.0 else c.op("mul", x, c.scalar(factor, x.dtype))


def _fused_gemm(c: Context, n: Call) -> Tensor:
    result = _only(CONTRACTION_OPERATORS["Gemm"](c, n))
    names = [f"activation_{name}" for name in ("alpha", "beta", "gamma")]
    parameters = tuple(n.number(name) for name in names if n.has(name))
    activation = n.text("activation", "")
    return activated(c, result, activation, parameters) if activation else result


def _fused_conv(c: Context, n: Call) -> Tensor:
    """Convolution, bias, a sum with operand 3 and an activation."""
    result, other = _only(WINDOW_OPERATORS["Conv"](c, n)), n.optional(3)
    if other is not None:
        result = c.op("add", result, other)
    stated = n.value("activation_params") if n.has("activation_params") else ()
    parameters = tuple(float(v) for v in stated) if isinstance(stated, tuple) else ()
    activation = n.text("activation", "")
    return activated(c, result, activation, parameters) if activation else result


def _channels_last(body: Translator) -> Translator:
    """An operator on [batch, ..., channels]; the transposes meet others of the model's, or the compiler's layouts."""

    def translate(c: Context, n: Call) -> Tensor:
        x = n.input(0)
        first = c.transpose(x, (0, x.rank - 1, *range(1, x.rank - 1)))
        result = _only(body(c, replace(n, inputs=(first, *n.inputs[1:]), opset=_LATE)))
        return c.transpose(result, (0, *range(2, result.rank), 1))

    return translate


def _late(body: Translator) -> Translator:
    """An operator that is ONNX's of a late opset under another domain."""

    def translate(c: Context, n: Call) -> Value | tuple[Value, ...]:
        return body(c, replace(n, opset=_LATE))

    return translate


def _biased(c: Context, n: Call) -> Tensor:
    x, bias = n.input(0), n.optional(1)
    return x if bias is None else c.op("add", x, bias)


def _gelu(kind: str) -> Translator:
    def translate(c: Context, n: Call) -> Tensor:
        return applied(c, "Gelu", _biased(c, n), approximate=kind)[0]

    return translate


def _quick_gelu(c: Context, n: Call) -> Tensor:
    return applied(c, "Swish", n.input(0), alpha=n.number("alpha", 1.702))[0]


def _bias_split_gelu(c: Context, n: Call) -> Tensor:
    """The first half of the last axis times gelu of the second."""
    x = _biased(c, n)
    extent = x.shape[-1]
    if not isinstance(extent, int) or extent % 2:
        raise unsupported("BiasSplitGelu takes an even number of columns, known at build time", found=str(x.type))
    halves = [
        c.slice(x, (*(0,) * (x.rank - 1), i * extent // 2), (*x.shape[:-1], (i + 1) * extent // 2)) for i in (0, 1)
    ]
    return c.op("mul", halves[0], applied(c, "Gelu", halves[1], approximate="none")[0])


def _bias_add(c: Context, n: Call) -> Tensor:
    return c.op("add", c.op("add", n.input(0), n.input(1)), n.input(2))


def _bias_softmax(c: Context, n: Call) -> Tensor:
    x = c.op("add", n.input(0), n.input(1))
    n.ignore("is_inner_broadcast")
    axis = n.axis(x.rank, 1)
    return c.reshape(c.op("softmax", flattened(c, x, axis), axis=1), x.shape)


def _simplified_layer(c: Context, n: Call) -> Tensor:
    attributes: dict[str, AttributeValue] = {"epsilon": n.number("epsilon", 1e-5), "axis": n.integer("axis", -1)}
    return applied(c, "RMSNormalization", n.input(0), n.input(1), **attributes, stash_type=n.integer("stash_type", 1))[
        0
    ]


def _skip_layer(c: Context, n: Call) -> tuple[Tensor, ...]:
    """Layer norm of x + skip + bias, and that sum."""
    total = c.op("add", n.input(0), n.input(1))
    bias = n.optional(4)
    total = total if bias is None else c.op("add", total, bias)
    epsilon = n.number("epsilon", 1e-12)
    return (*applied(c, "LayerNormalization", total, n.input(2), n.optional(3), epsilon=epsilon), total)


def _skip_simplified_layer(c: Context, n: Call) -> tuple[Tensor, ...]:
    total = c.op("add", n.input(0), n.input(1))
    bias = n.optional(3)
    total = total if bias is None else c.op("add", total, bias)
    if n.wants(1) or n.wants(2):
        raise unsupported(f"{n.op} with its statistics as results is not built")
    result = applied(c, "RMSNormalization", total, n.input(2), epsilon=n.number("epsilon", 1e-12))[0]
    return result, result, result, total


def _embed_layer(c: Context, n: Call) -> tuple[Tensor, ...]:
    """Layer norm of the sum of embeddings of words, places and segments; how long each row is; the sum."""
    ids, segments, places = n.input(0), n.optional(1), n.optional(8)
    n.ignore("mask_index_type")
    if places is None:
        places = c.op("iota", shape=(1, ids.shape[1]), axis=1, dtype=I64)
    tables = [t for t in (n.input(2), n.input(3), n.optional(4)) if t is not None]
    if any(t.rank != 2 for t in tables) or len({t.shape[1] for t in tables if isinstance(t.shape[1], int)}) > 1:
        found = ", ".join(str(t.type) for t in tables)
        raise ill_formed("the tables of EmbedLayerNormalization differ in width", found=found)
    total = c.op("add", c.op("gather", tables[0], ids, axis=0), c.op("gather", tables[1], places, axis=0))
    if segments is not None:
        total = c.op("add", total, c.op("gather", n.input(4), segments, axis=0))
    result = applied(c, "LayerNormalization", total, n.input(5), n.input(6), epsilon=n.number("epsilon", 1e-12))[0]
    mask = n.optional(7)
    if mask is None:
        lengths = c.broadcast_to(c.scalar(0, I32), ids.shape[:1])
    else:
        lengths = c.reduce("sum", c.cast(c.op("eq", mask, c.scalar(1, mask.dtype)), I32), (1,), keepdims=False)
    return result, lengths, total


def _distances(c: Context, n: Call) -> Tensor:
    """|a|² + |b|² - 2 a b for every pair of rows, or its root."""
    a, b, metric = n.input(0), n.input(1), n.text("metric", "sqeuclidean")
    if metric not in ("sqeuclidean", "euclidean"):
        raise unsupported(f"CDist with metric={metric} is not built")
    if a.rank != 2 or b.rank != 2:
        raise ill_formed("CDist takes matrices", found=f"{a.type}, {b.type}")
    lengths = [c.reduce("sum", square(c, t), (1,), keepdims=True) for t in (a, b)]
    both = c.op("add", lengths[0], c.transpose(lengths[1], (1, 0)))
    product = matrix_product(c, a, b, transpose_b=True)
    result = c.op("max", c.op("sub", both, c.op("add", product, product)), c.scalar(0, a.dtype))
    return c.op("sqrt", result) if metric == "euclidean" else result


CONTRIB_OPERATORS: Mapping[str, Translator] = {
    "FusedMatMul": _fused_matmul,
    "TransposeMatMul": _fused_matmul,
    "FusedGemm": _fused_gemm,
    "FusedConv": _fused_conv,
    "NhwcConv": _channels_last(WINDOW_OPERATORS["Conv"]),
    "NhwcFusedConv": _channels_last(_fused_conv),
    "NhwcMaxPool": _channels_last(POOLING_OPERATORS["MaxPool"]),
    "Gelu": _gelu("none"),
    "BiasGelu": _gelu("none"),
    "FastGelu": _gelu("tanh"),
    "QuickGelu": _quick_gelu,
    "BiasSplitGelu": _bias_split_gelu,
    "BiasAdd": _bias_add,
    "BiasSoftmax": _bias_softmax,
    "LayerNormalization": NORMALISATION_OPERATORS["LayerNormalization"],
    "SimplifiedLayerNormalization": _simplified_layer,
    "SkipLayerNormalization": _skip_layer,
    "SkipSimplifiedLayerNormalization": _skip_simplified_layer,
    "EmbedLayerNormalization": _embed_layer,
    "CDist": _distances,
    "Trilu": _late(INDEXING_OPERATORS["Trilu"]),
    "GatherND": _late(INDEXING_OPERATORS["GatherND"]),
    "Pad": _late(PADDING_OPERATORS["Pad"]),
}
# onnxruntime writes these into ONNX's own domain, which does not have them.
BORROWED_OPERATORS: Mapping[str, Translator] = {"SimplifiedLayerNormalization": _simplified_layer}
