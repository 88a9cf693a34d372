"""Graphs that each lay one trap for lowering: what once gave, or easily gives, a wrong answer without an error."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.types import F32, I32, I64, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module

Seeded = np.random.Generator
_AROUND = {"window": (1, 3, 3, 1), "strides": (1, 1, 1, 1), "dilations": (1, 1, 1, 1)}
_SIDES = {"low": (1, 1), "high": (1, 1), "layout": "NHWC", "dilations": (1, 1), "strides": (1, 1), "groups": 1}


def _weights(rng: Seeded, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def dropped_axis_of_square(rng: Seeded) -> Module:
    """A reduction that drops its axis meets the whole square again, broadcast along the other axis."""
    b = GraphBuilder()
    x = b.input("x", tensor(F32, 9, 9))
    rows = b.op("reduce", x, kind="sum", axes=(1,), keepdims=False)
    b.output("y", b.op("sub", x, rows))
    return b.finish()


def dropped_axis_of_cube(rng: Seeded) -> Module:
    """As above, where batch and channels have one extent."""
    b = GraphBuilder(dims={"N": (1, None)})
    n = symbol("N")
    x = b.input("x", tensor(F32, n, n, 6))
    means = b.op("reduce", x, kind="max", axes=(1,), keepdims=False)
    b.output("y", b.op("mul", x, means))
    return b.finish()


def dropped_axis_in_place(rng: Seeded) -> Module:
    """A reduction over the first axis drops it and broadcasts back along it: here both meanings agree."""
    b = GraphBuilder()
    x = b.input("x", tensor(F32, 9, 9))
    b.output("y", b.op("sub", x, b.op("reduce", x, kind="sum", axes=(0,), keepdims=False)))
    return b.finish()


def two_spills(rng: Seeded) -> Module:
    """Two costly values that later passes need, and one output to keep them in."""
    b = GraphBuilder()
    x = b.input("x", tensor(F32, 3, 50))
    e = b.op("exp", x)
    first = b.op("reduce", e, kind="sum", axes=(1,), keepdims=True)
    t = b.op("tanh", b.op("div", e, first))
    second = b.op("reduce", t, kind="sum", axes=(1,), keepdims=True)
    b.output("y", b.op("add", b.op("div", t, second), e))
    return b.finish()


def spill_beside_output(rng: Seeded) -> Module:
    """The output that holds a spilled value is not the one computed from it."""
    b = GraphBuilder()
    x = b.input("x", tensor(F32, 3, 50))
    e = b.op("exp", x)
    total = b.op("reduce", e, kind="sum", axes=(1,), keepdims=True)
    b.output("plain", b.op("sub", x, total))
    b.output("y", b.op("div", e, total))
    return b.finish()


def pad_beside_pool(rng: Seeded) -> Module:
    """One value with a stored border of minus infinity, also read by a pad with zeros and more of them."""
    b = GraphBuilder()
    x = b.op("tanh", b.input("x", tensor(F32, 2, 6, 6, 3)))
    b.output("pooled", b.op("reduce_window", x, kind="max", low=(0, 1, 1, 0), high=(0, 1, 1, 0), **_AROUND))
    b.output("padded", b.op("exp", b.op("pad", x, low=(0, 2, 3, 0), high=(0, 3, 2, 1), value=0.0)))
    return b.finish()


def pad_beside_convolution(rng: Seeded) -> Module:
    """One value with a stored border of one zero, also padded by three."""
    b = GraphBuilder()
    x = b.op("tanh", b.input("x", tensor(F32, 2, 6, 6, 3)))
    b.output("y", b.op("conv", x, b.constant(_weights(rng, 8, 3, 3, 3)), **_SIDES))
    b.output("padded", b.op("pad", x, low=(0, 3, 3, 0), high=(0, 3, 3, 0), value=0.0))
    return b.finish()


def one_channel_between_borders(rng: Seeded) -> Module:
    """A convolution and a pool want different borders, and the convolution's only channel leaves the window inside."""
    b = GraphBuilder()
    x = b.op("tanh", b.input("x", tensor(F32, 2, 9, 9, 1)))
    b.output("pooled", b.op("reduce_window", x, kind="max", low=(0, 1, 1, 0), high=(0, 1, 1, 0), **_AROUND))
    b.output("y", b.op("conv", x, b.constant(_weights(rng, 24, 1, 3, 3)), **_SIDES))
    return b.finish()


def output_read_by_window(rng: Seeded) -> Module:
    """A value is an output and is read by padded windows of two sizes."""
    b = GraphBuilder(dims={"N": (1, None)})
    x = b.op("mul", b.input("x", tensor(F32, symbol("N"), 7, 7, 4)), b.constant(np.float32(2)))
    wide = {**_SIDES, "low": (2, 2), "high": (2, 2)}
    b.output("x2", x)
    b.output("y", b.op("conv", x, b.constant(_weights(rng, 6, 4, 3, 3)), **_SIDES))
    b.output("z", b.op("conv", x, b.constant(_weights(rng, 6, 4, 5, 5)), **wide))
    return b.finish()


def concatenation_of_everything(rng: Seeded) -> Module:
    """Inputs of a concatenation: an input, a constant, one twice, one with a border, one that is an output, one more
    concatenation; and the result has a pitch and a padded reader."""
    b = GraphBuilder(dims={"N": (1, None)})
    x = b.input("x", tensor(F32, symbol("N"), 5, 5, 8))
    a, c = b.op("tanh", x), b.op("exp", x)
    y = b.op("conv", a, b.constant(_weights(rng, 8, 8, 3, 3)), **_SIDES)
    inner = b.op("concat", c, y, axis=3)
    joined = b.op("concat", x, a, a, inner, c, axis=3)
    b.output("c", c)
    b.output("y", b.op("conv", joined, b.constant(_weights(rng, 4, 48, 3, 3)), **_SIDES))
    b.output("inner", b.op("reduce", inner, kind="sum", axes=(3,), keepdims=False))
    return b.finish()


def concatenation_with_pitch(rng: Seeded) -> Module:
    """The joined rows are 4096 bytes long, so they are stored apart; a product reads them."""
    b = GraphBuilder()
    x = b.input("x", tensor(F32, 7, 512))
    joined = b.op("concat", b.op("tanh", x), b.op("sin", x), axis=1)
    b.output("y", b.op("matmul", joined, b.constant(_weights(rng, 1024, 5))))
    b.output("flat", b.op("reduce", joined, kind="max", axes=(0,), keepdims=False))
    return b.finish()


def skipping_slices(rng: Seeded) -> Module:
    """Slices that skip, over extents that leave a ragged vector."""
    b = GraphBuilder(dims={"S": (2, None)})
    s = symbol("S")
    x, w = b.input("x", tensor(F32, 3, s)), b.input("w", tensor(F32, 5, 83))
    b.output("w", b.op("slice", w, starts=(1, 3), stops=(5, 83), steps=(3, 2)))
    b.output("x", b.op("neg", b.op("slice", x, starts=(0, 1), stops=(3, s), steps=(2, 1))))
    return b.finish()


def foreign_outputs(rng: Seeded) -> Module:
    """Outputs that are inputs, constants, reshapes, and one value twice."""
    b = GraphBuilder(dims={"N": (1, None)})
    x = b.input("x", tensor(F32, symbol("N"), 6))
    y = b.op("exp", x)
    b.output("input", x)
    b.output("constant", b.constant(_weights(rng, 3, 2)))
    b.output("first", y)
    b.output("second", y)
    b.output("shaped", b.op("reshape", x, shape=(symbol("N"), 2, 3)))
    b.output("again", b.op("reshape", b.op("reshape", y, shape=(symbol("N"), 2, 3)), shape=(symbol("N") * 6,)))
    return b.finish()


def integers(rng: Seeded) -> Module:
    """Integer division by padding, extremes of reductions, truth values reduced and compared."""
    b = GraphBuilder()
    i, j = b.input("i", tensor(I64, 3, 21)), b.input("j", tensor(I32, 3, 21))
    seven = b.constant(np.asarray(7, np.int64))
    positive = b.op("add", b.op("abs", i), b.constant(np.asarray(1, np.int64)))
    b.output("quotient", b.op("div", i, positive))
    b.output("remainder", b.op("mod", i, positive))
    b.output("by7", b.op("mod", i, seven))
    for kind in ("max", "min", "sum", "prod"):
        b.output(kind, b.op("reduce", i, kind=kind, axes=(1,), keepdims=False))
        b.output(f"{kind}32", b.op("reduce", j, kind=kind, axes=(0,), keepdims=True))
    return b.finish()


def truth(rng: Seeded) -> Module:
    """Comparisons, logic, and reductions of truth values: any, all."""
    b = GraphBuilder()
    x, y = b.input("x", tensor(F32, 4, 19)), b.input("y", tensor(F32, 4, 19))
    less, more = b.op("lt", x, y), b.op("gt", x, b.constant(np.float32(1.8)))
    both = b.op("or", b.op("and", less, b.op("not", more)), b.op("xor", less, more))
    b.output("both", both)
    for kind in ("max", "min"):
        b.output(kind, b.op("reduce", more, kind=kind, axes=(1,), keepdims=True))
    b.output("count", b.op("reduce", b.op("cast", both, dtype=I32), kind="sum", axes=(0, 1), keepdims=False))
    b.output("chosen", b.op("select", both, x, b.op("mul", y, x)))
    return b.finish()


def scalars(rng: Seeded) -> Module:
    """Tensors of rank 0: in, out, between, and reductions down to them."""
    b = GraphBuilder()
    x, y = b.input("x", tensor(F32)), b.input("y", tensor(F32, 3, 7))
    b.output("x", b.op("exp", x))
    b.output("sum", b.op("reduce", b.op("mul", y, x), kind="sum", axes=(0, 1), keepdims=False))
    b.output("both", b.op("add", b.op("reduce", y, kind="max", axes=(0, 1), keepdims=False), x))
    return b.finish()


def long_reduction(rng: Seeded) -> Module:
    """A mean over a million elements, and a maximum beside it."""
    b = GraphBuilder()
    x = b.input("x", tensor(F32, 1 << 20))
    b.output("sum", b.op("reduce", b.op("mul", x, x), kind="sum", axes=(0,), keepdims=False))
    b.output("max", b.op("reduce", x, kind="max", axes=(0,), keepdims=True))
    return b.finish()


def names_of_axes(rng: Seeded) -> Module:
    """Symbolic dims called like the axes and loops that lowering makes."""
    b = GraphBuilder(dims={"_batch": (1, None), "d0": (1, None), "index": (1, None)})
    x = b.input("x", tensor(F32, symbol("_batch"), symbol("index"), symbol("d0")))
    y = b.input("y", tensor(F32, symbol("d0"), 7))
    z = b.op("matmul", x, y)
    b.output("z", b.op("softmax", z, axis=1))
    b.output("x", b.op("exp", x))
    return b.finish()


def positions(rng: Seeded) -> Module:
    """Numbers of positions and dims as values, broadcast and gathered with."""
    b = GraphBuilder(dims={"S": (1, None)})
    s = symbol("S")
    x = b.input("x", tensor(F32, 2, s, 5))
    where = b.op("iota", axis=1, shape=(2, s, 5), dtype=I64)
    b.output("y", b.op("mul", x, b.op("cast", where, dtype=F32)))
    b.output("mask", b.op("lt", where, b.op("dimension", value=s, dtype=I64)))
    return b.finish()


def empty(rng: Seeded) -> Module:
    """Extents of zero, known and not known."""
    b = GraphBuilder(dims={"N": (0, None)})
    x, y = b.input("x", tensor(F32, symbol("N"), 4)), b.input("y", tensor(F32, 3, 0))
    b.output("x", b.op("exp", x))
    b.output("sums", b.op("reduce", x, kind="sum", axes=(0,), keepdims=False))
    b.output("product", b.op("matmul", x, b.constant(_weights(rng, 4, 3))))
    b.output("y", b.op("tanh", y))
    b.output("sum", b.op("reduce", y, kind="sum", axes=(1,), keepdims=False))
    return b.finish()


RISKS: dict[str, Callable[[Seeded], Module]] = {
    f.__name__: f
    for f in (
        dropped_axis_of_square, dropped_axis_of_cube, dropped_axis_in_place, two_spills, spill_beside_output,
        pad_beside_pool, pad_beside_convolution, one_channel_between_borders, output_read_by_window,
        concatenation_of_everything, concatenation_with_pitch, skipping_slices, foreign_outputs, integers, truth,
        scalars, long_reduction, names_of_axes, positions, empty,
    )
}  # fmt: skip
