"""Names of an entry's results: those that the author gives, whatever its inputs are called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import tessera_build
from tessera_build.frontends.python import read_python
from tests.language.build import compiled, draw, written

STEP = """
W = op.tensor((3, 2), init=op.init.normal(1))

@graph.training_step(module="train")
def train(x: Tensor["B", 3]):
    loss = op.reduce_mean(op.square(x @ W))
    return {"loss": loss, "W": W - 0.1 * graph.backward(loss, wrt=W)}
"""


@pytest.mark.numerics
def test_training_step_when_a_result_is_called_as_its_parameter_then_outputs_feed_the_next_call(tmp_path: Path) -> None:
    x, weight = draw(0, 4, 3), draw(1, 3, 2)
    found = compiled(tmp_path, STEP, {"x": x, "W": weight}, verify=True)
    assert list(found) == ["loss", "W"]
    slope = 2 * x.T @ (x @ weight) / 8
    np.testing.assert_allclose(found["W"], weight - 0.1 * slope, rtol=1e-4, atol=1e-5)
    again = compiled(tmp_path, STEP, {"x": x, "W": found["W"]})
    assert again["loss"] < found["loss"]


@pytest.mark.numerics
def test_export_when_a_result_is_called_as_an_input_then_it_has_a_number_in_the_file(tmp_path: Path) -> None:
    out = tmp_path / "train.onnx"
    result = tessera_build.export(written(tmp_path, STEP), out)
    assert result.error is not None
    graph = onnx.load(out).graph
    assert [x.name for x in graph.input] == ["x", "W"]
    assert [x.name for x in graph.output] == ["loss", "W_2"]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("result", "names"),
    [
        ("x", ("x",)),
        ("{'y': x, 'z': {'w': x}}", ("y", "z.w")),
        ("(y, x)", ("y", "x")),
        ("{'y': (x, y), 'y.0': x}", ("y.0", "y.1", "y.0_2")),
    ],
)
def test_entry_when_inputs_are_results_then_these_have_the_authors_names(
    tmp_path: Path, result: str, names: tuple[str, ...]
) -> None:
    body = f"""
    @graph.module("same")
    def same(x: Tensor[3]):
        y = x * 2.0
        return {result}
    """
    assert read_python(written(tmp_path, body)).module.output_names["same"] == names
