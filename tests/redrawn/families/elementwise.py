"""Elementwise operators: one operand, two that broadcast, or any number of them.

Takes a Draw; gives nodes. Invariant: what C and Python define otherwise, or not at all (division of integers by zero,
shifts beyond the width, casts beyond the range), is not drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto, helper

from tests.redrawn.cases import Maker
from tests.redrawn.draw import ANY, FLOATS, INTEGERS, NUMBERS, Draw, Drawn, Operand, Type, fixed

UNSIGNED: tuple[Type, ...] = (np.uint8, np.uint16, np.uint32, np.uint64)
SIGNED: tuple[Type, ...] = (*FLOATS, np.int64, np.int32, np.int8, np.int16)
ONE_OPERAND: dict[str, Sequence[Type]] = {
    **dict.fromkeys(("Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh"), FLOATS),
    **dict.fromkeys(("Ceil", "Floor", "Round", "Exp", "Log", "Sqrt", "Reciprocal", "Sigmoid", "Tanh"), FLOATS),
    **dict.fromkeys(("Softplus", "Softsign", "Mish", "HardSwish", "IsNaN", "Erf"), FLOATS),
    **dict.fromkeys(("Abs", "Sign"), NUMBERS),
    **dict.fromkeys(("Neg",), SIGNED),
    **dict.fromkeys(("Relu",), SIGNED),
    "Identity": ANY,
    "Not": (np.bool_,),
    "BitwiseNot": INTEGERS,
}
PARAMETERS: dict[str, tuple[str, ...]] = {
    "Elu": ("alpha",),
    "Celu": ("alpha",),
    "LeakyRelu": ("alpha",),
    "Selu": ("alpha", "gamma"),
    "HardSigmoid": ("alpha", "beta"),
    "ThresholdedRelu": ("alpha",),
    "Swish": ("alpha",),
    "Shrink": ("bias", "lambd"),
}
TWO_OPERANDS: dict[str, Sequence[Type]] = {
    **dict.fromkeys(("Add", "Sub", "Mul"), NUMBERS),
    **dict.fromkeys(("Equal",), ANY),
    **dict.fromkeys(("Less", "Greater", "LessOrEqual", "GreaterOrEqual"), NUMBERS),
    **dict.fromkeys(("And", "Or", "Xor"), (np.bool_,)),
    **dict.fromkeys(("BitwiseAnd", "BitwiseOr", "BitwiseXor"), INTEGERS),
}


def _one(op: str) -> Maker:
    def make(draw: Draw) -> Drawn:
        opset = draw.opset(op)
        dtype = draw.brief(op, opset, draw.dtype(ONE_OPERAND[op]))
        x = draw.data(draw.shape(0, 5), dtype, special=True)
        if np.dtype(dtype).kind == "f" and op in ("Asin", "Acos", "Atanh", "Acosh", "Log", "Sqrt") and draw.maybe(0.7):
            assert x.array is not None
            x = Operand(np.asarray(np.abs(draw.between(0, 1, x.array.shape)) + (op == "Acosh"), dtype), x.constant)
        return Drawn(op, [x], {}, opset)

    return make


def _with_parameters(op: str) -> Maker:
    def make(draw: Draw) -> Drawn:
        dtype = draw.dtype(SIGNED if op == "Shrink" and draw.maybe(0.3) else FLOATS)
        attributes = {name: draw.real(0.05, 2.0) for name in PARAMETERS[op] if draw.maybe(0.6)}
        return Drawn(op, [draw.data(draw.shape(0, 5), dtype, special=True)], attributes, draw.opset(op))

    return make


def _pair(draw: Draw, dtype: Type) -> list[Operand]:
    shape = draw.shape(0, 5)
    pair = [draw.data(shape, dtype, special=True), draw.data(draw.broadcast(shape), dtype, special=True)]
    return pair if draw.maybe(0.7) else pair[::-1]


def _two(op: str) -> Maker:
    def make(draw: Draw) -> Drawn:
        opset = draw.opset(op)
        return Drawn(op, _pair(draw, draw.brief(op, opset, draw.dtype(TWO_OPERANDS[op]))), {}, opset)

    return make


def divide(draw: Draw) -> Drawn:
    """Div; integers never by zero."""
    left, right = _pair(draw, draw.dtype(NUMBERS))
    return Drawn("Div", [left, _without_zero(right)], {}, draw.opset("Div"))


def _without_zero(operand: Operand) -> Operand:
    array = operand.array
    assert array is not None
    if array.dtype.kind in "iu":
        # The least integer over -1 is outside the type.
        array = np.where((array == 0) | (array.astype(np.int64) == -1), np.asarray(3, array.dtype), array)
    return Operand(np.asarray(array), operand.constant)


def modulo(draw: Draw) -> Drawn:
    """Mod with either sign rule."""
    dtype = draw.dtype(NUMBERS)
    left, right = _pair(draw, dtype)
    return Drawn(
        "Mod",
        [left, _without_zero(right)],
        {"fmod": 1} if np.dtype(dtype).kind == "f" or draw.maybe(0.3) else {},
        draw.opset("Mod", 10),
    )


def power(draw: Draw) -> Drawn:
    """Pow, with exponents of another type."""
    dtype = draw.dtype((*FLOATS, np.int32, np.int64))
    shape = draw.shape(0, 5)
    opset = draw.opset("Pow", 7)
    other = draw.dtype((*FLOATS, np.int32, np.int64)) if opset >= 12 else dtype
    base = draw.data(shape, dtype)
    exponent = draw.one([2, 3, 0, 1, 0.5, -1]) if draw.maybe() else None
    if np.dtype(dtype).kind == "i" or np.dtype(other).kind == "i":
        exponent = draw.one([0, 1, 2, 3]) if exponent is not None else None
    if exponent is not None:
        return Drawn("Pow", [base, Operand(np.asarray(exponent, other), 0.7)], {}, opset)
    return Drawn("Pow", [base, Operand(draw.between(0, 4, draw.broadcast(shape), other), 0.2)], {}, opset)


def _many(op: str, types: Sequence[Type]) -> Maker:
    def make(draw: Draw) -> Drawn:
        dtype, shape = draw.dtype(types), draw.shape(0, 5)
        operands = [draw.data(draw.broadcast(shape), dtype, special=True) for _ in range(draw.whole(0, 3))]
        operands.insert(draw.whole(0, len(operands)), draw.data(shape, dtype, special=True))
        return Drawn(op, operands, {}, draw.opset(op, 8))

    return make


def where(draw: Draw) -> Drawn:
    """Where over three shapes that broadcast."""
    dtype, shape = draw.dtype(ANY), draw.shape(0, 5)
    shapes = [draw.broadcast(shape), draw.broadcast(shape), shape]
    draw.random.shuffle(shapes)
    types = (np.bool_, dtype, dtype)
    return Drawn(
        "Where", [draw.data(s, t, special=True) for s, t in zip(shapes, types, strict=True)], {}, draw.opset("Where", 9)
    )


def prelu(draw: Draw) -> Drawn:
    """PRelu with a slope that broadcasts to the data."""
    dtype, shape = draw.dtype(FLOATS), draw.shape(0, 5)
    return Drawn(
        "PRelu",
        [draw.data(shape, dtype, special=True), draw.weight(draw.broadcast(shape), dtype)],
        {},
        draw.opset("PRelu"),
    )


def shift(draw: Draw) -> Drawn:
    """BitShift by less than the width."""
    dtype, shape = draw.dtype(UNSIGNED), draw.shape(0, 5)
    amount = Operand(draw.between(0, 8, draw.broadcast(shape), dtype), 0.3)
    return Drawn(
        "BitShift",
        [draw.data(shape, dtype, special=True), amount],
        {"direction": draw.one(["LEFT", "RIGHT"])},
        draw.opset("BitShift", 11),
    )


def cast(draw: Draw) -> Drawn:
    """Cast between all types, of values that both hold."""
    source, target = draw.dtype(ANY), draw.dtype(ANY)
    shape = draw.shape(0, 5)
    if np.dtype(source).kind == "f" and np.dtype(target).kind in "iu":
        x = Operand(
            np.asarray(draw.between(0 if np.dtype(target).kind == "u" else -99, 99, shape, np.float32), source), 0.2
        )
    elif np.dtype(source).kind in "iu" and np.dtype(target).kind == "f":
        x = draw.data(shape, source)
    else:
        x = draw.data(shape, source, special=True)
    if draw.maybe(0.3):
        return Drawn("CastLike", [x, draw.data(draw.shape(0, 2), target)], {}, draw.opset("CastLike", 15))
    return Drawn("Cast", [x], {"to": helper.np_dtype_to_tensor_dtype(np.dtype(target))}, draw.opset("Cast", 9))


def bit_cast(draw: Draw) -> Drawn:
    """BitCast between types of one width."""
    pairs = [
        (np.float32, np.int32),
        (np.int64, np.float64),
        (np.uint8, np.int8),
        (np.uint32, np.float32),
        (np.float16, np.uint16),
    ]
    source, target = draw.one(pairs)
    return Drawn(
        "BitCast",
        [draw.data(draw.shape(), source)],
        {"to": helper.np_dtype_to_tensor_dtype(np.dtype(target))},
        draw.opset("BitCast"),
    )


def clip(draw: Draw) -> Drawn:
    """Clip with either bound left out, at times crossed."""
    opset = draw.opset("Clip", 6)
    if opset < 11:
        bounds = {name: draw.real(-2, 2) for name in ("min", "max") if draw.maybe(0.7)}
        return Drawn("Clip", [draw.data(draw.shape(0, 5), np.float32, special=True)], bounds, opset)
    dtype = draw.dtype(NUMBERS)
    low, high = (draw.optional(Operand(draw.between(*ends, (), dtype), 0.6), 0.7) for ends in ((0, 3), (2, 6)))
    return Drawn("Clip", [draw.data(draw.shape(0, 5), dtype, special=True), low, high], {}, opset)


def gelu(draw: Draw) -> Drawn:
    """Gelu, exact or by tanh."""
    attributes = {"approximate": draw.one(["none", "tanh"])} if draw.maybe(0.7) else {}
    return Drawn("Gelu", [draw.data(draw.shape(0, 5), draw.dtype(), special=True)], attributes, draw.opset("Gelu"))


def is_inf(draw: Draw) -> Drawn:
    """IsInf of one sign or both."""
    attributes = {name: draw.whole(0, 1) for name in ("detect_negative", "detect_positive") if draw.maybe()}
    return Drawn(
        "IsInf", [draw.data(draw.shape(0, 5), draw.dtype(), special=True)], attributes, draw.opset("IsInf", 10)
    )


def _along(op: str) -> Maker:
    def make(draw: Draw) -> Drawn:
        opset, shape = draw.opset(op, 7), draw.shape(1, 5)
        attributes = (
            {"axis": draw.axis(len(shape)) if opset >= 11 else draw.whole(0, len(shape) - 1)} if draw.maybe(0.8) else {}
        )
        if opset < 13 and not attributes and len(shape) < 2:
            attributes = {"axis": 0}
        return Drawn(op, [draw.data(shape, draw.dtype())], attributes, opset)

    return make


def dropout(draw: Draw) -> Drawn:
    """Dropout at inference, with its mask."""
    opset = draw.opset("Dropout", 7)
    x = draw.data(draw.shape(0, 4), draw.dtype())
    outputs = ["y", "mask"][: draw.whole(1, 2) if opset >= 12 else 1]
    if opset < 12:
        return Drawn("Dropout", [x], {"ratio": 0.3}, opset, outputs)
    return Drawn(
        "Dropout", [x, draw.optional(fixed(0.3, np.float32)), draw.optional(fixed(False, np.bool_))], {}, opset, outputs
    )


def constant_of_shape(draw: Draw) -> Drawn:
    """ConstantOfShape of any type."""
    shape = draw.shape(0, 4)
    value = helper.make_tensor(
        "", draw.one([TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.DOUBLE]), [1], [1]
    )
    return Drawn(
        "ConstantOfShape",
        [fixed(list(shape), chance=0.8)],
        {"value": value} if draw.maybe(0.8) else {},
        draw.opset("ConstantOfShape", 9),
    )


MAKERS: dict[str, Maker] = {
    **{op: _one(op) for op in ONE_OPERAND},
    **{op: _with_parameters(op) for op in PARAMETERS},
    **{op: _two(op) for op in TWO_OPERANDS},
    **{op: _many(op, NUMBERS) for op in ("Max", "Min")},
    **{op: _many(op, FLOATS) for op in ("Sum", "Mean")},
    **{op: _along(op) for op in ("Softmax", "LogSoftmax", "Hardmax")},
    "Div": divide,
    "Mod": modulo,
    "Pow": power,
    "Where": where,
    "PRelu": prelu,
    "BitShift": shift,
    "Cast": cast,
    "BitCast": bit_cast,
    "Clip": clip,
    "Gelu": gelu,
    "IsInf": is_inf,
    "Dropout": dropout,
    "ConstantOfShape": constant_of_shape,
}
