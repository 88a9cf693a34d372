"""The operators of ai.onnx.ml that prepare features: Scaler, Normalizer, Binarizer, Imputer and their like.

Takes rows of numbers and attributes; gives core ops. Invariant: nothing here reads or writes strings.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.ml.scores import STRINGS, floats, matrix
from tessera_build.ir.core.types import F32, I64

_NORMS = ("MAX", "L1", "L2")


def _scaler(c: Context, n: Call) -> Tensor:
    """(x - offset) * scale, in f32 whatever comes in."""
    x = c.cast(n.input(0), F32)
    offset, scale = n.numbers("offset", (0.0,)), n.numbers("scale", (1.0,))
    width = max(len(offset), len(scale))
    if width > 1:
        c.unify(x.shape[-1], width, "Scaler has another number of features")
    spread = (c.constant(np.broadcast_to(floats(v, F32.numpy, len(v)), (width,)).copy()) for v in (offset, scale))
    low, factor = spread
    return c.op("mul", c.op("sub", x, low), factor)


def _normalizer(c: Context, n: Call) -> Tensor:
    """Each row over its norm; a row whose norm is zero stays as it is."""
    norm = n.text("norm", "MAX")
    if norm not in _NORMS:
        raise ill_formed("Normalizer has an unknown norm", expected=" | ".join(_NORMS), found=norm)
    shape = n.input(0).shape
    x = matrix(c, c.cast(n.input(0), F32), "Normalizer")
    if norm == "MAX":
        size = c.reduce("max", x, (1,), keepdims=True)
    elif norm == "L1":
        size = c.reduce("sum", c.op("abs", x), (1,), keepdims=True)
    else:
        size = c.op("sqrt", c.reduce("sum", c.op("mul", x, x), (1,), keepdims=True))
    nothing = c.op("eq", size, c.scalar(0.0, F32))
    return c.reshape(c.op("div", x, c.op("select", nothing, c.scalar(1.0, F32), size)), shape)


def _binarizer(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    threshold = n.number("threshold", 0.0)
    return c.cast(c.op("gt", x, c.scalar(threshold, x.dtype)), x.dtype)


def _imputer(c: Context, n: Call) -> Tensor:
    """Imputed values where the input equals the value to replace (NaN equals NaN)."""
    x = n.input(0)
    if x.dtype.is_float:
        values, replaced = n.numbers("imputed_value_floats", ()), n.number("replaced_value_float", 0.0)
        n.ignore("imputed_value_int64s", "replaced_value_int64")
    else:
        values, replaced = n.integers("imputed_value_int64s", ()), n.integer("replaced_value_int64", 0)
        n.ignore("imputed_value_floats", "replaced_value_float")
    if not values:
        raise ill_formed("Imputer states no values for this element type", found=str(x.type))
    if len(values) > 1:
        c.unify(x.shape[-1], len(values), "Imputer has another number of features")
    missing = c.op("isnan", x) if replaced != replaced else c.op("eq", x, c.scalar(replaced, x.dtype))
    return c.op("select", missing, c.constant(np.asarray(values).astype(x.dtype.numpy)), x)


def _array_feature_extractor(c: Context, n: Call) -> Tensor:
    """Chosen columns; a vector counts as one row."""
    x, places = n.input(0), n.input(1)
    chosen = c.reshape(places, (places.shape[-1],)) if places.rank != 1 else places
    if x.rank == 0:
        raise ill_formed("ArrayFeatureExtractor takes rows of features", found=str(x.type))
    rows = matrix(c, x, "ArrayFeatureExtractor") if x.rank == 1 else x
    return c.op("gather", rows, chosen, axis=rows.rank - 1)


def _feature_vectorizer(c: Context, n: Call) -> Tensor:
    """Features of several operands side by side in f32, each cut or filled with zeros to its stated width."""
    widths = n.integers("inputdimensions", ())
    operands = n.all_inputs()
    parts = [matrix(c, c.cast(x, F32), "FeatureVectorizer") for x in operands]
    if widths and len(widths) != len(parts):
        raise ill_formed("FeatureVectorizer states another number of widths", found=str(list(widths)))
    rows = parts[0].shape[0]
    fitted: list[Tensor] = []
    for position, part in enumerate(parts):
        c.unify(rows, part.shape[0], "FeatureVectorizer's operands have different numbers of rows")
        own, width = part.shape[1], widths[position] if widths else part.shape[1]
        if not isinstance(own, int) or not isinstance(width, int):  # no cutting and filling where it is a dim
            own = width = c.unify(width, own, "FeatureVectorizer's features have another number of columns")
            fitted.append(c.retyped(part, (rows, width)))
            continue
        part = c.slice(part, (0, 0), (rows, min(own, width)))
        if own < width:
            part = c.op("pad", part, low=(0, 0), high=(0, width - own), value=0.0)
        fitted.append(part)
    return fitted[0] if len(fitted) == 1 else c.op("concat", *fitted, axis=1)


def _one_hot_encoder(c: Context, n: Call) -> Tensor:
    """A new last axis with 1 where the value is the category; an unknown value is all zeros."""
    if n.has("cats_strings") and n.words("cats_strings", ()):
        raise unsupported("OneHotEncoder encodes strings", hint=STRINGS)
    categories = n.integers("cats_int64s", ())
    if not n.integer("zeros", 1):
        raise unsupported(
            "OneHotEncoder with zeros=0 is not built", hint="only zeros=1, where unknown values give zeros"
        )
    x = n.input(0)
    wide = c.reshape(c.cast(x, I64), (*x.shape, 1))
    return c.cast(c.op("eq", wide, c.constant(np.asarray(categories, np.int64))), F32)


def _category_mapper(c: Context, n: Call) -> Tensor:
    del c
    raise unsupported(f"{n.op} maps between strings and integers", hint=STRINGS)


FEATURE_OPERATORS: Mapping[str, Translator] = {
    "Scaler": _scaler,
    "Normalizer": _normalizer,
    "Binarizer": _binarizer,
    "Imputer": _imputer,
    "ArrayFeatureExtractor": _array_feature_extractor,
    "FeatureVectorizer": _feature_vectorizer,
    "OneHotEncoder": _one_hot_encoder,
    "CategoryMapper": _category_mapper,
}
