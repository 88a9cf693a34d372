"""File and line on every node: as it is read, and after all passes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tessera.errors import LanguageError
from tessera_build.frontends.python import read_python
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tests.language.build import written

pytestmark = pytest.mark.unit
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*/model.py"))
BODY = """
W = op.tensor((8, 8), init=op.init.normal(seed=1))

class Block(graph.Module):
    def __init__(self):
        self.w = op.tensor((8, 8), init=op.init.normal(seed=2))

    def forward(self, x: Tensor["B", 8]):
        return op.tanh(x @ self.w)

net = Block()

@graph.module("cached")
def cached(q: Tensor["B", 2, "T", 4], c: KVCache["B", 2, 6, 4, f32]):
    c = c.append(q, q * 2.0)
    return op.flash_attention(q, c), c

@graph.module("kept")
def kept(x: Tensor["B", 8]):
    return x, graph.grad(lambda y: op.reduce_mean((op.tanh(y @ W) - y) ** 2))(x), op.zeros((3,)) + x.shape[0]
"""


def without_place(module: Module) -> list[str]:
    """The nodes that say nothing of where they are from."""
    return [
        f"{name}: {node.op}"
        for name, function in module.entries.items()
        for node in graph_nodes(function)
        if node not in function.locations
    ]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_example_when_read_then_every_node_has_a_place(path: Path) -> None:
    module = read_python(path).module
    assert not without_place(module)
    assert not without_place(run_passes(module))


def test_constants_and_dimensions_when_read_then_have_the_lines_that_they_are_from(tmp_path: Path) -> None:
    module = read_python(written(tmp_path, BODY)).module
    assert not without_place(module)
    assert not without_place(run_passes(module))
    lines: dict[str, set[int]] = {}
    for name, function in module.entries.items():
        for node in graph_nodes(function):
            if node.op in ("constant", "dimension") and node in function.locations:
                lines.setdefault(f"{name}: {node.op}", set()).add(function.locations[node].line)
    assert lines["net: constant"] == {7}
    assert lines["cached: dimension"] == {16}
    assert {3, 21} <= lines["kept: constant"]


@pytest.mark.parametrize(
    ("source", "place"),
    [
        (
            "from layers import layer\n\n@graph.module('m')\ndef m(x: Tensor[3]):\n    return layer(x)\n",
            "model.py:6:12",
        ),
        ("from layers import m\n", "layers.py:8:12"),
    ],
)
def test_error_when_a_package_is_installed_then_is_the_authors_or_else_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, place: str
) -> None:
    installed = tmp_path / "site-packages"
    installed.mkdir()
    body = "\ndef layer(x):\n    return x @ x[:2]\n\n@graph.module('m')\ndef m(x: Tensor[3]):\n    return x @ x[:2]\n"
    written(installed, body, "layers.py")
    monkeypatch.syspath_prepend(str(installed))
    path = written(tmp_path, source)
    try:
        with pytest.raises(LanguageError) as caught:
            read_python(path)
    finally:
        sys.modules.pop("layers", None)
    assert caught.value.where == place, caught.value.diagnostics()
