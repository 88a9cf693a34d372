"""Inputs and states of an entry in dicts and lists: an optimiser's states of its parameters, named tensors."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import cast

import numpy as np
import pytest

import tessera_build
import tessera_runtime
from tessera.errors import LanguageError
from tessera.graph.module import GraphModule
from tests.language.build import draw, written
from tests.language.numeric import Doubles

ADAM = """
W = op.tensor((3,))
V = op.tensor((2, 3), name="layers.0.V")
P = {"W": W, "layers.0.V": V}
ADAM = {name: [OptimizerState[p], OptimizerState[p]] for name, p in P.items()}


@graph.training_step(module="train")
def train(batch: {"x": Tensor["B", 2], "y": Tensor["B", 3]}, adam: ADAM, step: State[f32]):
    loss = op.mse(batch["x"] @ V + W, batch["y"])
    turn = step.value + 1.0
    updated, following = {}, {}
    for name, g in graph.backward(loss, wrt=P).items():
        first, second = adam[name]
        m, v = 0.9 * first.value + 0.1 * g, 0.99 * second.value + 0.01 * op.square(g)
        move = (m / (1.0 - 0.9**turn)) / (op.sqrt(v / (1.0 - 0.99**turn)) + 1e-8)
        updated[name] = P[name] - 0.01 * move
        following[name] = [first.set(m), second.set(v)]
    return {"loss": loss, "adam": following, "step": step.set(turn), **updated}
"""

SCALED = """
@graph.jit
def scaled(batch: {"x": Tensor["B", 2], "rate": Tensor[f32]}):
    return batch["x"] * batch["rate"]
"""


def _adam(weights: dict[str, Doubles], batches: list[tuple[Doubles, Doubles]]) -> dict[str, Doubles]:
    m, v = ({name: np.zeros_like(w) for name, w in weights.items()} for _ in range(2))
    for turn, (x, y) in enumerate(batches, 1):
        residual = 2 * (x @ weights["layers.0.V"] + weights["W"] - y) / y.size
        grads = {"W": residual.sum(0), "layers.0.V": x.T @ residual}
        for name, g in grads.items():
            m[name], v[name] = 0.9 * m[name] + 0.1 * g, 0.99 * v[name] + 0.01 * g * g
            move = m[name] / (1 - 0.9**turn) / (np.sqrt(v[name] / (1 - 0.99**turn)) + 1e-8)
            weights[name] = weights[name] - 0.01 * move
    return weights


@pytest.mark.numerics
def test_states_when_annotated_in_a_dict_then_an_optimiser_keeps_them_for_all_parameters(tmp_path: Path) -> None:
    bundle = tmp_path / "m.tessera"
    tessera_build.build(written(tmp_path, ADAM), ["native"], bundle, workers=1)
    weights = {"W": draw(0, 3), "layers.0.V": draw(1, 2, 3)}
    batches = [(draw(10 + i, 4, 2), draw(20 + i, 4, 3)) for i in range(5)]
    wide = [(x.astype(np.float64), y.astype(np.float64)) for x, y in batches]
    wanted = _adam({name: w.astype(np.float64) for name, w in weights.items()}, wide)
    with tessera_runtime.load(bundle, threads=1) as model:
        state = model.new_state()
        assert list(state.arrays) == ["adam.W.0", "adam.W.1", "adam.layers.0.V.0", "adam.layers.0.V.1", "step"]
        for x, y in batches:
            found = model.run({"batch.x": x, "batch.y": y, **weights}, state=state)
            weights = {name: np.array(found[name], np.float32) for name in weights}
    for name, w in wanted.items():
        np.testing.assert_allclose(weights[name], w, atol=1e-6)


@pytest.mark.unit
def test_module_when_its_annotation_is_a_dict_then_calls_are_checked_part_by_part(tmp_path: Path) -> None:
    scaled = cast("GraphModule[..., object]", runpy.run_path(str(written(tmp_path, SCALED)))["scaled"])
    x = draw(0, 4, 2)
    np.testing.assert_array_equal(np.asarray(scaled({"x": x, "rate": 2.0})), x * 2)
    np.testing.assert_array_equal(np.asarray(scaled({"x": x, "rate": 3.0})), x * 3)
    assert len(scaled.known or ()) == 1  # a rate is an input, not a part of what is compiled
    with pytest.raises(LanguageError, match=r"argument batch\.x of scaled has another type"):
        scaled({"x": draw(1, 3), "rate": 2.0})


@pytest.mark.errors
def test_state_in_a_dict_when_not_returned_then_is_named(tmp_path: Path) -> None:
    body = ADAM.replace("following[name] = [first.set(m), second.set(v)]", "following[name] = [first.set(m)]")
    with pytest.raises(LanguageError, match="does not return the next adam") as caught:
        tessera_build.build(written(tmp_path, body), ["native"], tmp_path / "m.tessera", workers=1)
    assert caught.value.code == "STATE_NOT_RETURNED"
