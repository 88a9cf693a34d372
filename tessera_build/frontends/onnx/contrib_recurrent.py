"""DynamicQuantizeLSTM: an LSTM whose products are of bytes.

Takes weights of bytes, [directions, features, gates * hidden], with a scale and a zero point a direction or a column;
gives the states. Invariant: the inputs of all steps are quantised by one range, the state by its own range at every
step, as onnxruntime does; sums of products are exact.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed
from tessera_build.frontends.onnx.loops import element
from tessera_build.frontends.onnx.quantisation import integer_matmul
from tessera_build.frontends.onnx.quantised import dynamic
from tessera_build.frontends.onnx.recurrent import Layer, Multiply, lstm
from tessera_build.ir.core.types import F32

# Where the scales of the weights at an operand's place stand; zero points follow.
_SCALES = {1: 8, 2: 10}


def _of(c: Context, operand: Tensor, direction: int) -> Tensor:
    """A direction's part of an operand; what is known stays known."""
    if operand.content is not None:
        return c.constant(operand.content[direction], operand.name)
    return element(c, operand, 0, direction)


def _by_bytes(c: Context, layer: Layer, index: int, direction: int) -> Multiply:
    """Multiplication of a tensor quantised on the spot by weights of bytes."""
    call = layer.call
    weights = call.input(index)
    width = layer.x.shape[2] if index == 1 else layer.hidden
    if weights.rank != 3 or weights.shape[0] != len(layer.reverse) or weights.shape[2] != layer.gates * layer.hidden:
        raise ill_formed(f"{call.op}'s weights have another shape", found=str(weights.type))
    c.unify(weights.shape[1], width, f"{call.op}'s weights have other features")
    known = _of(c, weights, direction)
    scale, zero = (_of(c, call.input(_SCALES[index] + i), direction) for i in (0, 1))

    def multiply(at: Context, x: Tensor) -> Tensor:
        rows = at.reshape(x, (x.shape[0] * x.shape[1], x.shape[2])) if x.rank == 3 else x
        numbers, own, point = dynamic(at, rows)
        total = integer_matmul(at, call, (numbers, point), (known, zero))
        result = at.op("mul", at.cast(total, F32), at.op("mul", own, scale))
        return at.reshape(result, (*x.shape[:-1], layer.gates * layer.hidden))

    return multiply


def _dynamic_lstm(c: Context, n: Call) -> tuple[Tensor, ...]:
    return lstm(c, n, _by_bytes)


CONTRIB_RECURRENT_OPERATORS: Mapping[str, Translator] = {"DynamicQuantizeLSTM": _dynamic_lstm}
