"""The property of every pass: the reference gives the same results before and after, on random networks."""

from __future__ import annotations

import pytest

from tessera_build.ir.graph.passes.canonicalise import Canonicalise
from tessera_build.ir.graph.passes.eliminate_common import EliminateCommon
from tessera_build.ir.graph.passes.eliminate_dead import EliminateDead
from tessera_build.ir.graph.passes.fold_constants import FoldConstants
from tessera_build.ir.graph.passes.fold_scale import FoldScale
from tessera_build.ir.graph.passes.layout_channels_last import LayoutChannelsLast
from tessera_build.ir.graph.passes.multiply_pixels import MultiplyPixels
from tessera_build.ir.graph.passes.pipeline import GraphPass, run_passes
from tessera_build.ir.graph.passes.recognise_attention import RecogniseAttention
from tests.graph.graphs import assert_same_results, attention_module, nodes_of, random_module

pytestmark = pytest.mark.numerics

PASSES: tuple[GraphPass, ...] = (
    EliminateDead(),
    EliminateCommon(),
    FoldConstants(),
    Canonicalise(),
    FoldScale(),
    MultiplyPixels(),
    LayoutChannelsLast(),
)


@pytest.mark.parametrize("step", PASSES, ids=lambda step: type(step).__name__)
@pytest.mark.parametrize("seed", range(12))
def test_pass_when_run_on_a_random_network_then_results_agree(step: GraphPass, seed: int) -> None:
    module = random_module(seed)
    assert_same_results(module, step.run(module))


@pytest.mark.parametrize("seed", range(60))
def test_pipeline_when_run_on_a_random_network_then_results_agree_and_every_conv_is_channels_last(seed: int) -> None:
    module = random_module(seed)
    after = run_passes(module, verify_each=True)
    assert_same_results(module, after)
    assert {n.attributes["layout"] for n in nodes_of(after, "conv")} == {"NHWC"}


@pytest.mark.parametrize("seed", range(30))
def test_pipeline_when_run_twice_then_changes_nothing_more(seed: int) -> None:
    once = run_passes(random_module(seed))
    twice = run_passes(once)
    assert [(n.op, n.inputs) for n in nodes_of(twice)] == [(n.op, n.inputs) for n in nodes_of(once)]


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("scale_on", ["scores", "q", "k", "nothing"])
def test_attention_when_recognised_then_results_agree(mask: bool, scale_on: str) -> None:
    module = attention_module(mask, scale_on)
    assert_same_results(module, RecogniseAttention().run(Canonicalise().run(module)))
    assert_same_results(module, run_passes(module, verify_each=True))
