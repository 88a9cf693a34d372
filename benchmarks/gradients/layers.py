"""Layers of ONNX as calls of PyTorch: convolutions, pooling, normalisations, resizing, recurrent networks.

Takes a `Call`; gives the node's results. Invariant: padding that PyTorch's own call can do is left to it; any other is
one `pad` before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.gradients.operators import OPERATORS, Operator
from benchmarks.gradients.values import Call

_CONVOLVE: Final = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED: Final = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d}
_MAXIMUM: Final = {1: functional.max_pool1d, 2: functional.max_pool2d}
_MEAN: Final = {1: functional.avg_pool1d, 2: functional.avg_pool2d}


def _padding(call: Call, rank: int, kernel: Sequence[int]) -> tuple[list[int], list[int]]:
    """Elements before and after each axis."""
    strides, dilations = call.wholes("strides", [1] * rank), call.wholes("dilations", [1] * rank)
    mode, pads = call.word("auto_pad", "NOTSET"), call.wholes("pads", [0] * (2 * rank))
    if mode in ("NOTSET", "VALID"):
        return pads[:rank], pads[rank:]
    low, high = list[int](), list[int]()
    for extent, size, stride, dilation in zip(call.tensor(0).shape[2:], kernel, strides, dilations, strict=True):
        total = max(0, (-(-extent // stride) - 1) * stride + (size - 1) * dilation + 1 - extent)
        small, large = total // 2, total - total // 2
        low.append(small if mode == "SAME_UPPER" else large)
        high.append(large if mode == "SAME_UPPER" else small)
    return low, high


def _padded(call: Call, kernel: Sequence[int], fill: float) -> tuple[Tensor, list[int]]:
    """The first operand, and what the layer itself is to pad."""
    rank = len(kernel)
    low, high = _padding(call, rank, kernel)
    if low == high:
        return call.tensor(0), low
    widths = [p for pair in zip(reversed(low), reversed(high), strict=True) for p in pair]
    return functional.pad(call.tensor(0), widths, value=fill), [0] * rank


def _conv(call: Call) -> Tensor:
    weight = call.tensor(1)
    rank = weight.dim() - 2
    source, padding = _padded(call, weight.shape[2:], 0.0)
    strides, dilations = call.wholes("strides", [1] * rank), call.wholes("dilations", [1] * rank)
    groups = call.whole("group", 1)
    return _CONVOLVE[rank](source, weight, call.optional(2), strides, padding, dilations, groups)


def _conv_transpose(call: Call) -> Tensor:
    weight = call.tensor(1)
    rank = weight.dim() - 2
    low, high = _padding(call, rank, weight.shape[2:])
    if low != high or call.attribute("output_shape") is not None:
        raise ValueError("ConvTranspose with uneven padding is not in the table")
    strides, dilations = call.wholes("strides", [1] * rank), call.wholes("dilations", [1] * rank)
    more, groups = call.wholes("output_padding", [0] * rank), call.whole("group", 1)
    return _TRANSPOSED[rank](call.tensor(0), weight, call.optional(2), strides, low, more, groups, dilations)


def _max_pool(call: Call) -> Tensor:
    kernel = call.wholes("kernel_shape")
    source, padding = _padded(call, kernel, -torch.inf)
    strides, dilations = call.wholes("strides", [1] * len(kernel)), call.wholes("dilations", [1] * len(kernel))
    found = _MAXIMUM[len(kernel)](source, kernel, strides, padding, dilations, bool(call.whole("ceil_mode", 0)))
    assert isinstance(found, Tensor)
    return found


def _average_pool(call: Call) -> Tensor:
    kernel = call.wholes("kernel_shape")
    low, high = _padding(call, len(kernel), kernel)
    if low != high:
        raise ValueError("AveragePool with uneven padding is not in the table")
    strides, ceil = call.wholes("strides", [1] * len(kernel)), bool(call.whole("ceil_mode", 0))
    return _MEAN[len(kernel)](call.tensor(0), kernel, strides, low, ceil, bool(call.whole("count_include_pad", 0)))


def _global(kind: str) -> Operator:
    def pool(call: Call) -> Tensor:
        axes = list(range(2, call.tensor(0).dim()))
        return call.tensor(0).amax(axes, True) if kind == "max" else call.tensor(0).mean(axes, True)

    return pool


def _batch_norm(call: Call) -> Tensor:
    x, scale, shift, mean, variance = (call.tensor(i) for i in range(5))
    return functional.batch_norm(x, mean, variance, scale, shift, eps=call.number("epsilon", 1e-5))


def _layer_norm(call: Call) -> Tensor:
    scale = call.tensor(1)
    return functional.layer_norm(
        call.tensor(0), list(scale.shape), scale, call.optional(2), call.number("epsilon", 1e-5)
    )


def _gemm(call: Call) -> Tensor:
    a, b, c = call.tensor(0), call.tensor(1), call.optional(2)
    a = a.t() if call.whole("transA", 0) else a
    b = b.t() if call.whole("transB", 0) else b
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    return alpha * (a @ b) if c is None else torch.addmm(c, a, b, beta=beta, alpha=alpha)


def _resize(call: Call) -> Tensor:
    source, scales, mode = call.tensor(0), call.optional(2), call.word("mode", "nearest")
    sizes = call.optional(3)
    if mode != "nearest":
        raise ValueError(f"Resize by {mode} is not in the table")
    if sizes is not None and sizes.numel():
        return functional.interpolate(source, size=[int(s) for s in sizes.tolist()[2:]], mode="nearest")
    assert scales is not None
    return functional.interpolate(source, scale_factor=[float(s) for s in scales.tolist()[2:]], mode="nearest")


def _gates(weight: Tensor) -> Tensor:
    """Gates in the order of PyTorch: ONNX has input, output, forget, cell."""
    i, o, f, c = weight.chunk(4)
    return torch.cat([i, f, c, o])


def _lstm(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    x, w, r = (call.tensor(i) for i in range(3))
    bias, h, c = (call.optional(i) for i in (3, 5, 6))
    if w.shape[0] != 1 or call.word("direction", "forward") != "forward" or call.optional(7) is not None:
        raise ValueError("LSTM in two directions or with peepholes is not in the table")
    state = x.new_zeros(1, x.shape[1], r.shape[2])
    weights = [_gates(w[0]), _gates(r[0])]
    weights += [] if bias is None else [_gates(part) for part in bias[0].chunk(2)]
    given = (state if h is None else h, state if c is None else c)
    y, hidden, cell = torch.lstm(x, given, weights, bias is not None, 1, 0.0, False, False, False)
    return y.unsqueeze(1), hidden, cell


LAYERS: Mapping[str, Operator] = {
    **OPERATORS,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global("mean"),
    "GlobalMaxPool": _global("max"),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "Gemm": _gemm,
    "Resize": _resize,
    "LSTM": _lstm,
}
