"""The before → after text in each pass's docstring is what the pass does."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import numpy as np
import pytest

from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.types import F32, U8, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.passes.canonicalise import Canonicalise
from tessera_build.ir.graph.passes.eliminate_common import EliminateCommon
from tessera_build.ir.graph.passes.eliminate_dead import EliminateDead
from tessera_build.ir.graph.passes.fold_constants import FoldConstants
from tessera_build.ir.graph.passes.fold_scale import FoldScale
from tessera_build.ir.graph.passes.layout_channels_last import LayoutChannelsLast
from tessera_build.ir.graph.passes.multiply_bytes import MultiplyBytes
from tessera_build.ir.graph.passes.multiply_pixels import MultiplyPixels
from tessera_build.ir.graph.passes.pipeline import GraphPass
from tessera_build.ir.graph.passes.recognise_attention import RecogniseAttention
from tests.graph.brief import blocks_of, brief
from tests.graph.graphs import assert_same_results, image_input, normal

pytestmark = pytest.mark.golden


def dead() -> Module:
    b = GraphBuilder()
    x = b.input("x", tensor(F32, 4))
    b.op("exp", x)
    b.output("y", b.op("neg", x))
    return b.finish()


def common() -> Module:
    b = GraphBuilder()
    x = b.input("x", tensor(F32, 4))
    b.output("y", b.op("add", b.op("exp", x), b.op("exp", x)))
    return b.finish()


def folding() -> Module:
    b = GraphBuilder()
    x = b.input("x", tensor(F32, 4))
    b.output("y", b.op("mul", x, b.op("sqrt", b.op("add", b.scalar(1.0, F32), b.scalar(1.0, F32)))))
    return b.finish()


def canonical() -> Module:
    b = GraphBuilder()
    x = b.input("x", tensor(F32, 2, 3, 4))
    swapped = b.op("transpose", b.op("mul", b.scalar(1.0, F32), x), perm=(0, 2, 1))
    b.output("y", b.op("pow", b.op("transpose", swapped, perm=(0, 2, 1)), b.scalar(2.0, F32)))
    return b.finish()


def _conv(b: GraphBuilder, x: int) -> int:
    w = b.constant(normal(0, 4, 3, 1, 1), "w")
    return b.op("conv", x, w, strides=(1, 1), low=(0, 0), high=(0, 0), dilations=(1, 1))


def scaled() -> Module:
    b = GraphBuilder()
    bias, scale, shift = (b.constant(normal(i, 4, 1, 1), n) for i, n in enumerate(("bias", "scale", "shift"), 1))
    y = b.op("add", _conv(b, image_input(b)), bias)
    b.output("y", b.op("add", b.op("mul", y, scale), shift))
    return b.finish()


def channels_first() -> Module:
    b = GraphBuilder()
    y = b.op("add", _conv(b, image_input(b)), b.constant(normal(1, 1, 4, 1, 1), "bias"))
    b.output("y", b.op("reduce", y, kind="max", axes=(2, 3)))
    return b.finish()


def pixels() -> Module:
    b = GraphBuilder()
    x, w = b.input("x", tensor(F32, 1, 256, 28, 28)), b.constant(normal(0, 64, 256, 1, 1), "w")
    y = b.op("conv", x, w, strides=(1, 1), low=(0, 0), high=(0, 0), dilations=(1, 1))
    b.output("y", b.op("max", y, b.scalar(0.0, F32)))
    return b.finish()


def attention() -> Module:
    b = GraphBuilder()
    shape = (symbol("N"), 2, symbol("W"), 8)
    q, k, v = (b.input(name, tensor(F32, *shape)) for name in "qkv")
    scores = b.op("mul", b.op("matmul", q, k, transpose_b=True), b.scalar(0.125, F32))
    scores = b.op("add", scores, b.input("mask", tensor(F32, symbol("N"), 1, 1, symbol("W"))))
    b.output("y", b.op("matmul", b.op("softmax", scores, axis=3), v))
    return b.finish()


def dequantised() -> Module:
    b = GraphBuilder()
    w = b.constant(np.arange(-6, 6, dtype=np.int8).reshape(4, 3), "w")
    x, w = (b.op("cast", v, dtype=F32) for v in (b.input("x", tensor(U8, 2, 4)), w))
    b.output("y", b.op("matmul", b.op("mul", x, b.scalar(0.5, F32)), b.op("mul", w, b.scalar(0.25, F32))))
    return b.finish()


CASES: tuple[tuple[GraphPass, Callable[[], Module], tuple[str, ...]], ...] = (
    (EliminateDead(), dead, ()),
    (MultiplyBytes(), dequantised, ("dtype",)),
    (EliminateCommon(), common, ()),
    (FoldConstants(), folding, ()),
    (Canonicalise(), canonical, ("perm",)),
    (FoldScale(), scaled, ()),
    (MultiplyPixels(), pixels, ("layout", "shape")),
    (LayoutChannelsLast(), channels_first, ("layout", "perm", "axes")),
    (RecogniseAttention(), attention, ("transpose_b", "axis", "scale")),
)


@pytest.mark.parametrize(("step", "make", "shown"), CASES, ids=lambda case: type(case).__name__)
def test_pass_when_run_on_its_example_then_does_what_its_docstring_shows(
    step: GraphPass, make: Callable[[], Module], shown: tuple[str, ...]
) -> None:
    before = make()
    after = step.run(before)
    documented = blocks_of(str(importlib.import_module(type(step).__module__).__doc__))
    assert (brief(before, shown), brief(after, shown)) == documented
    assert_same_results(before, after)


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_brief_when_constant_is_a_scalar_then_shows_its_value(dtype: type[np.generic]) -> None:
    b = GraphBuilder()
    b.output("y", b.op("neg", b.constant(np.asarray(3, dtype))))
    assert brief(b.finish()) == ['%1 = "tgraph.neg"(3)', "return %1"]
