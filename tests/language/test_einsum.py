"""Contractions by letters against numpy.einsum, with gradients by central differences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.language.build import compiled, draw
from tests.language.numeric import Doubles, gradient

CASES = [
    ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
    ("bi,bj,bk->bijk", [(2, 3), (2, 4), (2, 2)]),
    ("i,j,k,i->jk", [(3,), (4,), (2,), (3,)]),
    ("ij,kl,jk,m->il", [(2, 3), (4, 5), (3, 4), (2,)]),
    ("ii->i", [(4, 4)]),
    ("ii", [(4, 4)]),
    ("iji->ij", [(3, 2, 3)]),
    ("iiji,j->i", [(3, 3, 2, 3), (2,)]),
    ("iijj->ij", [(3, 3, 2, 2)]),
    ("ij,jk", [(2, 3), (3, 4)]),
    ("ba,c", [(2, 3), (4,)]),
    ("ij->", [(2, 3)]),
    ("->", [()]),
    (",ij,->ji", [(), (2, 3), ()]),
    ("...ij,...jk->...ik", [(2, 3, 4), (2, 4, 5)]),
    ("...ij,jk", [(5, 2, 3, 4), (4, 3)]),
    ("...i,...i->...", [(2, 1, 3), (4, 3)]),
    ("i...,...->i...", [(3, 2, 4), (4,)]),
    ("...ii->...i", [(2, 3, 3)]),
    ("a...b,b...,...->...a", [(2, 5, 3), (3, 1, 5), (4, 1)]),
    ("ij->...ji", [(2, 3)]),
    ("...i->i...", [(3,)]),
    ("ij,jk->ik", [(2, 1), (3, 4)]),
    (" i j , j -> i ", [(2, 3), (3,)]),
]


@pytest.mark.numerics
@pytest.mark.parametrize(("formula", "shapes"), CASES, ids=[formula for formula, _ in CASES])
def test_einsum_when_compared_with_numpy_then_values_and_gradients_agree(
    tmp_path: Path, formula: str, shapes: list[tuple[int, ...]]
) -> None:
    names = [f"x{i}" for i in range(len(shapes))]
    inputs = {name: draw(i, *shape) for i, (name, shape) in enumerate(zip(names, shapes, strict=True))}
    wanted = np.einsum(formula, *inputs.values())
    weights = draw(99, *wanted.shape)
    typed = ", ".join(f"{name}: Tensor[{', '.join(map(str, x.shape)) or 'f32'}]" for name, x in inputs.items())
    axes = ", ".join(map(str, wanted.shape)) or "f32"
    body = f"""
    @graph.module("contracted")
    def contracted({typed}, c: Tensor[{axes}]):
        y = op.einsum({formula!r}, {", ".join(names)})
        return {{"y": y, "g": graph.backward(op.reduce_sum(y * c), wrt=[{", ".join(names)}])}}
    """
    found = compiled(tmp_path, body, {**inputs, "c": weights})
    assert found["y"].shape == wanted.shape
    np.testing.assert_allclose(found["y"], wanted, rtol=1e-4, atol=1e-5)
    wide = [x.astype(np.float64) for x in inputs.values()]
    for place, name in enumerate(names):

        def total(x: Doubles, place: int = place) -> Doubles:
            return (np.einsum(formula, *wide[:place], x, *wide[place + 1 :]) * weights).sum()

        np.testing.assert_allclose(found[f"grad.{name}"], gradient(total, wide[place]), rtol=1e-4, atol=1e-4)


@pytest.mark.numerics
def test_einsum_when_extents_are_symbolic_then_agrees_with_numpy(tmp_path: Path) -> None:
    body = """
    M = op.tensor((3, 4), init=op.init.normal(1))

    @graph.module("open")
    def open(x: Tensor["B", "N", "N", 3], y: Tensor["N", 1]):
        return {"a": op.einsum("...nni,ij,n...->...nj", x, M, y), "M": M}
    """
    for size in (1, 3):
        x, y = draw(0, 2, size, size, 3), draw(1, size, 1)
        found = compiled(tmp_path, body, {"x": x, "y": y}, verify=True)
        wanted = np.einsum("...nni,ij,n...->...nj", x, found["M"], y)
        np.testing.assert_allclose(found["a"], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.numerics
def test_einsum_when_operands_are_arrays_and_lists_then_these_are_constants(tmp_path: Path) -> None:
    body = """
    import numpy as np

    @graph.module("mixed")
    def mixed(x: Tensor[2, i64]):
        y = op.cast(x, f32)
        return op.einsum("i,ij,j->", y, np.eye(2, dtype=np.float32), [1.0, 2.0])
    """
    found = compiled(tmp_path, body, {"x": np.array([3, 4])})
    np.testing.assert_allclose(found["output"], 11.0)
