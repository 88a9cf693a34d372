"""Rows of the table of torch's operators that compute: arithmetic, sums, products, windows.

Takes a writer and the operands of a traced call; gives values. Invariant: what cannot be written raises `Unmapped`.
"""

# ruff: noqa: ANN401  values of traced programs are anything

from __future__ import annotations

import math
from typing import Any

from tessera_build.ir.core.types import BOOL, F64, I64
from tests.autodiff.aten_matrices import divided, gelu
from tests.autodiff.aten_writer import Row, Unmapped, Value, Writer, element_type


def _unary(name: str) -> Row:
    def row(w: Writer, x: Value) -> int:
        if not w.type(x.id).dtype.is_float and name != "abs":
            raise Unmapped(f"{name} of integers")
        return w.b.op(name, x.id)

    return row


def _binary(name: str) -> Row:
    def row(w: Writer, x: Any, y: Any, alpha: Any = 1) -> int:
        a, b = w.pair(x, y)
        if name == "div" and not w.type(a).dtype.is_float:
            a, b = w.cast(a, F64), w.cast(b, F64)
        if alpha != 1:
            b = w.b.op("mul", b, w.value(alpha, w.type(b).dtype))
        if w.type(a).dtype == BOOL and name == "mul":
            return w.b.op("and", a, b)
        if w.type(a).dtype == BOOL and name in ("add", "sub", "pow"):
            raise Unmapped(f"{name} of truth values")
        return w.b.op(name, a, b)

    return row


def _reduce(kind: str) -> Row:
    def row(w: Writer, x: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> int:
        given = x.id if dtype is None else w.cast(x.id, element_type(dtype))
        if w.type(given).dtype == BOOL:
            given = w.cast(given, I64)
        return w.reduce(given, kind, dim, keepdim)

    return row


def _mean(w: Writer, x: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> int:
    given = x.id if dtype is None else w.cast(x.id, element_type(dtype))
    total = w.reduce(given, "sum", dim, keepdim)
    return w.b.op("div", total, w.value(w.count(given, dim), w.type(total).dtype))


def _var(
    w: Writer, x: Value, dim: Any = None, unbiased: Any = None, correction: Any = None, keepdim: bool = False
) -> int:
    given, rank = x.id, len(w.shape(x.id))
    if unbiased is not None:
        correction = float(unbiased)  # torch's primitive states the correction in this place
    correction = 1 if correction is None else correction
    number = w.count(given, dim)
    if number <= correction or rank == 0:
        raise Unmapped("a variance that is not finite")
    mean = w.b.op("div", w.reduce(given, "sum", dim, True), w.value(number))
    away = w.b.op("sub", given, mean)
    return w.b.op("div", w.reduce(w.b.op("mul", away, away), "sum", dim, keepdim), w.value(number - correction))


def _matmul(w: Writer, x: Value, y: Value) -> int:
    return w.b.op("matmul", x.id, y.id)


def _addmm(w: Writer, c: Value, x: Value, y: Value, beta: Any = 1, alpha: Any = 1) -> int:
    product = w.b.op("matmul", x.id, y.id)
    product = w.b.op("mul", product, w.value(alpha)) if alpha != 1 else product
    return w.b.op("add", w.b.op("mul", c.id, w.value(beta)) if beta != 1 else c.id, product)


def _softmax(w: Writer, x: Value, dim: int, _: bool) -> int:
    return w.b.op("softmax", x.id, axis=dim % len(w.shape(x.id)))


def _log_softmax(w: Writer, x: Value, dim: int, _: bool) -> int:
    top = w.reduce(x.id, "max", dim, True)
    away = w.b.op("sub", x.id, top)
    return w.b.op("sub", away, w.b.op("log", w.reduce(w.b.op("exp", away), "sum", dim, True)))


def _relu(w: Writer, x: Value) -> int:
    return w.b.op("max", x.id, w.value(0.0, w.type(x.id).dtype))


def _clamp(w: Writer, x: Value, low: Any = None, high: Any = None) -> int:
    made = Value(x.id)
    for op, bound in (("max", low), ("min", high)):
        if bound is not None:
            made = Value(w.b.op(op, *w.pair(made, bound)))
    return made.id


def _gelu(w: Writer, x: Value) -> int:
    half = w.b.op("mul", x.id, w.value(0.5))
    return w.b.op("mul", half, w.b.op("add", w.b.op("erf", w.b.op("mul", x.id, w.value(0.5**0.5))), w.value(1.0)))


def _scaled(w: Writer, x: Value, factor: Any) -> int:
    return x.id if factor == 1 else w.b.op("mul", *w.pair(x, factor))


def _reciprocal(w: Writer, x: Value) -> int:
    return w.b.op("div", w.value(1.0), x.id)


def _scaled_log(base: float) -> Row:
    return lambda w, x: w.b.op("div", w.b.op("log", x.id), w.value(math.log(base)))


def _compare(name: str) -> Row:
    return lambda w, x, y: w.b.op(name, *w.pair(x, y))


def _logical(name: str) -> Row:
    return lambda w, x, y: w.b.op(name, w.cast(x.id, BOOL), w.cast(y.id, BOOL))


def _where(w: Writer, condition: Value, x: Any, y: Any) -> int:
    a, b = w.pair(x, y) if isinstance(x, Value) or isinstance(y, Value) else (w.value(x), w.value(y))
    return w.b.op("select", w.cast(condition.id, BOOL), a, b)


_PLAIN = (
    "neg abs exp log sqrt rsqrt tanh erf sigmoid sin cos tan asin acos atan sinh cosh asinh acosh atanh floor ceil sign"
)
ARITHMETIC: dict[str, Row] = {
    **{name: _unary(name) for name in _PLAIN.split()},
    **{name: _binary(name) for name in ("add", "sub", "mul", "pow")},
    "div": divided(_binary("div")),
    **{name: _compare(name) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    **{
        name: _compare(op)
        for name, op in (("maximum", "max"), ("minimum", "min"), ("remainder", "mod"), ("fmod", "rem"))
    },
    "rsub": lambda w, x, y, alpha=1: _binary("sub")(w, y, Value(_scaled(w, x, alpha))),
    "round": lambda w, x, decimals=0: _scaled(
        w, Value(w.b.op("round", _scaled(w, x, 10.0**decimals))), 10.0**-decimals
    ),
    "trunc": lambda w, x: w.b.op("mul", w.b.op("sign", x.id), w.b.op("floor", w.b.op("abs", x.id))),
    "reciprocal": _reciprocal,
    "log2": _scaled_log(2.0),
    "log10": _scaled_log(10.0),
    "log1p": lambda w, x: w.b.op("log", w.b.op("add", x.id, w.value(1.0))),
    "expm1": lambda w, x: w.b.op("sub", w.b.op("exp", x.id), w.value(1.0)),
    "exp2": lambda w, x: w.b.op("exp", w.b.op("mul", x.id, w.value(math.log(2.0)))),
    "erfc": lambda w, x: w.b.op("sub", w.value(1.0), w.b.op("erf", x.id)),
    "square": lambda w, x: w.b.op("mul", x.id, x.id),
    "relu": _relu,
    "gelu": gelu(_gelu),
    "clamp": _clamp,
    "clamp_min": lambda w, x, low: _clamp(w, x, low),
    "clamp_max": lambda w, x, high: _clamp(w, x, None, high),
    "where": _where,
    "bitwise_and": _logical("and"),
    "logical_and": _logical("and"),
    "bitwise_or": _logical("or"),
    "logical_or": _logical("or"),
    "bitwise_not": lambda w, x: w.b.op("not", w.cast(x.id, BOOL)),
    "logical_not": lambda w, x: w.b.op("not", w.cast(x.id, BOOL)),
    "isnan": _unary("isnan"),
    "signbit": lambda w, x: w.b.op("lt", x.id, w.value(0.0, w.type(x.id).dtype)),
    "copy": lambda w, x, y: w.b.op("broadcast_to", w.cast(y.id, w.type(x.id).dtype), shape=w.shape(x.id)),
    "sum": _reduce("sum"),
    "prod": _reduce("prod"),
    "amax": _reduce("max"),
    "amin": _reduce("min"),
    "mean": _mean,
    "var": _var,
    "mm": _matmul,
    "bmm": _matmul,
    "addmm": _addmm,
    "baddbmm": _addmm,
    "_softmax": _softmax,
    "_log_softmax": _log_softmax,
}
