"""Which entries give derivatives: in those, constants are not folded into weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from tessera_build.frontends.python.reader import read_python
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.graph.text import parse_module, print_module
from tests.language.build import written

pytestmark = pytest.mark.unit

ENTRIES = """
    weights = op.tensor((8, 8), init=op.init.normal(1))
    scale = op.tensor((8,), init=op.init.normal(2))

    def scaled(x):
        return (x @ weights) * scale

    def loss(x):
        return op.reduce_sum(op.exp(scaled(x)))

    @graph.module(name="value")
    def value(x: Tensor["B", 8, f32]):
        return scaled(x)

    @graph.module(name="slope")
    def slope(x: Tensor["B", 8, f32]):
        return graph.grad(loss)(x)

    @graph.module(name="slopes")
    def slopes(x: Tensor["B", 8, f32]):
        return graph.vmap(graph.grad(loss))(x)

    @graph.module(name="change")
    def change(x: Tensor["B", 8, f32], t: Tensor["B", 8, f32]):
        return graph.jvp(scaled(x), wrt=[x], tangents=[t])

    @graph.module(name="kept")
    def kept(x: Tensor["B", 8, f32]):
        return graph.checkpoint(scaled)(x)
"""


def test_module_when_entries_give_derivatives_then_names_them_and_says_so_in_its_text(tmp_path: Path) -> None:
    module = read_python(written(tmp_path, ENTRIES)).module
    assert module.derivatives == {"slope", "slopes", "change"}
    again = parse_module(print_module(module), module.constants)
    assert again.derivatives == module.derivatives
    assert print_module(again) == print_module(module)


def test_passes_when_an_entry_gives_derivatives_then_leave_scales_out_of_its_weights(tmp_path: Path) -> None:
    module = run_passes(read_python(written(tmp_path, ENTRIES)).module)
    assert _ops(module, "value") == _ops(module, "kept") == ["matmul"]
    for entry in ("slope", "slopes", "change"):
        assert "mul" in _ops(module, entry)
    assert module.derivatives == {"slope", "slopes", "change"}


def _ops(module: Module, entry: str) -> list[str]:
    return [node.op for node in graph_nodes(module.entries[entry]) if node.op != "constant"]
