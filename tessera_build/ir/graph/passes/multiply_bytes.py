"""Make products of dequantised bytes products of bytes.

Takes a module before constants are folded, so that quantised weights can still be seen; gives it with every matmul and
conv of a quantised operand by quantised constant weights computed in integers. Invariant: sums are exact where floats
round at every step; one float32 product by both scales follows. What quantises the result again stays as it is, and
is fused with the product when tasks are made.

    before:  %1 = "tgraph.cast"(%x) <{dtype = f32}>
             %2 = "tgraph.cast"(%w) <{dtype = f32}>
             %3 = "tgraph.mul"(%1, 0.5)
             %4 = "tgraph.mul"(%2, 0.25)
             %5 = "tgraph.matmul"(%3, %4)
             return %5
    after:   %1 = "tgraph.matmul"(%x, %w)
             %2 = "tgraph.cast"(%1) <{dtype = f32}>
             %3 = "tgraph.mul"(%2, 0.125)
             return %3
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tessera_build.ir.core.types import F32, I8, I32, U8
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.ops.op import flag_of, int_of, ints_of
from tessera_build.ir.graph.sweep import Rule, Site, rewrite

_TURN = 128  # between a signed byte and the unsigned one that products of bytes want
_LARGEST_PRODUCT = 255 * 128
Numbers = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class MultiplyBytes:
    """Replace the pattern."""

    def run(self, module: Module) -> Module:
        """The module with products in integers."""
        return rewrite(module, _rule)


@dataclass(frozen=True, slots=True)
class _Bytes:
    """A dequantised tensor taken apart: (value - zero) * scale, both of them constants that broadcast."""

    value: int
    zero: Numbers
    scale: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Weights:
    """Constant weights as signed bytes; `zero` and `scale` hold one number, or one for every position on `axis`."""

    array: NDArray[np.int8]
    zero: Numbers
    scale: NDArray[np.float32]
    axis: int
    name: str

    def summed(self) -> Numbers:
        """The weights added up for every output channel, less their zero points."""
        others = tuple(i for i in range(self.array.ndim) if i != self.axis)
        depth = math.prod(self.array.shape[i] for i in others)
        return self.array.sum(axis=others, dtype=np.int32) - self.zero * np.int32(depth)


def _rule() -> Rule:
    def multiply(site: Site) -> Sequence[int] | None:
        if site.node.op not in ("matmul", "conv") or site.old.types[site.node.output].dtype != F32:
            return None
        operand, weights = _operand(site), _weights(site)
        if operand is None or weights is None:
            return None
        if weights.array.size // weights.array.shape[weights.axis] * _LARGEST_PRODUCT >= 1 << 31:
            return None  # the sum might not fit
        total = _matmul(site, operand, weights) if site.node.op == "matmul" else _conv(site, operand, weights)
        if total is None:
            return None
        factor = np.asarray(operand.scale.reshape(()) * weights.scale, np.float32)
        factor = factor.reshape(_beside(site, factor))
        return [site.to.op("mul", site.to.op("cast", total, dtype=F32), site.to.constant(factor))]

    return multiply


# -- taking apart ------------------------------------------------------------------------------------------------------


def _array(to: GraphBuilder, value: int) -> Array | None:
    """A constant, or one that is only converted or reshaped."""
    node = to.producer(value)
    if node is None or node.op in ("constant", "dimension"):
        return to.array(value)
    inner = _array(to, node.inputs[0]) if node.op in ("cast", "reshape") else None
    if inner is None or any(not isinstance(e, int) for e in to.type(value).shape):
        return None
    return inner.astype(to.type(value).dtype.numpy).reshape(to.type(value).static_shape)


def _dequantised(to: GraphBuilder, value: int) -> _Bytes | None:
    """(value - zero) * scale of bytes, as the importer writes it."""
    product = to.producer(value)
    if product is None or product.op != "mul":
        return None
    scale, cast = _array(to, product.inputs[1]), to.producer(product.inputs[0])
    if scale is None or cast is None or cast.op != "cast" or to.type(value).dtype != F32:
        return None
    if to.type(product.inputs[0]) != to.type(value):
        return None
    source, zero = cast.inputs[0], np.zeros((), np.int32)
    difference = to.producer(source)
    if difference is not None and difference.op == "sub" and to.type(source).dtype == I32:
        known, widened = _array(to, difference.inputs[1]), to.producer(difference.inputs[0])
        if known is None or widened is None or widened.op != "cast":
            return None
        source, zero = widened.inputs[0], known.astype(np.int32)
    if to.type(source).dtype not in (U8, I8):
        return None
    return _Bytes(source, zero, scale.astype(np.float32))


def _operand(site: Site) -> _Bytes | None:
    """The left side: one scale and one zero point for the whole tensor."""
    found = _dequantised(site.to, site.inputs[0])
    plain = site.node.op == "conv" or not flag_of(site.node.attributes, "transpose_a")
    return found if found is not None and plain and found.scale.size == found.zero.size == 1 else None


def _weights(site: Site) -> _Weights | None:
    """The right side: constant bytes, perhaps transposed, with at most one scale for every output channel."""
    value, order = site.inputs[1], list(range(site.to.type(site.inputs[1]).rank))
    node = site.to.producer(value)
    if node is not None and node.op == "transpose":
        order, value = list(ints_of(node.attributes, "perm")), node.inputs[0]
    found = _dequantised(site.to, value)
    array = None if found is None else site.to.array(found.value)
    if found is None or array is None:
        return None
    signed = array if array.dtype == np.int8 else (array.astype(np.int16) - _TURN)
    zero = found.zero if array.dtype == np.int8 else found.zero - _TURN
    axis = _output_axis(site)
    wide = [_per_channel(n, array.ndim, order, axis) for n in (zero, found.scale)]
    if wide[0] is None or wide[1] is None or (site.node.op == "matmul" and array.ndim != 2):
        return None
    moved = np.ascontiguousarray(np.transpose(signed, order).astype(np.int8))
    return _Weights(moved, wide[0].astype(np.int32), wide[1].astype(np.float32), axis, site.to.name(found.value))


def _output_axis(site: Site) -> int:
    """The axis of the weights that becomes the result's channels or columns."""
    if site.node.op == "conv" or flag_of(site.node.attributes, "transpose_b"):
        return 0
    return site.to.type(site.inputs[1]).rank - 1


def _per_channel(numbers: Array, rank: int, order: list[int], axis: int) -> Array | None:
    """Numbers that broadcast to weights as one, or one for every position on the axis after the transpose."""
    if numbers.size == 1:
        return numbers.reshape(())
    wide = np.transpose(numbers.reshape((1,) * (rank - numbers.ndim) + numbers.shape), order)
    return wide.reshape(-1) if wide.shape[axis] == wide.size else None


# -- putting together --------------------------------------------------------------------------------------------------


def _unsigned(site: Site, operand: _Bytes) -> tuple[int, int]:
    """The operand as u8, and its zero point."""
    to, zero = site.to, int(operand.zero.reshape(()))
    if to.type(operand.value).dtype == U8:
        return operand.value, zero
    turned = to.op("cast", operand.value, dtype=U8)
    return to.op("add", turned, to.constant(np.asarray(_TURN, np.uint8))), zero + _TURN


def _matmul(site: Site, operand: _Bytes, weights: _Weights) -> int:
    to = site.to
    x, zero = _unsigned(site, operand)
    terms: list[int] = []
    if weights.zero.any():
        last = to.type(x).rank - 1
        rows = to.op("reduce", to.op("cast", x, dtype=I32), kind="sum", axes=(last,), keepdims=True)
        terms.append(to.op("mul", rows, to.constant(weights.zero)))
    if zero:
        terms.append(to.constant(np.asarray(weights.summed() * np.int32(zero))))
    total = to.op("matmul", x, to.constant(weights.array, weights.name), **site.node.attributes)
    return _less(to, total, terms)


def _conv(site: Site, operand: _Bytes, weights: _Weights) -> int | None:
    to, attributes = site.to, dict(site.node.attributes)
    groups, per_group = int_of(attributes, "groups"), weights.array.shape[1]
    if per_group == 1:
        return None  # no products to add up across channels: floats are as fast
    x, zero = _unsigned(site, operand)
    low, high = ints_of(attributes, "low"), ints_of(attributes, "high")
    if zero and any((*low, *high)):
        x = to.op("pad", x, low=(0, 0, *low), high=(0, 0, *high), value=float(zero))
        attributes.update(low=(0,) * len(low), high=(0,) * len(high))
    terms: list[int] = []
    if weights.zero.any():
        if groups > 1:
            return None
        ones = to.constant(np.ones((1, *weights.array.shape[1:]), np.int8))
        under = to.op("conv", x, ones, **attributes)
        terms.append(to.op("mul", under, to.constant(weights.zero.reshape(_beside(site, weights.zero)))))
    if zero:
        sums = np.asarray(weights.summed() * np.int32(zero))
        terms.append(to.constant(sums.reshape(_beside(site, sums))))
    total = to.op("conv", x, to.constant(weights.array, weights.name), **attributes)
    return _less(to, total, terms)


def _less(to: GraphBuilder, total: int, terms: Sequence[int]) -> int:
    for term in terms:
        total = to.op("sub", total, term)
    return total


def _beside(site: Site, numbers: Array) -> tuple[int, ...]:
    """The shape in which numbers a channel meet the result."""
    if numbers.ndim == 0 or site.node.op == "matmul":
        return numbers.shape
    return (numbers.size, *(1,) * (site.old.types[site.node.output].rank - 2))
