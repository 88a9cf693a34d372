"""Det and Inverse agree with onnxruntime for matrices of static and of dynamic size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import helper

from tessera_build.frontends.onnx import ModelError, read_onnx
from tests.frontends_onnx.built import assert_built_agrees, run_built
from tests.frontends_onnx.oracle import make_model

pytestmark = pytest.mark.numerics


def matrix_model(op: str, shape: Sequence[int | str], kind: type[np.generic] = np.float32) -> onnx.ModelProto:
    """One node over matrices of this shape."""
    node = helper.make_node(op, ["x"], ["y"], domain="com.microsoft" if op == "Inverse" else "")
    model = make_model([node], {"x": (kind, shape)}, ["y"], None, 13)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def drawn(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Well-conditioned matrices whose pivots are not on the diagonal."""
    size = shape[-1]
    x = np.random.default_rng(size).uniform(-1, 1, shape)
    return x + 2 * np.eye(size)[np.random.default_rng(size + 1).permutation(size)]


@pytest.mark.parametrize(("op", "kind"), [("Det", np.float32), ("Inverse", np.float32), ("Inverse", np.float64)])
def test_matrices_when_their_size_is_dynamic_then_one_bundle_serves_all(op: str, kind: type[np.generic]) -> None:
    feeds = [{"x": drawn(batch, size, size).astype(kind)} for batch, size in ((1, 1), (3, 2), (2, 5), (1, 40))]
    assert_built_agrees(matrix_model(op, ("B", "N", "N"), kind), *feeds, tolerance=5e-5)


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (2, 1, 3, 3), (1, 70, 70)])
@pytest.mark.parametrize("op", ["Det", "Inverse"])
def test_matrices_when_their_size_is_known_then_agree(op: str, shape: tuple[int, ...]) -> None:
    assert_built_agrees(matrix_model(op, shape), {"x": drawn(*shape).astype(np.float32)}, tolerance=1e-4)


def test_determinant_when_its_type_is_one_that_onnxruntime_has_not_then_is_numpys() -> None:
    x = drawn(2, 6, 6)
    ((found,),) = run_built(matrix_model("Det", ("B", "N", "N"), np.float64), [{"x": x}])
    np.testing.assert_allclose(found.astype(np.float64), np.linalg.det(x), rtol=1e-12)


def test_determinant_when_a_matrix_is_singular_then_is_zero() -> None:
    x = np.stack([np.zeros((3, 3)), np.diag([1, 0, 2]), np.diag([0, 2, 3])[[1, 0, 2]]]).astype(np.float32)
    ((found,),) = run_built(matrix_model("Det", ("B", 3, 3)), [{"x": x}])
    np.testing.assert_array_equal(found, [0, 0, 0])


def test_inverse_when_a_matrix_is_singular_then_is_not_finite() -> None:
    ((found,),) = run_built(matrix_model("Inverse", (3, 3)), [{"x": np.diag([1, 0, 2]).astype(np.float32)}])
    assert not np.isfinite(found).all()


@pytest.mark.parametrize("op", ["Det", "Inverse"])
def test_matrices_when_they_are_not_square_then_are_refused(op: str) -> None:
    with pytest.raises(ModelError, match="square"):
        read_onnx(matrix_model(op, (2, 3)))
