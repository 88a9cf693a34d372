"""Small graphs for the tests of this level: builders of typical blocks, random modules, comparison of results.

Takes seeds; gives modules and inputs. Invariant: everything is a function of the seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tessera_build.ir.core.dims import Dim, symbol
from tessera_build.ir.core.types import F32, Type, tensor
from tessera_build.ir.graph.builder import GraphBuilder, graph_nodes
from tessera_build.ir.graph.nodes import Array, GraphNode, Module
from tessera_build.ir.graph.reference import run, shape_at
from tessera_build.ir.graph.spec import verify_module

DIMS = {"N": 2, "H": 9, "W": 7, "K": 5}


def nodes_of(module: Module, op: str | None = None) -> list[GraphNode]:
    """The nodes of `main`, or those of one op."""
    return [n for n in graph_nodes(module.entries["main"]) if op in (None, n.op)]


def ops_of(module: Module) -> list[str]:
    """The ops of `main` in order, constants left out."""
    return [n.op for n in nodes_of(module) if n.op != "constant"]


def op_counts(module: Module) -> Counter[str]:
    """How often each op stands in `main`."""
    return Counter(ops_of(module))


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    """Normal float32 numbers of a seed."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def inputs_of(module: Module, seed: int = 0, dims: Mapping[str, int] = DIMS) -> dict[str, Array]:
    """Normal numbers for every input of `main` (bytes for bytes), with the symbols bound to `dims`."""
    function = module.entries["main"]
    used = {s: dims[s] for a in function.args for e in function.types[a].shape if isinstance(e, Dim) for s in e.symbols}
    found: dict[str, Array] = {}
    for position, (arg, name) in enumerate(zip(function.args, module.input_names["main"], strict=True)):
        numbers = normal(seed + position, *shape_at(function.types[arg], used))
        whole = np.abs(numbers * 50).clip(0, 127)
        found[name] = numbers if function.types[arg].dtype.is_float else whole.astype(function.types[arg].dtype.numpy)
    return found


def assert_close(found: ArrayLike, expected: ArrayLike, rtol: float = 0.0, atol: float = 0.0, what: str = "") -> None:
    """Two arrays have one shape and differ by at most atol + rtol * |expected|, compared in float64."""
    left, right = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert left.shape == right.shape
    np.testing.assert_allclose(left, right, rtol=rtol, atol=atol, err_msg=what)


def assert_same_results(before: Module, after: Module, tolerance: float = 2e-5, seed: int = 0) -> None:
    """Both modules are legal and give the same outputs, within `tolerance` relative to the largest element."""
    verify_module(before)
    verify_module(after)
    inputs = inputs_of(before, seed)
    expected, found = run(before, "main", inputs), run(after, "main", inputs)
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        scale = max(1.0, float(np.abs(array).max(initial=0)))
        assert_close(found[name], array, atol=tolerance * scale, what=name)


def image_input(builder: GraphBuilder, channels: int = 3, name: str = "x") -> int:
    """An image batch [N, channels, H, W] of symbolic size."""
    return builder.input(name, tensor(F32, symbol("N"), channels, symbol("H"), symbol("W")))


def conv(builder: GraphBuilder, x: int, outputs: int, seed: int, kernel: int = 3, groups: int = 1) -> int:
    """A convolution that keeps the size of the image."""
    channels = builder.type(x).shape[1]
    assert isinstance(channels, int)
    weights = builder.constant(normal(seed, outputs, channels // groups, kernel, kernel) / kernel)
    pads = (kernel // 2, kernel // 2)
    return builder.op(
        "conv", x, weights, strides=(1, 1), low=pads, high=pads, dilations=(1, 1), groups=groups, layout="NCHW"
    )


def channel_constant(builder: GraphBuilder, x: int, seed: int) -> int:
    """One number a channel of an image batch."""
    channels = builder.type(x).shape[1]
    assert isinstance(channels, int)
    return builder.constant(normal(seed, channels, 1, 1))


def relu(builder: GraphBuilder, x: int) -> int:
    """max(x, 0)."""
    return builder.op("max", x, builder.scalar(0.0, x))


def _norm(b: GraphBuilder, x: int, seed: int) -> int:
    return b.op("add", b.op("mul", x, channel_constant(b, x, seed)), channel_constant(b, x, seed + 1))


def _pool(b: GraphBuilder, x: int, seed: int) -> int:
    kind = ("max", "sum", "min")[seed % 3]
    ones, size, edge = (1, 1, 1, 1), (1, 1, 3, 3), (0, 0, 1, 1)
    return b.op("reduce_window", x, kind=kind, window=size, strides=ones, low=edge, high=edge, dilations=ones)


def _gate(b: GraphBuilder, x: int, seed: int) -> int:
    mean = b.op("reduce", x, kind="max", axes=(2, 3), keepdims=True)
    return b.op("mul", x, b.op("sigmoid", conv(b, mean, _channels(b, x), seed, 1)))


def _shuffle(b: GraphBuilder, x: int, _: int) -> int:
    n, c, h, w = b.type(x).shape
    assert isinstance(c, int)
    if c % 2:
        return x
    split = b.op("reshape", x, shape=(n, 2, c // 2, h, w))
    return b.op("reshape", b.op("transpose", split, perm=(0, 2, 1, 3, 4)), shape=(n, c, h, w))


def _halves(b: GraphBuilder, x: int, _: int) -> int:
    n, c, h, w = b.type(x).shape
    assert isinstance(c, int)
    zeros, ones = (0, 0, 0, 0), (1, 1, 1, 1)
    first = b.op("slice", x, starts=zeros, stops=(n, c // 2, h, w), steps=ones)
    second = b.op("slice", x, starts=(0, c // 2, 0, 0), stops=(n, c, h, w), steps=ones)
    return b.op("concat", b.op("neg", second), first, axis=1)


def _padded(b: GraphBuilder, x: int, _: int) -> int:
    n, c, h, w = b.type(x).shape
    wide = b.op("pad", x, low=(0, 1, 2, 0), high=(0, 0, 0, 1), value=1.5)
    return b.op("slice", wide, starts=(0, 1, 2, 1), stops=(n, c + 1, h + 2, w + 1), steps=(1, 1, 1, 1))


def _turned(b: GraphBuilder, x: int, _: int) -> int:
    turned = b.op("transpose", x, perm=(0, 2, 3, 1))
    return b.op("transpose", b.op("softmax", turned, axis=3), perm=(0, 3, 1, 2))


def _spread(b: GraphBuilder, x: int, seed: int) -> int:
    n, _, h, w = b.type(x).shape
    wide = b.op("broadcast_to", channel_constant(b, x, seed), shape=(n, _channels(b, x), h, w))
    return b.op("sub", b.op("mul", x, b.scalar(1.0, x)), wide)


def _channels(b: GraphBuilder, x: int) -> int:
    channels = b.type(x).shape[1]
    assert isinstance(channels, int)
    return channels


STEPS: tuple[Callable[[GraphBuilder, int, int], int], ...] = (
    lambda b, x, seed: conv(b, x, 4, seed),
    lambda b, x, seed: conv(b, x, _channels(b, x), seed, 3, _channels(b, x)),
    _norm,
    lambda b, x, _: relu(b, x),
    lambda b, x, seed: b.op("add", x, conv(b, x, _channels(b, x), seed, 1)),
    _pool,
    _gate,
    _shuffle,
    _halves,
    _padded,
    _turned,
    _spread,
    lambda b, x, _: b.op("div", x, b.scalar(4.0, x)),
)


def random_module(seed: int, length: int = 8) -> Module:
    """A random image network: a convolution, `length` random steps, and one of three endings."""
    rng = np.random.default_rng(seed)
    b = GraphBuilder()
    x = conv(b, image_input(b), 4, seed)
    for position in range(length):
        x = STEPS[rng.integers(len(STEPS))](b, x, seed * 100 + position)
    ending = rng.integers(3)
    if ending:
        x = b.op("reduce", x, kind="sum", axes=(2, 3), keepdims=bool(ending == 1))
    if ending == 2:
        x = b.op("matmul", x, b.constant(normal(seed, _channels(b, x), 5)))
    b.output("y", x)
    return b.finish()


def attention_module(mask: bool = True, scale_on: str = "scores", heads: int = 2) -> Module:
    """Self-attention as BERT is exported: heads split by reshape and transpose, keys transposed by one transpose."""
    b = GraphBuilder()
    x = b.input("x", tensor(F32, symbol("N"), symbol("W"), 8))
    q, k, v = (_heads(b, b.op("matmul", x, b.constant(normal(i, 8, 8))), heads) for i in range(3))
    factor = b.scalar(0.5, x)
    q = b.op("mul", q, factor) if scale_on == "q" else q
    k = b.op("div", k, b.scalar(2.0, k)) if scale_on == "k" else k
    q, v = (b.op("transpose", y, perm=(0, 2, 1, 3)) for y in (q, v))
    scores = b.op("matmul", q, b.op("transpose", k, perm=(0, 2, 3, 1)))
    scores = b.op("mul", factor, scores) if scale_on == "scores" else scores
    if mask:
        scores = b.op("add", scores, b.input("mask", tensor(F32, symbol("N"), 1, 1, symbol("W"))))
    context = b.op("matmul", b.op("softmax", scores, axis=3), v)
    merged = b.op("transpose", context, perm=(0, 2, 1, 3))
    b.output("y", b.op("reshape", merged, shape=(symbol("N"), symbol("W"), 8)))
    return b.finish()


def _heads(b: GraphBuilder, x: int, heads: int) -> int:
    n, s, d = b.type(x).shape
    assert isinstance(d, int)
    return b.op("reshape", x, shape=(n, s, heads, d // heads))


def type_of(module: Module, value: int) -> Type:
    """The type of a value of `main`."""
    return module.entries["main"].types[value]
