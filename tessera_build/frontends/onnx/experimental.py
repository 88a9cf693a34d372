"""Operators that ONNX had on trial and took back, and that onnxruntime still runs: first exporters wrote them.

Takes a call; gives core ops. Invariant: each computes in the operand's own type, element by element, or cuts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.containers import Value
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.elementwise import softplus
from tessera_build.frontends.onnx.errors import ill_formed
from tessera_build.frontends.onnx.slicing import SLICE_OPERATORS

_BOUNDS_AS_OPERANDS = 10


def _times(c: Context, x: Tensor, factor: float) -> Tensor:
    return c.op("mul", x, c.scalar(factor, x.dtype))


def _affine(c: Context, n: Call) -> Tensor:
    x = n.input(0)
    return c.op("add", _times(c, x, n.number("alpha", 1.0)), c.scalar(n.number("beta", 0.0), x.dtype))


def _scale(c: Context, n: Call) -> Tensor:
    return _times(c, n.input(0), n.number("scale", 1.0))


def _scaled_tanh(c: Context, n: Call) -> Tensor:
    return _times(c, c.op("tanh", _times(c, n.input(0), n.number("beta", 1.0))), n.number("alpha", 1.0))


def _parametric_softplus(c: Context, n: Call) -> Tensor:
    """alpha * log(1 + exp(beta * x))."""
    return _times(c, softplus(c, _times(c, n.input(0), n.number("beta", 1.0))), n.number("alpha", 1.0))


def _image_scaler(c: Context, n: Call) -> Tensor:
    x, bias = n.input(0), n.numbers("bias", ())
    if x.rank != 4:
        raise ill_formed("ImageScaler takes images", found=str(x.type))
    c.unify(x.shape[1], len(bias), "ImageScaler has another number of biases than channels")
    scaled = _times(c, x, n.number("scale", 1.0))
    shifts = [c.reshape(c.scalar(b, x.dtype), (1,)) for b in bias]
    return c.op("add", scaled, c.reshape(c.op("concat", *shifts, axis=0), (len(bias), 1, 1)))


def _crop(c: Context, n: Call) -> Tensor:
    """Without what the border says, or as much as the scale says from its corner on."""
    x, border = n.input(0), n.integers("border")
    if x.rank != 4 or len(border) != 4 or min(border) < 0:
        raise ill_formed("Crop takes images and a border of four sides", found=f"{x.type}, {border}")
    left, top, right, bottom = border
    height, width = x.shape[2:]
    stops = [height - bottom, width - right]
    if n.has("scale"):
        scale = n.integers("scale")
        if len(scale) != 2:
            raise ill_formed("Crop's scale is a height and a width", found=str(scale))
        stops = [top + scale[0], left + scale[1]]
        for extent, stop in zip((height, width), stops, strict=True):
            c.require(extent, ">=", stop, "Crop reaches beyond its image")
    for start, stop in zip((top, left), stops, strict=True):
        c.require(stop, ">=", start, "Crop leaves nothing of its image")
    return c.slice(x, (0, 0, top, left), (*x.shape[:2], *stops))


def _dynamic_slice(c: Context, n: Call) -> Value | tuple[Value, ...]:
    return SLICE_OPERATORS["Slice"](c, replace(n, opset=_BOUNDS_AS_OPERANDS))


EXPERIMENTAL_OPERATORS: Mapping[str, Translator] = {
    "Affine": _affine,
    "Crop": _crop,
    "DynamicSlice": _dynamic_slice,
    "ImageScaler": _image_scaler,
    "ParametricSoftplus": _parametric_softplus,
    "Scale": _scale,
    "ScaledTanh": _scaled_tanh,
}
