"""Random small graphs through the complete compiled path: results, threads and rows of a batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.types import F32, I64, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.passes.eliminate_dead import EliminateDead
from tests.lower.compiled import check_module
from tests.lower.graphs import inputs_of

_SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
_SIZES = {"N": 3}


class _Grower:
    """Adds random nodes to a graph of images and matrices of small extents."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.builder = GraphBuilder(dims={"N": (1, None)})
        self.rng = np.random.default_rng(draw(st.integers(0, 1000)))
        batch: Extent = symbol("N") if draw(st.booleans()) else 2
        sides = [draw(st.integers(3, 9)) for _ in range(2)]
        image = self.builder.input("x", tensor(F32, batch, *sides, draw(st.sampled_from([1, 3, 4, 9, 17]))))
        self.values = [image, self.builder.op("tanh", image)] if draw(st.booleans()) else [image]

    def pick(self, rank: int | None = None) -> int:
        found = [v for v in self.values if rank is None or len(self.shape(v)) == rank]
        return self.draw(st.sampled_from(found or self.values))

    def shape(self, value: int) -> tuple[Extent, ...]:
        return self.builder.type(value).shape

    def weights(self, *shape: int) -> int:
        scale = np.float32(1 / np.sqrt(max(1, np.prod(shape[1:]))))
        return self.builder.constant(self.rng.standard_normal(shape).astype(np.float32) * scale)

    def grow(self) -> None:
        made = self.draw(st.sampled_from(_GROWTHS))(self)
        if made is not None:
            self.values.append(made)

    def module(self) -> Module:
        outputs = [self.values[-1], *self.draw(st.lists(st.sampled_from(self.values), max_size=2))]
        for position, value in enumerate(outputs):
            self.builder.output(f"y{position}", value)
        return EliminateDead().run(self.builder.finish())  # lowering is never given a node that nothing reads


def _image(g: _Grower) -> tuple[int, list[int], int] | None:
    """An image with known sides: value, sides, channels."""
    value = g.pick(4)
    shape = g.shape(value)
    sides = [e for e in shape[1:] if isinstance(e, int)]
    return (value, sides[:2], sides[2]) if len(shape) == 4 and len(sides) == 3 and min(sides[:2]) >= 3 else None


def _convolve(g: _Grower) -> int | None:
    found = _image(g)
    if found is None:
        return None
    value, _, channels = found
    groups = g.draw(st.sampled_from([n for n in (1, 1, channels, 2) if channels % n == 0]))
    out = groups * g.draw(st.integers(1, 20 if groups == 1 else 2))
    size, pads = g.draw(st.sampled_from([1, 3])), [g.draw(st.integers(0, 1)) for _ in range(2)]
    dilation = g.draw(st.integers(1, 2)) if size == 3 and min(found[1]) >= 5 else 1
    stride = g.draw(st.integers(1, 2))
    return g.builder.op(
        "conv", value, g.weights(out, channels // groups, size, size), strides=(stride, stride), low=(pads[0],) * 2,
        high=(pads[1],) * 2, dilations=(dilation,) * 2, groups=groups, layout="NHWC",
    )  # fmt: skip


def _pool(g: _Grower) -> int | None:
    found = _image(g)
    if found is None:
        return None
    pad, stride = g.draw(st.integers(0, 1)), g.draw(st.integers(1, 2))
    around = {"window": (1, 3, 3, 1), "strides": (1, stride, stride, 1), "dilations": (1, 1, 1, 1)}
    kind = g.draw(st.sampled_from(["max", "sum", "min"]))
    return g.builder.op("reduce_window", found[0], kind=kind, low=(0, pad, pad, 0), high=(0, pad, pad, 0), **around)


def _product(g: _Grower) -> int | None:
    value = g.pick()
    depth = g.shape(value)[-1]
    if len(g.shape(value)) < 2 or not isinstance(depth, int):
        return None
    if g.draw(st.booleans()):
        return g.builder.op("matmul", value, g.weights(depth, g.draw(st.integers(1, 40))))
    order = (*range(len(g.shape(value)) - 2), len(g.shape(value)) - 1, len(g.shape(value)) - 2)
    return g.builder.op("matmul", value, g.builder.op("transpose", value, perm=order))


def _elementwise(g: _Grower) -> int | None:
    value = g.pick()
    name = g.draw(st.sampled_from(["add", "sub", "mul", "max", "tanh", "exp", "constant"]))
    if name in {"tanh", "exp"}:
        return g.builder.op(name, g.builder.op("tanh", value))
    if name == "constant":
        last = g.shape(value)[-1] if g.shape(value) else 1
        return g.builder.op("add", value, g.weights(last)) if isinstance(last, int) else None
    alike = [v for v in g.values if _broadcasts(g.shape(value), g.shape(v))]
    return g.builder.op(name, value, g.draw(st.sampled_from(alike)))


def _broadcasts(left: tuple[Extent, ...], right: tuple[Extent, ...]) -> bool:
    pairs = zip(reversed(left), reversed(right), strict=False)
    return all(a == b or 1 in (a, b) for a, b in pairs)


def _row(g: _Grower) -> int | None:
    value = g.pick()
    rank = len(g.shape(value))
    if rank == 0:
        return None
    axis = g.draw(st.integers(0, rank - 1))
    if g.draw(st.booleans()):
        return g.builder.op("softmax", value, axis=axis)
    axes = tuple(sorted({axis, g.draw(st.integers(0, rank - 1))}))
    kind, keep = g.draw(st.sampled_from(["sum", "max", "min"])), g.draw(st.booleans())
    return g.builder.op("reduce", value, kind=kind, axes=axes, keepdims=keep)


def _join(g: _Grower) -> int | None:
    value = g.pick()
    shape = g.shape(value)
    if not shape:
        return None
    axis = g.draw(st.integers(0, len(shape) - 1))
    same = [v for v in g.values if _alike(g.shape(v), shape, axis)]
    return g.builder.op("concat", *g.draw(st.lists(st.sampled_from(same), min_size=1, max_size=3)), value, axis=axis)


def _alike(left: tuple[Extent, ...], right: tuple[Extent, ...], axis: int) -> bool:
    return len(left) == len(right) and all(
        a == b for i, (a, b) in enumerate(zip(left, right, strict=True)) if i != axis
    )


def _move(g: _Grower) -> int | None:
    value = g.pick()
    shape = g.shape(value)
    kind = g.draw(st.sampled_from(["transpose", "slice", "pad", "flatten", "gather"]))
    if kind == "transpose":
        return g.builder.op("transpose", value, perm=tuple(g.draw(st.permutations(range(len(shape))))))
    if kind == "flatten":
        total: Extent = 1
        for extent in shape[1:]:
            total = total * extent
        return g.builder.op("reshape", value, shape=(*shape[:1], total)) if shape else None
    if kind == "pad":
        low, high = (tuple(g.draw(st.integers(0, 2)) for _ in shape) for _ in range(2))
        return g.builder.op("pad", value, low=low, high=high, value=g.draw(st.sampled_from([0.0, 1.5])))
    known = [i for i, e in enumerate(shape) if isinstance(e, int) and e > 1]
    if not known:
        return None
    axis = g.draw(st.sampled_from(known))
    extent = shape[axis]
    assert isinstance(extent, int)
    if kind == "gather":
        chosen = g.draw(st.lists(st.integers(-extent, extent - 1), min_size=1, max_size=4))
        return g.builder.op("gather", value, g.builder.constant(np.array(chosen, np.int64)), axis=axis)
    start, step = g.draw(st.integers(0, extent - 1)), g.draw(st.integers(1, 2))
    starts, steps = [0] * len(shape), [1] * len(shape)
    starts[axis], steps[axis] = start, step
    return g.builder.op("slice", value, starts=tuple(starts), stops=shape, steps=tuple(steps))


_GROWTHS = (_convolve, _convolve, _pool, _product, _elementwise, _elementwise, _row, _join, _move, _move)


@st.composite
def modules(draw: st.DrawFn) -> Module:
    grower = _Grower(draw)
    for _ in range(draw(st.integers(1, 7))):
        grower.grow()
    return grower.module()


def _small(module: Module) -> bool:
    function = module.entries["main"]
    sizes = [np.prod([e if isinstance(e, int) else 9 for e in kind.shape]) for kind in function.types.values()]
    return bool(max(sizes) < 50_000)


def _check(module: Module) -> None:
    if _small(module):
        inputs = inputs_of(module, _SIZES, np.random.default_rng(1))
        check_module(module, inputs, _SIZES)


@settings(_SETTINGS, max_examples=20)
@given(modules())
def test_random_graph_when_compiled_then_it_equals_the_reference_for_any_threads(module: Module) -> None:
    _check(module)


@pytest.mark.slow
@settings(_SETTINGS, max_examples=400)
@given(modules())
def test_random_graph_when_many_are_compiled_then_each_equals_the_reference(module: Module) -> None:
    _check(module)


@given(st.lists(st.integers(-6, 5), min_size=1, max_size=9))
@settings(_SETTINGS, max_examples=6)
def test_gather_when_indices_are_inputs_then_negative_ones_count_from_the_end(chosen: list[int]) -> None:
    builder = GraphBuilder(dims={"K": (1, None)})
    table = builder.input("table", tensor(F32, 2, 6, 5))
    places = builder.input("places", tensor(I64, symbol("K")))
    builder.output("y", builder.op("exp", builder.op("gather", table, places, axis=1)))
    inputs = {
        "table": np.random.default_rng(0).standard_normal((2, 6, 5)).astype(np.float32),
        "places": np.array(chosen),
    }
    check_module(builder.finish(), inputs, {"K": len(chosen)})
