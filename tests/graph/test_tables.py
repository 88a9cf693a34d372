"""Rows taken from tables that are computed from constants: only the rows are computed."""

from __future__ import annotations

import numpy as np
import pytest

from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.types import F32, I64, tensor
from tessera_build.ir.graph.builder import GraphBuilder, graph_nodes
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.passes.canonicalise import Canonicalise
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.graph.reference import run


def _embedding(rows: int, scale_shape: tuple[int, ...], axis: int) -> tuple[Module, Array]:
    rng = np.random.default_rng(3)
    table = rng.integers(-128, 128, (rows, 6)).astype(np.int8)
    scale = rng.uniform(0.1, 1, scale_shape).astype(np.float32)
    b = GraphBuilder(dims={"N": (1, None)})
    wide = b.op("mul", b.op("cast", b.constant(table), dtype=F32), b.constant(scale))
    b.output("y", b.op("gather", wide, b.input("i", tensor(I64, 2, symbol("N"))), axis=axis))
    return b.finish(), np.take(table.astype(np.float32) * scale, [[0, 3, 5], [2, 2, 1]], axis)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", [(), (6,), (1, 6), (9, 1), (9, 6)])
def test_gather_when_its_table_is_dequantised_then_only_the_rows_are(shape: tuple[int, ...], axis: int) -> None:
    module, expected = _embedding(9, shape, axis)
    after = Canonicalise().run(module)
    function = after.entries["main"]
    (cast,) = [node for node in graph_nodes(function) if node.op == "cast"]
    assert function.types[cast.inputs[0]].rank == 3, "the table itself is converted"
    for candidate in (after, run_passes(module)):
        found = run(candidate, "main", {"i": np.array([[0, 3, 5], [2, 2, 1]])})["y"]
        np.testing.assert_array_equal(found, expected)
