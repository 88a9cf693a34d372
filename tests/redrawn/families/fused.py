"""Operators of com.microsoft that onnxruntime's optimiser or its exporters write, beyond those with cases of their own.

Takes a Draw; gives nodes. Invariant: onnxruntime runs each on a CPU, so that it is the oracle.
"""

from __future__ import annotations

import numpy as np

from tests.redrawn.cases import MICROSOFT, Maker
from tests.redrawn.draw import ABSENT, Draw, Drawn, Operand, fixed

_ACTIVATIONS = ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid")


def distances(draw: Draw) -> Drawn:
    """CDist of rows that are apart."""
    width, dtype = draw.extent(1, False), draw.dtype((np.float32, np.float32, np.float64))
    pair = [draw.data((draw.extent(1), width), dtype) for _ in range(2)]
    return Drawn("CDist", pair, {"metric": draw.one(["sqeuclidean", "euclidean"])}, 1, domain=MICROSOFT)


def inverse(draw: Draw) -> Drawn:
    """Inverse of matrices with a strong diagonal."""
    side, dtype = draw.whole(1, 5), draw.dtype((np.float32, np.float32, np.float64))
    shape = (*draw.shape(0, 2), side, side)
    matrices = np.add(draw.between(-1, 1, shape, np.float64), np.eye(side) * (side + 1))
    return Drawn("Inverse", [Operand(matrices.astype(dtype), 0.1)], {}, 1, domain=MICROSOFT)


def fused_gemm(draw: Draw) -> Drawn:
    """FusedGemm with an activation and a bias that broadcasts."""
    m, k, n = draw.extent(1), draw.extent(1), draw.extent(1)
    found: dict[str, object] = {name: draw.whole(0, 1) for name in ("transA", "transB") if draw.maybe()}
    found |= {name: draw.real(0.1, 2) for name in ("alpha", "beta") if draw.maybe(0.4)}
    found["activation"] = word = draw.one(_ACTIVATIONS)
    if word in ("LeakyRelu", "HardSigmoid"):
        found["activation_alpha"] = draw.real(0.05, 0.5)
    if word == "HardSigmoid":
        found["activation_beta"] = draw.real(0.2, 0.7)
    left, right = (k, m) if found.get("transA") else (m, k), (n, k) if found.get("transB") else (k, n)
    bias = draw.optional(draw.weight(draw.one([(n,), (m, n), (1, n), (m, 1), ()])))
    return Drawn("FusedGemm", [draw.data(left), draw.weight(right), bias], found, 1, domain=MICROSOFT)


def fused_conv(draw: Draw) -> Drawn:
    """FusedConv in two axes with a bias, an activation and perhaps a sum."""
    groups = draw.one([1, 1, 2])
    channels, outputs = groups * draw.whole(1, 3), groups * draw.whole(1, 4)
    kernel = [draw.whole(1, 3), draw.whole(1, 3)]
    extents = [k + draw.extent(1, False) for k in kernel]
    found: dict[str, object] = {"group": groups, "kernel_shape": kernel, "activation": draw.one(_ACTIVATIONS[:4])}
    strides, pads = [draw.whole(1, 2) for _ in kernel], [draw.whole(0, 1) for _ in range(4)]
    found |= {"strides": strides, "pads": pads}
    if found["activation"] == "LeakyRelu":
        found["activation_params"] = [draw.real(0.05, 0.5)]
    batch = draw.whole(1, 2)
    out = [(e + pads[i] + pads[i + 2] - kernel[i]) // strides[i] + 1 for i, e in enumerate(extents)]
    operands = [
        draw.data((batch, channels, *extents)),
        Operand(draw.values((outputs, channels // groups, *kernel)), 0.8),
        Operand(draw.values((outputs,)), 0.8),
        draw.optional(draw.data((batch, outputs, *out)), 0.3),
    ]
    return Drawn("FusedConv", operands, found, 1, domain=MICROSOFT)


def transposed_product(draw: Draw) -> Drawn:
    """TransposeMatMul, the older name of FusedMatMul."""
    m, k, n, batch = draw.extent(1), draw.extent(1), draw.extent(1), draw.shape(0, 2)
    found: dict[str, object] = {name: draw.whole(0, 1) for name in ("transA", "transB") if draw.maybe()}
    left, right = (k, m) if found.get("transA") else (m, k), (n, k) if found.get("transB") else (k, n)
    operands = [draw.data((*batch, *left)), draw.weight((*batch, *right))]
    return Drawn("TransposeMatMul", operands, found, 1, domain=MICROSOFT)


def quantised_choice(draw: Draw) -> Drawn:
    """QLinearWhere of two tensors of other scales."""
    dtype, shape = draw.one([np.int8, np.uint8]), draw.shape(1, 3)
    chosen = Operand(draw.values(draw.broadcast(shape), np.bool_), 0.2)
    operands = [chosen]
    for position in range(3):
        if position < 2:
            operands.append(Operand(draw.between(0, 100, shape, dtype), 0.2))
        operands += [fixed(draw.real(0.02, 0.2), np.float32), fixed(draw.whole(0, 20), dtype)]
    return Drawn("QLinearWhere", operands, {}, 1, domain=MICROSOFT)


def embeddings(draw: Draw) -> Drawn:
    """EmbedLayerNormalization with or without segments and a mask."""
    batch, length, width = draw.extent(1, False), draw.extent(1, False), draw.one([1, 4, 8, 16])
    words, places, segments = draw.whole(2, 9), length + draw.whole(0, 3), draw.whole(1, 3)
    kinds = draw.maybe()
    ids = Operand(draw.between(0, words, (batch, length), np.int32), 0.1)
    kind = Operand(draw.between(0, segments, (batch, length), np.int32), 0.1) if kinds else ABSENT
    tables = [Operand(draw.values((rows, width)), 0.9) for rows in (words, places)]
    tables.append(Operand(draw.values((segments, width)), 0.9) if kinds else ABSENT)
    scales = [Operand(draw.values((width,)), 0.9) for _ in range(2)]
    prefix = np.less(np.arange(length), draw.between(1, length + 1, (batch, 1), np.int32))
    mask = draw.optional(Operand(prefix.astype(np.int32), 0.1))
    found = {"epsilon": draw.one([1e-5, 1e-3])}
    outputs = draw.one([["y", "mask"], ["y", "mask", "sum"]])
    return Drawn("EmbedLayerNormalization", [ids, kind, *tables, *scales, mask], found, 1, outputs, MICROSOFT)


def crop(draw: Draw) -> Drawn:
    """CropAndResize of boxes inside and a little outside of the image."""
    batch, regions = draw.whole(1, 3), draw.extent(1, False)
    corner = draw.between(-0.1, 0.5, (regions, 2))
    boxes = np.concatenate([corner, np.add(corner, draw.between(0.1, 0.6, (regions, 2)))], 1).astype(np.float32)
    x = draw.data((batch, draw.whole(1, 3), draw.extent(2, False), draw.extent(2, False)))
    size = fixed([draw.whole(1, 5), draw.whole(1, 5)], np.int32, 1)
    found: dict[str, object] = {"mode": draw.one(["bilinear", "bilinear", "nearest"])}
    if draw.maybe():
        found["extrapolation_value"] = draw.real(-1, 1)
    owners = Operand(draw.between(0, batch, (regions,), np.int32), 0.2)
    return Drawn("CropAndResize", [x, Operand(boxes, 0.2), owners, size], found, 1, domain=MICROSOFT)


def grouped(draw: Draw) -> Drawn:
    """GroupQueryAttention of a prompt, or of one more word behind a cache with rows of different lengths."""
    shared, each, width = draw.whole(1, 2), draw.whole(1, 3), draw.one([8, 16])
    batch, prompt = draw.whole(1, 3), draw.maybe()
    steps, past = (draw.whole(1, 6), 0) if prompt else (1, draw.whole(1, 7))
    heads = shared * each
    found: dict[str, object] = {"num_heads": heads, "kv_num_heads": shared}
    if draw.maybe(0.3):
        found["scale"] = draw.real(0.1, 1)
    if draw.maybe(0.2):
        found["local_window_size"] = draw.whole(1, 6)
    operands = [Operand(draw.values((batch, steps, h * width)), 0.0) for h in (heads, shared, shared)]
    filled = np.full(batch, past) if prompt else draw.between(0, past + 1, (batch,), np.int64).astype(np.int64)
    filled[0] = past
    # onnxruntime clears what lies behind the keys of a shorter row.
    behind = np.greater_equal(np.arange(past)[:, None], filled[:, None, None, None])
    for _ in range(2):
        cache = np.where(behind, 0, draw.values((batch, shared, past, width))).astype(np.float32)
        operands.append(Operand(cache, 0.0) if past else ABSENT)
    filled = filled + (steps - 1)
    operands += [Operand(filled.astype(np.int32), 0.0), fixed(past + steps, np.int32, 1)]
    if draw.maybe():
        found |= {"do_rotary": 1, "rotary_interleaved": draw.whole(0, 1)}
        operands += [Operand(draw.values((past + steps + 2, width // 2)), 0.9) for _ in range(2)]
    return Drawn("GroupQueryAttention", operands, found, 1, ["y", "keys", "values"], MICROSOFT)


MAKERS: dict[str, Maker] = {
    "CDist": distances,
    "Inverse": inverse,
    "FusedGemm": fused_gemm,
    "FusedConv": fused_conv,
    "TransposeMatMul": transposed_product,
    "QLinearWhere": quantised_choice,
    "EmbedLayerNormalization": embeddings,
    "CropAndResize": crop,
    "GroupQueryAttention": grouped,
}
