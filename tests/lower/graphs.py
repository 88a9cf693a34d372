"""Small graphs that exercise every rule of lowering; each is a builder, its inputs follow from the types."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tessera_build.ir.core.dims import evaluate, symbol
from tessera_build.ir.core.types import F32, I64, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module

Seeded = np.random.Generator


def _weights(rng: Seeded, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))


def convolution(rng: Seeded, channels: int, out: int, kernel: int, stride: int, groups: int, size: int) -> Module:
    """Padded convolution, bias, clipped result."""
    b = GraphBuilder(dims={"N": (1, None)})
    x = b.input("x", tensor(F32, symbol("N"), size, size, channels))
    w = b.constant(_weights(rng, out, channels // groups, kernel, kernel), "w")
    pad = kernel // 2
    y = b.op(
        "conv",
        x,
        w,
        strides=(stride, stride),
        low=(pad, pad),
        high=(pad, pad),
        dilations=(1, 1),
        groups=groups,
        layout="NHWC",
    )
    y = b.op("max", b.op("add", y, b.constant(_weights(rng, out), "b")), b.constant(np.float32(0), "zero"))
    b.output("y", y)
    return b.finish()


def chain(rng: Seeded) -> Module:
    """Pool, two convolutions with a residual, a concatenation, a mean, a product, a softmax."""
    b = GraphBuilder(dims={"N": (1, None)})
    x = b.input("x", tensor(F32, symbol("N"), 10, 10, 12))
    p = b.op(
        "reduce_window",
        x,
        kind="max",
        window=(1, 3, 3, 1),
        strides=(1, 2, 2, 1),
        low=(0, 1, 1, 0),
        high=(0, 1, 1, 0),
        dilations=(1, 1, 1, 1),
    )
    flags = {"strides": (1, 1), "dilations": (1, 1), "groups": 1, "layout": "NHWC"}
    c = b.op("conv", p, b.constant(_weights(rng, 12, 12, 3, 3), "w1"), low=(1, 1), high=(1, 1), **flags)
    c = b.op("add", c, p)
    d = b.op("conv", c, b.constant(_weights(rng, 20, 12, 1, 1), "w2"), low=(0, 0), high=(0, 0), **flags)
    joined = b.op("concat", c, d, p, axis=3)
    mean = b.op("reduce", joined, kind="sum", axes=(1, 2), keepdims=False)
    y = b.op("matmul", mean, b.constant(_weights(rng, 44, 10), "w3"))
    b.output("y", b.op("softmax", y, axis=1))
    return b.finish()


def image(rng: Seeded) -> Module:
    """Windows over an image of unknown height and width: pooling, a strided and a depthwise convolution, a mean."""
    b = GraphBuilder(dims={"N": (1, None), "H": (3, None), "W": (3, None)})
    x = b.input("x", tensor(F32, symbol("N"), symbol("H"), symbol("W"), 5))
    sides = {"low": (1, 1), "high": (1, 1), "layout": "NHWC", "dilations": (1, 1)}
    c = b.op("conv", x, b.constant(_weights(rng, 18, 5, 3, 3), "w1"), strides=(2, 2), groups=1, **sides)
    c = b.op("conv", b.op("tanh", c), b.constant(_weights(rng, 18, 1, 3, 3), "w2"), strides=(1, 1), groups=18, **sides)
    around = ((0, 1, 1, 0), (1, 1, 1, 1))
    window = {"window": (1, 3, 3, 1), "strides": around[1], "low": around[0], "high": around[0], "dilations": around[1]}
    p = b.op("reduce_window", c, kind="max", **window)
    b.output("pooled", p)
    b.output("mean", b.op("reduce", p, kind="sum", axes=(1, 2), keepdims=True))
    return b.finish()


def normalisation(rng: Seeded, width: int) -> Module:
    """Layer normalisation written out, with two results."""
    b = GraphBuilder(dims={"S": (1, None)})
    x = b.input("x", tensor(F32, 2, symbol("S"), width))
    scale = b.constant(np.float32(1 / width), "n")
    mean = b.op("mul", b.op("reduce", x, kind="sum", axes=(2,), keepdims=True), scale)
    centred = b.op("sub", x, mean)
    var = b.op("mul", b.op("reduce", b.op("mul", centred, centred), kind="sum", axes=(2,), keepdims=True), scale)
    root = b.op("sqrt", b.op("add", var, b.constant(np.float32(1e-5), "eps")))
    y = b.op(
        "add",
        b.op("mul", b.op("div", centred, root), b.constant(_weights(rng, width), "g")),
        b.constant(_weights(rng, width), "b"),
    )
    b.output("y", y)
    b.output("mean", mean)
    return b.finish()


def lookup(rng: Seeded) -> Module:
    """Rows of a table, transposed, reshaped and sliced."""
    b = GraphBuilder(dims={"S": (1, None)})
    ids = b.input("ids", tensor(I64, 2, symbol("S")))
    rows = b.op("gather", b.constant(_weights(rng, 30, 24), "table"), ids, axis=0)
    heads = b.op("transpose", b.op("reshape", rows, shape=(2, symbol("S"), 3, 8)), perm=(0, 2, 1, 3))
    y = b.op("exp", b.op("slice", heads, starts=(0, 1, 0, 2), stops=(2, 3, symbol("S"), 8), steps=(1, 1, 1, 2)))
    b.output("y", y)
    return b.finish()


def chosen(rng: Seeded) -> Module:
    """Single elements chosen along the last axis and along one in the middle, of computed values."""
    b = GraphBuilder(dims={"S": (1, None)})
    ids = b.input("ids", tensor(I64, 2, symbol("S"), 5))
    table = b.constant(_weights(rng, 2, 30, 5), "table")
    middle = b.op("gather_elements", b.op("exp", table), ids, axis=1)
    b.output("middle", middle)
    rows = b.op("broadcast_to", b.constant(_weights(rng, 2, 1, 30), "rows"), shape=(2, symbol("S"), 30))
    b.output("last", b.op("add", b.op("gather_elements", rows, ids, axis=2), middle))
    return b.finish()


def shared_heads(rng: Seeded) -> Module:
    """Attention of six heads of queries over two heads of keys, with a mask for each head."""
    b = GraphBuilder(dims={"S": (1, None), "T": (1, None)})
    q = b.input("q", tensor(F32, 2, 6, symbol("S"), 20))
    k = b.input("k", tensor(F32, 2, 2, symbol("T"), 20))
    v = b.input("v", tensor(F32, 2, 2, symbol("T"), 12))
    mask = b.input("mask", tensor(F32, 1, 6, symbol("S"), symbol("T")))
    b.output("y", b.op("attention", q, k, v, mask, scale=0.2))
    b.output("plain", b.op("attention", b.op("tanh", q), k, v, scale=0.3))
    return b.finish()


def products(rng: Seeded, rows: int, depth: int, columns: int) -> Module:
    """A product by a constant, then one between two computed values."""
    b = GraphBuilder()
    x = b.input("x", tensor(F32, 3, rows, depth))
    y = b.op("matmul", x, b.constant(_weights(rng, depth, columns), "w"))
    scores = b.op("matmul", y, b.op("transpose", y, perm=(0, 2, 1)))
    b.output("y", b.op("tanh", scores))
    return b.finish()


GRAPHS: dict[str, Callable[[Seeded], Module]] = {
    "convolution": lambda r: convolution(r, 12, 40, 3, 1, 1, 9),
    "convolution-strided": lambda r: convolution(r, 3, 18, 5, 2, 1, 11),
    "convolution-grouped": lambda r: convolution(r, 24, 36, 3, 1, 2, 7),
    "convolution-depthwise": lambda r: convolution(r, 21, 21, 3, 2, 21, 9),
    "convolution-multiplier": lambda r: convolution(r, 6, 12, 3, 1, 6, 6),
    "chain": chain,
    "image": image,
    "normalisation": lambda r: normalisation(r, 70),
    "normalisation-short": lambda r: normalisation(r, 5),
    "lookup": lookup,
    "chosen": chosen,
    "shared-heads": shared_heads,
    "products": lambda r: products(r, 17, 33, 19),
    "products-row": lambda r: products(r, 1, 64, 100),
}


def inputs_of(module: Module, sizes: dict[str, int], rng: Seeded) -> dict[str, Array]:
    """Random inputs of an entry at given sizes; integers are indices below 30, some of them from the end."""
    function = module.entries["main"]
    found: dict[str, Array] = {}
    for value, name in zip(function.args, module.input_names["main"], strict=True):
        kind = function.types[value]
        shape = [evaluate(e, sizes) for e in kind.shape]
        if kind.dtype.is_float:
            found[name] = rng.standard_normal(shape).astype(kind.dtype.numpy)
        else:
            found[name] = rng.integers(-30, 30, shape).astype(kind.dtype.numpy)
    return found
