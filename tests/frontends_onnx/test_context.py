"""What operators are given to translate themselves with."""

import pytest

from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ModelError
from tessera_build.ir.core.dims import Extent, Range, symbol
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder


def _given(*shape: Extent) -> tuple[Context, Tensor]:
    ranges: dict[str, Range] = {"N": (1, None), "M": (1, None)}
    builder = GraphBuilder("main", ranges)
    type_ = tensor(F32, *shape)
    return Context(builder, ranges), Tensor(type_, builder.input("x", type_))


@pytest.mark.unit
def test_retyped_when_an_extent_is_not_known_to_be_equal_then_guards_it_once() -> None:
    context, x = _given(symbol("N"), 4)
    for _ in range(2):
        assert context.retyped(x, (symbol("M"), 4)).shape == (symbol("M"), 4)
    assert [guard[:3] for guard in context.guards] == [(symbol("N"), "==", symbol("M"))]


@pytest.mark.unit
def test_retyped_when_the_shape_is_its_own_then_guards_nothing() -> None:
    context, x = _given(symbol("N"), 4)
    assert context.retyped(x, (symbol("N"), 4)).shape == (symbol("N"), 4)
    assert not context.guards


@pytest.mark.errors
@pytest.mark.parametrize("shape", [(symbol("N"), 3), (symbol("N"), 5), (symbol("N"),)])
def test_retyped_when_the_shape_is_another_then_raises(shape: tuple[Extent, ...]) -> None:
    context, x = _given(symbol("N"), 4)
    with pytest.raises(ModelError, match="BAD_MODEL"):
        context.retyped(x, shape)
