"""Products as ONNX operators: `matmul`, `conv` and `attention`.

Takes operands; gives one. Invariant: bytes are multiplied by the operators that add up in i32.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from tessera_build.frontends.onnx.export.elementwise import scalar
from tessera_build.frontends.onnx.export.images import repeated
from tessera_build.frontends.onnx.export.movement import cut, padded, reshaped, transposed
from tessera_build.frontends.onnx.export.site import Site, WriteNode
from tessera_build.frontends.onnx.export.writer import Operand
from tessera_build.ir.core.types import F64, I32, Type, tensor
from tessera_build.ir.graph.ops.attention import heads_per_key
from tessera_build.ir.graph.ops.contraction import BYTES, LAYOUTS
from tessera_build.ir.graph.ops.op import flag_of, int_of, ints_of, number_of, word_of
from tessera_build.ir.graph.ops.shapes import count


def _swapped(site: Site, x: Operand, rank: int) -> Operand:
    return transposed(site, x, [*range(rank - 2), rank - 1, rank - 2])


def _matmul(site: Site) -> Operand:
    a, b = site.inputs
    a = _swapped(site, a, site.types[0].rank) if flag_of(site.attributes, "transpose_a") else a
    b = _swapped(site, b, site.types[1].rank) if flag_of(site.attributes, "transpose_b") else b
    if a.dtype in BYTES and b.dtype in BYTES:
        return site.writer.emit("MatMulInteger", a, b, dtype=I32)
    return site.writer.run("MatMul", a, b)


def _conv(site: Site) -> Operand:
    """Channels first, as ONNX has them; types without a kernel as a product for each position."""
    (x, w), rank = site.inputs, site.types[0].rank
    last = word_of(site.attributes, "layout", LAYOUTS) == "NHWC"
    x = transposed(site, x, [0, rank - 1, *range(1, rank - 1)]) if last else x
    first = _first(site, last)
    if x.dtype in BYTES and w.dtype in BYTES:
        found = site.writer.emit("ConvInteger", x, w, dtype=I32, **_attributes(site))
    elif x.dtype.is_float and x.dtype != F64:
        found = site.writer.run("Conv", x, w, dtype=None, **_attributes(site))
    else:
        found = _tap_by_tap(site, x, first)
    return transposed(site, found, [0, *range(2, rank), 1]) if last else found


def _first(site: Site, last: bool) -> tuple[Type, Type]:
    """Types of the images and of the result with their channels first."""
    found = [
        tensor(t.dtype, t.shape[0], t.shape[-1], *t.shape[1:-1]) if last else t for t in (site.types[0], site.result)
    ]
    return found[0], found[1]


def _attributes(site: Site) -> dict[str, int | tuple[int, ...]]:
    low, high = ints_of(site.attributes, "low"), ints_of(site.attributes, "high")
    return {
        "strides": ints_of(site.attributes, "strides"),
        "dilations": ints_of(site.attributes, "dilations"),
        "pads": (*low, *high),
        "group": int_of(site.attributes, "groups"),
        "kernel_shape": site.types[1].static_shape[2:],
    }


def _tap_by_tap(site: Site, x: Operand, types: tuple[Type, Type]) -> Operand:
    """[N, G, I, P] by [G, O, I] for each position of the kernel, in its order."""
    image, result = types
    groups, w = int_of(site.attributes, "groups"), site.inputs[1]
    outputs, channels, *kernel = site.types[1].static_shape
    strides, dilations = ints_of(site.attributes, "strides"), ints_of(site.attributes, "dilations")
    low, high = ints_of(site.attributes, "low"), ints_of(site.attributes, "high")
    x = padded(site, x, (0, 0, *low), (0, 0, *high), 0)
    total: Operand | None = None
    for position in itertools.product(*(range(size) for size in kernel)):
        rows = zip(position, dilations, result.shape[2:], strides, strict=True)
        parts = [(2 + i, p * d, p * d + (n - 1) * s + 1, s) for i, (p, d, n, s) in enumerate(rows)]
        columns = reshaped(site, cut(site, x, parts), (image.shape[0], groups, channels, count(result.shape[2:])))
        tap = cut(site, w, [(2 + i, p, p + 1, 1) for i, p in enumerate(position)])
        tap = site.writer.reshaped(tap, 1, groups, outputs // groups, channels)
        product = site.writer.run("MatMul", tap, columns)
        total = product if total is None else scalar(site.writer, "add", [total, product])
    assert total is not None, "a kernel has a position"
    return reshaped(site, total, result.shape)


def _attention(site: Site) -> Operand:
    """By its definition; heads of keys and values that serve several heads of queries are repeated."""
    q, k, v, *mask = site.inputs
    share = heads_per_key(site.types[0].shape[1], site.types[1].shape[1])
    if share > 1:
        k, v = (repeated(site, x, t.shape, (1, share, 1, 1)) for x, t in zip((k, v), site.types[1:3], strict=True))
    writer = site.writer
    scores = writer.run("MatMul", q, transposed(site, k, (0, 1, 3, 2)))
    scores = scalar(writer, "mul", [scores, writer.number(number_of(site.attributes, "scale"), q.dtype)])
    for added in mask:
        scores = scalar(writer, "add", [scores, added])
    return writer.run("MatMul", writer.run("Softmax", scores, axis=3), v)


CONTRACTION_WRITERS: Mapping[str, WriteNode] = {"matmul": _matmul, "conv": _conv, "attention": _attention}
