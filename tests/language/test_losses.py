"""Losses: what they are, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bundle_format.errors import TesseraError
from tessera import executor, graph, op
from tessera.model.tensor import Value
from tests.language.build import compiled, draw
from tests.language.numeric import Doubles, gradient, softmax

LOGITS = draw(0, 3, 4)


def _loss(logits: Value, truth: Value) -> Value:
    return op.cross_entropy(logits, truth)


def _gradient(logits: Value, truth: Value) -> object:
    return graph.grad(_loss)(logits, truth)


FUNCTIONS: list[Callable[..., object]] = [_loss, _gradient]


@pytest.mark.numerics
def test_cross_entropy_when_of_classes_then_loss_and_gradient_are_those_of_their_formula() -> None:
    classes = np.asarray([3, 0, 1])
    shares = np.exp(LOGITS.astype(np.float64))
    shares /= shares.sum(1, keepdims=True)
    found = [np.asarray(graph.jit(f)(LOGITS, classes)) for f in FUNCTIONS]
    np.testing.assert_allclose(found[0], -np.log(shares[range(3), classes]).mean(), rtol=1e-6)
    np.testing.assert_allclose(found[1], (shares - np.eye(4)[classes]) / 3, atol=1e-7)


@pytest.mark.numerics
def test_cross_entropy_when_classes_are_the_batch_then_is_the_contrastive_loss(tmp_path: Path) -> None:
    body = """
    @graph.module("contrast")
    def contrast(a: Tensor["B", 4], b: Tensor["B", 4]):
        scores, own = a @ b.T, op.arange(a.shape[0])
        loss = 0.5 * (op.cross_entropy(scores, own) + op.cross_entropy(scores.T, own))
        return {"loss": loss, "grads": graph.backward(loss, wrt=[a]), "own": op.one_hot(own, a.shape[0])}
    """
    a, b = draw(1, 5, 4), draw(2, 5, 4)
    found = compiled(tmp_path, body, {"a": a, "b": b}, verify=True)

    def loss(a: Doubles) -> Doubles:
        scores = a @ b.astype(np.float64).T
        rows, columns = (np.log(softmax(s)).diagonal().mean() for s in (scores, scores.T))
        return np.asarray(-0.5 * (rows + columns))

    wide = a.astype(np.float64)
    np.testing.assert_allclose(found["loss"], loss(wide), rtol=1e-5)
    np.testing.assert_allclose(found["grad.a"], gradient(loss, wide), atol=1e-5)
    np.testing.assert_array_equal(found["own"], np.eye(5))


@pytest.mark.numerics
def test_cross_entropy_when_another_class_is_impossible_then_loss_is_finite() -> None:
    logits = np.asarray([[0.0, -np.inf, 0.0]], np.float32)
    found = np.asarray(graph.jit(FUNCTIONS[0])(logits, np.asarray([2])))
    np.testing.assert_allclose(found, np.log(2), rtol=1e-6)


@pytest.mark.errors
@pytest.mark.parametrize("wrong", [4, 9, -1, -4])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_cross_entropy_when_there_is_no_such_class_then_run_ends_at_the_authors_line(
    wrong: int, function: Callable[..., object]
) -> None:
    classes = np.asarray([0, wrong, 1], np.int8)
    with pytest.raises(TesseraError) as caught:
        graph.jit(function)(LOGITS, classes)
    assert caught.value.code == "INDEX_OUT_OF_RANGE"
    assert (caught.value.where or "").startswith("test_losses.py:")
    with executor.using(None), pytest.raises(TesseraError, match="INDEX_OUT_OF_RANGE"):
        graph.jit(function)(LOGITS, classes)
