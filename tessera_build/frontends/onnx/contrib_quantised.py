"""Quantised operators of com.microsoft between integers: sums, products, activations, pools, concatenation.

Takes integers with a scale and a zero point for each tensor; gives core ops. Invariant: an operator is what it does to
the numbers that its integers stand for, quantised once at the end; fusion makes that one pass over bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tessera_build.frontends.onnx.call import Call, Translator, normalise_axis
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.contrib import applied
from tessera_build.frontends.onnx.errors import ill_formed
from tessera_build.frontends.onnx.pooling import POOLING_OPERATORS
from tessera_build.frontends.onnx.quantisation import Numbers, centred, dequantised, quantised, saturated
from tessera_build.frontends.onnx.quantised import QUANTISED_OPERATORS
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import F32, I32

# From this version on softmax normalises along one axis; before, along all from one on.
_ONE_AXIS = 13


def _numbers(c: Context, n: Call, index: int) -> Numbers:
    """The scale at an operand's place, and the zero point after it, which may be left out."""
    scale, zero = n.input(index), n.optional(index + 1)
    if scale.shape not in ((), (1,)) or (zero is not None and zero.shape not in ((), (1,))):
        raise ill_formed(f"{n.op} has one scale and one zero point a tensor", found=str(scale.type))
    return Numbers(c.reshape(scale, ()), None if zero is None else c.reshape(zero, ()))


def _number(c: Context, n: Call, index: int) -> Tensor:
    """The operand at a place with its scale and zero point after it, as float32."""
    return dequantised(c, n.input(index), _numbers(c, n, index + 1), F32)


def _plus(c: Context, n: Call) -> Tensor:
    """round(a * (a_scale / y_scale) + b * (b_scale / y_scale)) + zero, as onnxruntime orders it."""
    a, b, y = _numbers(c, n, 1), _numbers(c, n, 4), _numbers(c, n, 6)
    left = c.op("mul", centred(c, n.input(0), a.zero), c.op("div", a.scale, y.scale))
    right = c.op("mul", centred(c, n.input(3), b.zero), c.op("div", b.scale, y.scale))
    return saturated(c, c.op("add", left, right), y.zero, n.input(0).dtype)


def _times(c: Context, n: Call) -> Tensor:
    """round(a * b * (a_scale * b_scale / y_scale)) + zero; the product of the integers is exact."""
    a, b, y = _numbers(c, n, 1), _numbers(c, n, 4), _numbers(c, n, 6)
    product = c.op("mul", centred(c, n.input(0), a.zero), centred(c, n.input(3), b.zero))
    factor = c.op("div", c.op("mul", a.scale, b.scale), y.scale)
    return saturated(c, c.op("mul", product, factor), y.zero, n.input(0).dtype)


def _unary(body: Callable[[Context, Call, Tensor], Tensor]) -> Translator:
    """Operators of one tensor: x with scale and zero point, then those of the result."""

    def translate(c: Context, n: Call) -> Tensor:
        return quantised(c, body(c, n, _number(c, n, 0)), _numbers(c, n, 3), n.input(0).dtype)

    return translate


def _sigmoid(c: Context, _: Call, x: Tensor) -> Tensor:
    return c.op("sigmoid", x)


def _leaky_relu(c: Context, n: Call, x: Tensor) -> Tensor:
    return applied(c, "LeakyRelu", x, alpha=n.number("alpha", 0.01))[0]


def _quantised_softmax(c: Context, n: Call) -> Tensor:
    """Probabilities times the whole part of 1 / y_scale, which is what onnxruntime's kernel multiplies by."""
    target = _numbers(c, n, 3)
    steps = c.op("floor", c.op("div", c.scalar(1, F32), c.cast(target.scale, F32)))
    return saturated(c, c.op("mul", _softmax(c, n, _number(c, n, 0)), steps), target.zero, n.input(0).dtype)


def _softmax(c: Context, n: Call, x: Tensor) -> Tensor:
    axis = normalise_axis(n.integer("axis", -1), x.rank)
    if n.integer("opset") >= _ONE_AXIS:
        return c.op("softmax", x, axis=axis)
    rows, columns = _count(x.shape[:axis]), _count(x.shape[axis:])
    return c.reshape(c.op("softmax", c.reshape(x, (rows, columns)), axis=1), x.shape)


def _count(extents: Sequence[Extent]) -> Extent:
    total: Extent = 1
    for extent in extents:
        total = total * extent
    return total


def _average_pool(c: Context, n: Call, x: Tensor) -> Tensor:
    last = bool(n.integer("channels_last", 0))
    moved = _channels_first(c, x) if last else x
    result = POOLING_OPERATORS["AveragePool"](c, replace(n, inputs=(moved,)))
    assert isinstance(result, Tensor)
    return _channels_last(c, result) if last else result


def _channels_first(c: Context, x: Tensor) -> Tensor:
    return c.transpose(x, (0, x.rank - 1, *range(1, x.rank - 1)))


def _channels_last(c: Context, x: Tensor) -> Tensor:
    return c.transpose(x, (0, *range(2, x.rank), 1))


def _global_average(c: Context, n: Call) -> Tensor:
    """The exact sum of the integers, times x_scale / (y_scale * count)."""
    x, source, target = n.input(0), _numbers(c, n, 1), _numbers(c, n, 3)
    axes = tuple(range(1, x.rank - 1)) if n.integer("channels_last", 0) else tuple(range(2, x.rank))
    count = _count([x.shape[axis] for axis in axes])
    total = c.reduce("sum", c.cast(x, I32), axes, keepdims=True)
    if source.zero is not None:
        total = c.op("sub", total, c.op("mul", c.cast(source.zero, I32), c.number(count, I32)))
    factor = c.op("div", source.scale, c.op("mul", target.scale, c.number(count, F32)))
    return saturated(c, c.op("mul", c.cast(total, F32), factor), target.zero, x.dtype)


def _concat(c: Context, n: Call) -> Tensor:
    target, parts = _numbers(c, n, 0), list[Tensor]()
    for index in range(2, len(n.inputs), 3):
        parts.append(_moved(c, n.input(index), _numbers(c, n, index + 1), target))
    if not parts:
        raise ill_formed(f"{n.op} concatenates nothing")
    axis = n.axis(parts[0].rank)
    shapes = [p.shape for p in parts]
    for place in range(parts[0].rank):
        for shape in shapes[1:]:
            if place != axis:
                c.unify(shapes[0][place], shape[place], f"{n.op}'s operands differ at axis {place}")
    return c.op("concat", *parts, axis=axis)


def _moved(c: Context, x: Tensor, source: Numbers, target: Numbers) -> Tensor:
    """The same numbers under another scale; as they are where both scales are the same."""
    return x if _same(source, target) else quantised(c, dequantised(c, x, source, F32), target, x.dtype)


def _same(one: Numbers, other: Numbers) -> bool:
    def contents(numbers: Numbers) -> tuple[float | None, ...]:
        pair = (numbers.scale, numbers.zero)
        return tuple(0.0 if t is None else None if t.content is None else float(t.content.reshape(())) for t in pair)

    return None not in contents(one) and contents(one) == contents(other)


def _where(c: Context, n: Call) -> Tensor:
    target = _numbers(c, n, 7)
    chosen = [_moved(c, n.input(i), _numbers(c, n, i + 1), target) for i in (1, 4)]
    return c.op("select", n.input(0), *chosen)


def _qlinear_conv(c: Context, n: Call) -> Tensor:
    """As ONNX has it, or with the channels last, weights excepted."""
    translate = QUANTISED_OPERATORS["QLinearConv"]
    if not n.integer("channels_last", 0):
        result = translate(c, n)
        assert isinstance(result, Tensor)
        return result
    result = translate(c, replace(n, inputs=(_channels_first(c, n.input(0)), *n.inputs[1:])))
    assert isinstance(result, Tensor)
    return _channels_last(c, result)


CONTRIB_QUANTISED_OPERATORS: Mapping[str, Translator] = {
    "QuantizeLinear": QUANTISED_OPERATORS["QuantizeLinear"],
    "DequantizeLinear": QUANTISED_OPERATORS["DequantizeLinear"],
    "QLinearConv": _qlinear_conv,
    "QLinearAdd": _plus,
    "QLinearMul": _times,
    "QLinearSigmoid": _unary(_sigmoid),
    "QLinearLeakyRelu": _unary(_leaky_relu),
    "QLinearSoftmax": _quantised_softmax,
    "QLinearAveragePool": _unary(_average_pool),
    "QLinearGlobalAveragePool": _global_average,
    "QLinearConcat": _concat,
    "QLinearWhere": _where,
}
