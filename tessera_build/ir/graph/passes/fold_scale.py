"""Fold multiplication and addition by constants of each channel into the weights and the bias before them.

Takes a module whose batch normalisations are multiplications and additions; gives it with their factors in the
weights. Invariant: only constants are multiplied at build time, so the work at run time shrinks; rounding changes
within the numeric policy, since w * s is rounded once where conv(x, w) * s was.

    before:  %1 = "tgraph.conv"(%x, %w)
             %2 = "tgraph.add"(%1, %bias)
             %3 = "tgraph.mul"(%2, %scale)
             %4 = "tgraph.add"(%3, %shift)
             return %4
    after:   %1 = "tgraph.reshape"(%scale)
             %2 = "tgraph.mul"(%w, %1)
             %3 = "tgraph.conv"(%x, %2)
             %4 = "tgraph.mul"(%bias, %scale)
             %5 = "tgraph.add"(%4, %shift)
             %6 = "tgraph.add"(%3, %5)
             return %6

One number may also stand before: conv(x * c, w) becomes conv(x, w * c). One number may divide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import ml_dtypes
import numpy as np

from tessera_build.ir.core.dims import Dim, Extent
from tessera_build.ir.graph.infer import op_named
from tessera_build.ir.graph.nodes import Array, GraphNode, Module
from tessera_build.ir.graph.ops.shapes import Shape, count
from tessera_build.ir.graph.passes.canonical.arithmetic import rounded_values
from tessera_build.ir.graph.sweep import Rule, Site, rewrite

CONTRACTIONS = frozenset({"conv", "matmul"})
_MODERATE = 13  # powers of two between which divisors become factors of weights
# How many nodes this pass puts between a constant and what reads it, at most; a long graph is not walked for more.
_DEPTH = 8


@dataclass(frozen=True, slots=True)
class FoldScale:
    """Fold channel constants after conv and matmul, in entries that give no derivatives.

    A weight that is rounded anew is off alike at every pixel, and a gradient adds up pixels: that took a detector's
    gradients from 4e-5 to 1e-4 of their largest elements (docs/performance.md).
    """

    def run(self, module: Module) -> Module:
        """The module with scales in weights and shifts merged. Needs constants to the right of their ops."""
        return rewrite(module, _rule, without=module.derivatives)


def _rule() -> Rule:
    # Values of the new function with more than one reader in the old one: folding would compute them twice.
    shared: set[int] = set()
    rounded: list[frozenset[int]] = []

    def fold(site: Site) -> Sequence[int] | None:
        shared.update(new for new, old in zip(site.inputs, site.node.inputs, strict=True) if site.uses[old] > 1)
        if not site.old.types[site.node.outputs[0]].dtype.is_float:
            return None  # integers wrap: products of bytes are added up in i32, the factors before them are not
        if site.node.op in CONTRACTIONS:
            return _scale_before(site, shared)
        if site.node.op not in ("add", "mul", "div") or site.inputs[0] in shared:
            return None
        if not _constant(site, site.inputs[1]):
            return None
        if site.node.op == "div":
            rounded[:] = rounded or [rounded_values(site.old)]
            if site.node.output in rounded[0] or not _divisor(site, site.inputs[1]):
                return None
        source = site.to.producer(site.inputs[0])
        if source is None or site.to.type(site.inputs[0]) != site.old.types[site.node.output]:
            return None
        if _merges(site, source):
            factors = source.inputs[1], site.inputs[1]
            products = source.op == site.node.op and source.op != "add"
            return None if products and not _holds_product(site, factors) else [_merged(site, source)]
        return _scale(site, source, shared) if site.node.op != "add" else None

    return fold


def _merges(site: Site, source: GraphNode) -> bool:
    """Whether two constants in a row make one."""
    both = {source.op, site.node.op}
    if not (both == {"add"} or both <= {"mul", "div"}) or not _constant(site, source.inputs[1]):
        return False
    return source.op != "div" or _divisor(site, source.inputs[1])


def _merged(site: Site, source: GraphNode) -> int:
    """(y + b) + t → y + (b + t), (y * b) * t → y * (b * t), (y * b) / t → y * (b / t), (y / b) * t → y * (t / b), and
    (y / b) / t → y / (b * t)."""
    first, second, op = source.inputs[1], site.inputs[1], site.node.op
    if source.op == op:
        return site.to.op(op, source.inputs[0], site.to.op("mul" if op == "div" else op, first, second))
    quotient = site.to.op("div", first, second) if op == "div" else site.to.op("div", second, first)
    return site.to.op("mul", source.inputs[0], quotient)


def _divisor(site: Site, value: int) -> bool:
    """Whether what is divided by this constant may be a weight: one number of f32 that is neither huge nor tiny."""
    number = _computed(site, value)
    if number is None or number.size != 1 or number.dtype != np.float32:
        return False
    return bool(np.all((np.abs(number) >= 2.0**-_MODERATE) & (np.abs(number) <= 2.0**_MODERATE)))


def _holds_product(site: Site, factors: tuple[int, int]) -> bool:
    """Whether products of two constants keep their digits: 1e-3 * 1e-5 is zero in f16, where (1024 y * 1e-3) * 1e-5 is
    none."""
    a, b = (_computed(site, factor) for factor in factors)
    if a is None or b is None:
        return False
    limits = cast("np.finfo[np.float64]", ml_dtypes.finfo(site.to.type(factors[0]).dtype.numpy))
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(all="ignore"):
        size = np.abs(a * b)
    normal = (size >= float(limits.smallest_normal)) & (size <= float(limits.max))
    return bool(np.all(normal | (a == 0) | (b == 0)))


def _computed(site: Site, value: int) -> Array | None:
    """What a constant, or what this pass makes of some, will be once constants are folded; None for any other value."""
    known, node = site.to.array(value), site.to.producer(value)
    if known is not None or node is None or node.op not in ("mul", "div", "add", "reshape"):
        return known
    operands = [_computed(site, operand) for operand in node.inputs]
    evaluate, arrays = op_named(node.op).evaluate, [operand for operand in operands if operand is not None]
    symbolic = any(isinstance(extent, Dim) for extent in site.to.type(value).shape)
    if evaluate is None or len(arrays) < len(operands) or symbolic:
        return None
    with np.errstate(all="ignore"):
        return evaluate(arrays, node.attributes, {})[0]


def _scale(site: Site, source: GraphNode, shared: set[int]) -> Sequence[int] | None:
    """conv(x, w) * s → conv(x, w * s), and (conv(x, w) + b) * s → conv(x, w * s) + b * s; so for divisors."""
    scale = site.inputs[1]
    if source.op in CONTRACTIONS:
        scaled = _scale_weights(site, source, scale)
        return None if scaled is None else [scaled]
    if source.op != "add" or not _constant(site, source.inputs[1]):
        return None
    product = site.to.producer(source.inputs[0])
    if product is None or product.op not in CONTRACTIONS or source.inputs[0] in shared:
        return None
    scaled = _scale_weights(site, product, scale)
    if scaled is None:
        return None
    return [site.to.op("add", scaled, site.to.op(site.node.op, source.inputs[1], scale))]


def _scale_before(site: Site, shared: set[int]) -> Sequence[int] | None:
    """conv(x * c, w) → conv(x, w * c) for one number c, so for x / c; a reshape may stand between, as after a mean over
    images."""
    inner, value = None, site.inputs[0]
    source = site.to.producer(value)
    if source is not None and source.op == "reshape" and value not in shared:
        inner, value = source, source.inputs[0]
        source = site.to.producer(value)
    if source is None or source.op not in ("mul", "div") or value in shared or not _constant(site, site.inputs[1]):
        return None
    x, factor = source.inputs
    if source.op == "div" and not _divisor(site, factor):
        return None
    if not _constant(site, factor) or count(site.to.type(factor).shape) != 1 or site.to.type(x) != site.to.type(value):
        return None
    weights = site.to.op(source.op, site.inputs[1], site.to.op("reshape", factor, shape=()))
    x = x if inner is None else site.to.op("reshape", x, **inner.attributes)
    return [site.to.op(site.node.op, x, weights, **site.node.attributes)]


def _scale_weights(site: Site, product: GraphNode, scale: int) -> int | None:
    weights = product.inputs[1]
    channel_axis = _channel_axis(site, product)
    if not _constant(site, weights) or channel_axis is None:
        return None
    result, shape = site.to.type(product.output).shape, site.to.type(scale).shape
    if not _one_number_a_channel(shape, result, channel_axis):
        return None
    axes = _weight_shape(site, product)
    if all(e == 1 for e in shape):
        axes = (1,) * len(axes)
    factor = site.to.op("reshape", scale, shape=axes)
    return site.to.op(product.op, product.inputs[0], site.to.op(site.node.op, weights, factor), **product.attributes)


def _channel_axis(site: Site, product: GraphNode) -> int | None:
    """The axis of the result that the weights' output channels become; None when the weights are not plain."""
    rank = site.to.type(product.output).rank
    if product.op == "conv":
        return 1 if product.attributes["layout"] == "NCHW" else rank - 1
    return rank - 1 if site.to.type(product.inputs[1]).rank == 2 else None


def _weight_shape(site: Site, product: GraphNode) -> Shape:
    """The shape in which one number an output channel broadcasts over the weights."""
    weights = site.to.type(product.inputs[1]).shape
    channel = 0 if product.op == "conv" or product.attributes["transpose_b"] else len(weights) - 1
    return tuple(e if axis == channel else 1 for axis, e in enumerate(weights))


def _one_number_a_channel(shape: Shape, result: Shape, channel_axis: int) -> bool:
    padded: tuple[Extent, ...] = (1,) * (len(result) - len(shape)) + shape
    return all(e in (1, result[axis]) if axis == channel_axis else e == 1 for axis, e in enumerate(padded))


def _constant(site: Site, value: int, depth: int = _DEPTH) -> bool:
    """Whether a value will be a constant once constants are folded; this pass itself makes such values."""
    node = site.to.producer(value)
    if node is None or node.op == "dimension" or depth == 0:
        return False
    return node.op == "constant" or (bool(node.inputs) and all(_constant(site, v, depth - 1) for v in node.inputs))
