"""Products, convolutions and normalisations.

Takes a Draw; gives nodes. Invariant: windows fit into what they slide over, and variances are positive.
"""

from __future__ import annotations

import numpy as np

from tests.redrawn.cases import Maker
from tests.redrawn.draw import Draw, Drawn, Operand, Type, fixed

_REAL: tuple[Type, ...] = (np.float32, np.float32, np.float32, np.float64, np.float16)
_PRODUCT: tuple[Type, ...] = (*_REAL, np.int32, np.int64, np.uint32)


def matmul(draw: Draw) -> Drawn:
    """MatMul of vectors, matrices and batches that broadcast."""
    m, k, n, dtype = draw.extent(), draw.extent(), draw.extent(), draw.dtype(_PRODUCT)
    batch = draw.shape(0, 2) if draw.maybe() else ()
    left, right = (*batch, m, k), (*draw.broadcast(batch), k, n)
    if draw.maybe(0.15):
        left = (k,)
    elif draw.maybe(0.15):
        right = (k,)
    elif draw.maybe(0.3):
        left, right = (*draw.broadcast(batch), m, k), (*batch, k, n)
    return Drawn("MatMul", [draw.data(left, dtype), draw.weight(right, dtype)], {}, draw.opset("MatMul"))


def gemm(draw: Draw) -> Drawn:
    """Gemm with every way to add, scale and transpose."""
    m, k, n, dtype = draw.extent(), draw.extent(), draw.extent(), draw.dtype((*_REAL, np.float32, np.int32))
    opset = draw.opset("Gemm", 7)
    attributes: dict[str, object] = {a: draw.whole(0, 1) for a in ("transA", "transB") if draw.maybe(0.7)}
    attributes |= {a: draw.one([0.0, 1.0, 2.0, draw.real(-2, 2)]) for a in ("alpha", "beta") if draw.maybe(0.4)}
    if dtype == np.int32:
        attributes = {name: value for name, value in attributes.items() if name.startswith("trans")}
    left = (k, m) if attributes.get("transA") else (m, k)
    right = (n, k) if attributes.get("transB") else (k, n)
    bias = draw.optional(draw.weight(draw.broadcast((m, n)), dtype), 0.7 if opset >= 11 else 1)
    return Drawn("Gemm", [draw.data(left, dtype), draw.weight(right, dtype), bias], attributes, opset)


def einsum(draw: Draw) -> Drawn:
    """Einsum of one to three operands with random letters, diagonals and ellipses."""
    letters = draw.random.sample("abcdeij", draw.whole(1, 5))
    extents = {letter: min(draw.extent(1, False), 20) for letter in letters}
    terms = ["".join(draw.random.sample(letters, draw.whole(1, min(3, len(letters))))) for _ in range(draw.whole(1, 3))]
    used = sorted({c for t in terms for c in t})
    result = "".join(draw.random.sample(used, draw.whole(0, min(4, len(used)))))
    lead = draw.shape(1, 1) if draw.maybe(0.2) else None
    dots = "..." if lead is not None else ""
    equation = ",".join(dots + t for t in terms) + ("" if draw.maybe(0.1) else f"->{dots}{result}")
    dtype = draw.dtype((np.float32, np.float32, np.float64, np.int32, np.int64))
    operands = [draw.data((*(lead or ()), *(extents[c] for c in t)), dtype) for t in terms]
    return Drawn("Einsum", operands, {"equation": equation}, draw.opset("Einsum", 12))


def _windows(draw: Draw, kernel: list[int], dilations: list[int]) -> tuple[list[int], dict[str, object]]:
    """Extents that the windows fit, and attributes of the windows."""
    axes = len(kernel)
    extents = [(k - 1) * d + draw.extent(1, False) for k, d in zip(kernel, dilations, strict=True)]
    found: dict[str, object] = {}
    if draw.maybe(0.6):
        found["strides"] = [draw.whole(1, 3) for _ in range(axes)]
    if max(dilations) > 1 or draw.maybe(0.3):
        found["dilations"] = dilations
    if draw.maybe(0.6):
        found["pads"] = [draw.whole(0, min(3, k - 1) if draw.maybe(0.8) else k - 1) for k in (*kernel, *kernel)]
    elif draw.maybe(0.6):
        found["auto_pad"] = draw.one(["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
    return extents, found


def _kernel(draw: Draw, axes: int) -> tuple[list[int], list[int]]:
    kernel = [draw.one([1, 1, 2, 3, 3, 4, 5]) for _ in range(axes)]
    return kernel, [draw.one([1, 1, 1, 2, 3]) for _ in range(axes)]


def conv(draw: Draw) -> Drawn:
    """Conv of one to three axes, grouped, depthwise or dense."""
    axes, groups = draw.one([1, 2, 2, 2, 3]), draw.one([1, 1, 1, 2, 3, 4, 8, 16])
    channels, outputs = groups * draw.one([1, 1, 2, 3, 5]), groups * draw.one([1, 1, 2, 3, 7])
    kernel, dilations = _kernel(draw, axes)
    extents, found = _windows(draw, kernel, dilations)
    dtype = draw.dtype(_REAL)
    if groups > 1 or draw.maybe(0.2):
        found["group"] = groups
    if draw.maybe():
        found["kernel_shape"] = kernel
    operands = [draw.data((draw.extent(1, False), channels, *extents), dtype)]
    operands.append(Operand(draw.values((outputs, channels // groups, *kernel), dtype), 0.8))
    operands.append(draw.optional(Operand(draw.values((outputs,), dtype), 0.8)))
    return Drawn("Conv", operands, found, draw.opset("Conv"))


def conv_transpose(draw: Draw) -> Drawn:
    """ConvTranspose with paddings of the output or its shape."""
    axes, groups = draw.one([1, 2, 2, 3]), draw.one([1, 1, 2, 3])
    channels, outputs = groups * draw.one([1, 2, 3]), draw.one([1, 2, 5])
    kernel, dilations = _kernel(draw, axes)
    strides = [draw.whole(1, 3) for _ in range(axes)]
    found: dict[str, object] = {"strides": strides, "dilations": dilations}
    if groups > 1:
        found["group"] = groups
    if draw.maybe(0.6):
        found["pads"] = [draw.whole(0, min(2, k - 1)) for k in (*kernel, *kernel)]
    elif draw.maybe(0.5):
        found["auto_pad"] = draw.one(["SAME_UPPER", "SAME_LOWER", "VALID"])
    if draw.maybe(0.3):
        found["output_padding"] = [draw.whole(0, s - 1) for s in strides]
    extents = [draw.extent(1, False) for _ in range(axes)]
    operands = [draw.data((draw.whole(1, 2), channels, *extents))]
    operands.append(Operand(draw.values((channels, outputs, *kernel)), 0.8))
    operands.append(draw.optional(Operand(draw.values((outputs * groups,)), 0.8)))
    return Drawn("ConvTranspose", operands, found, draw.opset("ConvTranspose"))


def deformed(draw: Draw) -> Drawn:
    """DeformConv with offsets and perhaps a mask."""
    groups, shifts = draw.one([1, 2]), draw.one([1, 2])
    channels, outputs = 2 * draw.whole(1, 2), groups * draw.whole(1, 3)
    kernel = [draw.whole(1, 3), draw.whole(1, 3)]
    extents = [k + draw.whole(0, 5) for k in kernel]
    found: dict[str, object] = {"group": groups, "offset_group": shifts, "kernel_shape": kernel}
    strides, pads = [1, 1], [0, 0, 0, 0]
    if draw.maybe(0.4):
        found["strides"] = strides = [draw.whole(1, 2), draw.whole(1, 3)]
    if draw.maybe(0.4):
        found["pads"] = pads = [draw.whole(0, 2) for _ in range(4)]
    room = [e + pads[i] + pads[i + 2] - kernel[i] for i, e in enumerate(extents)]
    out = [r // s + 1 for r, s in zip(room, strides, strict=True)]
    points, batch = kernel[0] * kernel[1], draw.whole(1, 2)
    operands = [
        draw.data((batch, channels, *extents)),
        Operand(draw.values((outputs, channels // groups, *kernel)), 0.8),
    ]
    operands.append(draw.data((batch, shifts * points * 2, *out)))
    operands.append(draw.optional(draw.weight((outputs,))))
    operands.append(draw.optional(draw.data((batch, shifts * points, *out))))
    return Drawn("DeformConv", operands, found, draw.opset("DeformConv", 19))


def pool(op: str) -> Maker:
    def make(draw: Draw) -> Drawn:
        opset, axes = draw.opset(op), draw.one([1, 2, 2, 2, 3])
        kernel, dilations = _kernel(draw, axes)
        if opset < {"MaxPool": 10, "AveragePool": 19, "LpPool": 18}[op]:
            dilations = [1] * axes
        extents, found = _windows(draw, kernel, dilations)
        if opset < 10:
            found.pop("dilations", None)
        if dilations == [1] * axes:
            found.pop("dilations", None)
        if opset >= {"MaxPool": 10, "AveragePool": 10, "LpPool": 18}[op] and draw.maybe(0.4):
            found["ceil_mode"] = draw.whole(0, 1)
        if op == "AveragePool" and draw.maybe():
            found["count_include_pad"] = draw.whole(0, 1)
        if op == "LpPool" and draw.maybe():
            found["p"] = draw.whole(1, 3)
        outputs = ["y", "indices"][: 1 + (op == "MaxPool" and draw.maybe(0.3))]
        types: tuple[Type, ...] = (np.float32, np.float32, np.float32 if op == "LpPool" else np.float64)
        if op == "MaxPool" and opset >= 12:
            types = (*types, np.int8, np.uint8, np.float16)
        found["kernel_shape"] = kernel
        shape = (draw.extent(1, False), draw.extent(1, False), *extents)
        return Drawn(op, [draw.data(shape, draw.dtype(types))], found, opset, outputs)

    return make


def overall(op: str) -> Maker:
    def make(draw: Draw) -> Drawn:
        shape = (
            draw.extent(1, False),
            draw.extent(1, False),
            *(draw.extent(1, False) for _ in range(draw.whole(1, 3))),
        )
        attributes = {"p": draw.whole(1, 3)} if op == "GlobalLpPool" and draw.maybe() else {}
        return Drawn(
            op,
            [draw.data(shape, np.float32 if op == "GlobalLpPool" else draw.dtype(_REAL))],
            attributes,
            draw.opset(op),
        )

    return make


def unpool(draw: Draw) -> Drawn:
    """MaxUnpool of indices that differ."""
    kernel = [draw.whole(1, 3), draw.whole(1, 3)]
    extents = [draw.whole(1, 5), draw.whole(1, 5)]
    out = [e * k for e, k in zip(extents, kernel, strict=True)]
    batch, channels = draw.whole(1, 2), draw.whole(1, 3)
    count, plane = extents[0] * extents[1], out[0] * out[1]
    index = np.concatenate(
        [draw.numbers.choice(plane, count, replace=False) + i * plane for i in range(batch * channels)]
    )
    operands = [
        draw.data((batch, channels, *extents)),
        Operand(index.reshape(batch, channels, *extents).astype(np.int64), 0.2),
    ]
    return Drawn("MaxUnpool", operands, {"kernel_shape": kernel, "strides": kernel}, draw.opset("MaxUnpool", 9))


def columns(draw: Draw) -> Drawn:
    """Col2Im of blocks that overlap."""
    axes = draw.one([1, 2, 2])
    block, dilations = _kernel(draw, axes)
    extents = [(k - 1) * d + 1 + draw.whole(0, 5) for k, d in zip(block, dilations, strict=True)]
    strides, pads = [draw.whole(1, 2) for _ in range(axes)], [draw.whole(0, 1) for _ in range(2 * axes)]
    counts = [
        (e + pads[i] + pads[i + axes] - (k - 1) * d - 1) // s + 1
        for i, (e, k, d, s) in enumerate(zip(extents, block, dilations, strides, strict=True))
    ]
    x = draw.data((draw.extent(1, False), draw.whole(1, 3) * int(np.prod(block)), int(np.prod(counts))))
    found = {"dilations": dilations, "strides": strides, "pads": pads}
    return Drawn("Col2Im", [x, fixed(extents), fixed(block)], found, draw.opset("Col2Im"))


def _channels(draw: Draw, low: int = 0, high: int = 3) -> tuple[int, ...]:
    return (
        draw.extent(1, False),
        draw.one([1, 2, 3, 4, 8]),
        *(draw.extent(1, False) for _ in range(draw.whole(low, high))),
    )


def batch_normalisation(draw: Draw) -> Drawn:
    """BatchNormalization at inference."""
    shape, dtype, opset = _channels(draw), draw.dtype(_REAL), draw.opset("BatchNormalization", 7)
    rest = [Operand(draw.values((shape[1],), dtype), 0.7) for _ in range(3)]
    variance = Operand(draw.between(0.2, 2, (shape[1],), dtype), 0.7)
    attributes = {"epsilon": draw.one([1e-5, 1e-3, 0.1])} if draw.maybe() else {}
    return Drawn("BatchNormalization", [draw.data(shape, dtype), *rest, variance], attributes, opset)


def instance_normalisation(draw: Draw) -> Drawn:
    """InstanceNormalization."""
    shape = _channels(draw, 1)
    attributes = {"epsilon": draw.one([1e-5, 1e-3])} if draw.maybe() else {}
    rest = [draw.weight((shape[1],)), draw.weight((shape[1],))]
    return Drawn("InstanceNormalization", [draw.data(shape), *rest], attributes, draw.opset("InstanceNormalization"))


def group_normalisation(draw: Draw) -> Drawn:
    """GroupNormalization with parameters of groups or of channels."""
    opset, groups = draw.opset("GroupNormalization", 18), draw.whole(1, 4)
    shape = _channels(draw, 1)
    shape = (shape[0], groups * draw.whole(1, 3), *shape[2:])
    width = shape[1] if opset >= 21 else groups
    attributes: dict[str, object] = {"num_groups": groups}
    if draw.maybe():
        attributes["epsilon"] = 1e-3
    return Drawn(
        "GroupNormalization", [draw.data(shape), draw.weight((width,)), draw.weight((width,))], attributes, opset
    )


def layer_normalisation(op: str) -> Maker:
    def make(draw: Draw) -> Drawn:
        shape, dtype = tuple(max(e, 1) for e in draw.shape(1, 4)), draw.dtype(_REAL)
        axis = draw.axis(len(shape)) if draw.maybe() else -1
        inner = shape[axis % len(shape) :]
        attributes: dict[str, object] = {"axis": axis} if axis != -1 or draw.maybe() else {}
        if draw.maybe():
            attributes["epsilon"] = 1e-3
        operands = [draw.data(shape, dtype), draw.weight(inner, dtype)]
        outputs = ["y"]
        if op == "LayerNormalization":
            operands.append(draw.optional(draw.weight(inner, dtype)))
            outputs = ["y", "mean", "deviation"][: draw.one([1, 1, 3])]
        return Drawn(op, operands, attributes, draw.opset(op), outputs)

    return make


def lp_normalisation(draw: Draw) -> Drawn:
    """LpNormalization of order one or two."""
    shape = draw.shape(1, 4)
    attributes = {"axis": draw.axis(len(shape)), "p": draw.whole(1, 2)}
    return Drawn(
        "LpNormalization",
        [draw.data(shape, draw.dtype((np.float32, np.float64)))],
        attributes,
        draw.opset("LpNormalization"),
    )


def mean_variance(draw: Draw) -> Drawn:
    """MeanVarianceNormalization along some axes."""
    shape = _channels(draw, 1, 2)
    attributes = (
        {"axes": sorted(draw.random.sample(range(len(shape)), draw.whole(1, len(shape))))}
        if draw.maybe() or len(shape) != 4
        else {}
    )
    return Drawn(
        "MeanVarianceNormalization", [draw.data(shape)], attributes, draw.opset("MeanVarianceNormalization", 9)
    )


def local_response(draw: Draw) -> Drawn:
    """LRN of odd sizes."""
    attributes: dict[str, object] = {"size": draw.one([1, 3, 5])}
    attributes |= {name: draw.real(0.1, 1.5) for name in ("alpha", "beta", "bias") if draw.maybe()}
    shape = (draw.extent(1, False), draw.extent(1, False), draw.extent(1, False), draw.extent(1, False))
    return Drawn("LRN", [draw.data(shape)], attributes, draw.opset("LRN"))


def byte_product(draw: Draw) -> Drawn:
    """MatMulInteger with zero points."""
    m, k, n = draw.extent(1), draw.extent(1), draw.extent(1)
    left, right = draw.dtype((np.uint8, np.int8)), draw.dtype((np.uint8, np.int8))
    batch = draw.shape(0, 1)
    zeros = [draw.optional(draw.weight((), left)), draw.optional(draw.weight((n,) if draw.maybe(0.3) else (), right))]
    operands = [draw.data((*batch, m, k), left, special=True), Operand(draw.values((k, n), right, special=True), 0.6)]
    return Drawn("MatMulInteger", [*operands, *zeros], {}, draw.opset("MatMulInteger", 10))


def byte_conv(draw: Draw) -> Drawn:
    """ConvInteger with zero points."""
    axes, groups = draw.one([1, 2, 2]), draw.one([1, 1, 2, 4])
    kernel, dilations = _kernel(draw, axes)
    extents, found = _windows(draw, kernel, dilations)
    found["group"] = groups
    dtype, channels = np.uint8, draw.whole(1, 3)
    operands = [draw.data((draw.extent(1, False), channels * groups, *extents), dtype)]
    operands.append(Operand(draw.values((groups * draw.whole(1, 4), channels, *kernel), dtype), 0.8))
    zeros = [draw.optional(draw.weight((), dtype)), draw.optional(draw.weight((), dtype))]
    return Drawn("ConvInteger", [*operands, *zeros], found, draw.opset("ConvInteger", 10))


MAKERS: dict[str, Maker] = {
    "MatMul": matmul,
    "Gemm": gemm,
    "Einsum": einsum,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "DeformConv": deformed,
    **{op: pool(op) for op in ("MaxPool", "AveragePool", "LpPool")},
    **{op: overall(op) for op in ("GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool")},
    "MaxUnpool": unpool,
    "Col2Im": columns,
    "BatchNormalization": batch_normalisation,
    "InstanceNormalization": instance_normalisation,
    "GroupNormalization": group_normalisation,
    **{
        op: layer_normalisation(op) for op in ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
    },
    "LpNormalization": lp_normalisation,
    "MeanVarianceNormalization": mean_variance,
    "LRN": local_response,
    "MatMulInteger": byte_product,
    "ConvInteger": byte_conv,
}
