"""The passes over Graph IR, in order.

Takes a module as a frontend made it; gives the module that is lowered. Invariant: the tuple is the whole pipeline,
read top to bottom; a pass appears again where another has made new work for it.
"""

from __future__ import annotations

from typing import Protocol

from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.passes.canonicalise import Canonicalise
from tessera_build.ir.graph.passes.eliminate_common import EliminateCommon
from tessera_build.ir.graph.passes.eliminate_dead import EliminateDead
from tessera_build.ir.graph.passes.fold_constants import FoldConstants
from tessera_build.ir.graph.passes.fold_scale import FoldScale
from tessera_build.ir.graph.passes.inline_checkpoints import InlineCheckpoints
from tessera_build.ir.graph.passes.layout_channels_last import LayoutChannelsLast
from tessera_build.ir.graph.passes.multiply_bytes import MultiplyBytes
from tessera_build.ir.graph.passes.multiply_pixels import MultiplyPixels
from tessera_build.ir.graph.passes.multiply_vectors import MultiplyVectors
from tessera_build.ir.graph.passes.recognise_attention import RecogniseAttention
from tessera_build.ir.graph.passes.solve_equations import SolveEquations
from tessera_build.ir.graph.passes.store_transposed import StoreTransposed
from tessera_build.ir.graph.spec import verify_module


class GraphPass(Protocol):
    """What every pass of this level is."""

    def run(self, module: Module) -> Module:
        """The next module."""
        ...


GRAPH_PASSES: tuple[GraphPass, ...] = (
    InlineCheckpoints(),  # first: their bodies are part of every pattern
    SolveEquations(),  # after the rules beside stated functions are gone: nothing in them is computed
    EliminateDead(),
    MultiplyBytes(),  # before constants are folded: weights are still bytes with a scale
    FoldConstants(),  # before canonicalise: rules look for constants, and frontends write sqrt(var + eps) as nodes
    EliminateCommon(),  # before patterns: two readers of equal values would look like two values with one reader each
    Canonicalise(),
    FoldScale(),  # after canonicalise: it looks for constants on the right; before layout: fewer nodes to move
    RecogniseAttention(),  # after canonicalise: transposes are flags of matmul by then
    MultiplyPixels(),  # before channels-last, which every convolution that is left becomes
    LayoutChannelsLast(),  # after fold_scale, which leaves biases that every layout rule can carry
    MultiplyVectors(),  # after attention and layouts, which look for products; before their operands are transposed
    # Scaled weights, shifted biases and permuted operands; and weights stored as bytes, now that rows taken from tables
    # are computed as rows: a product reads every weight anyway.
    FoldConstants(widening=8),
    Canonicalise(),  # composes the transposes that attention and layout made; they meet at the borders of regions
    FoldConstants(widening=8),
    StoreTransposed(),  # after canonicalise, which makes flags of transposes; products of one operand share it then
    EliminateCommon(),
    EliminateDead(),
)


def run_passes(module: Module, passes: tuple[GraphPass, ...] = GRAPH_PASSES, *, verify_each: bool = False) -> Module:
    """The module after all passes; with `verify_each`, checked against the spec of this level around each."""
    if verify_each:
        verify_module(module)
    for step in passes:
        module = step.run(module)
        if verify_each:
            verify_module(module)
    return module
