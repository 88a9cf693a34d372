"""Real topologies: types equal onnx's own shape inference, and numbers equal onnxruntime's."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tessera_build.frontends.onnx import read_onnx
from tests.frontends_onnx.light_models import FOLDER, NAMES, data_input, refilled
from tests.frontends_onnx.oracle import assert_agrees, expected

pytestmark = pytest.mark.numerics


@pytest.mark.parametrize("name", NAMES)
def test_light_model_when_imported_then_every_type_equals_onnx_inference(name: str) -> None:
    model = onnx.load_model(FOLDER / f"light_{name}.onnx")
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    del model.graph.output[:]
    model.graph.output.extend(v for v in inferred.graph.value_info if _shape(v))
    module = read_onnx(model)
    function = module.entries["main"]
    found = zip(module.output_names["main"], (function.types[r].shape for r in function.results), strict=True)
    assert dict(found) == {v.name: _shape(v) for v in model.graph.output}


def _shape(info: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(d.dim_value for d in info.type.tensor_type.shape.dim)


@pytest.mark.parametrize("name", NAMES)
def test_light_model_when_read_from_its_file_then_only_its_data_is_an_input(name: str) -> None:
    module = read_onnx(FOLDER / f"light_{name}.onnx")
    assert len(module.input_names["main"]) == 1
    assert not module.dims
    # As shipped, weights are one repeated number, which is broadcast and not stored.
    assert sum(array.nbytes for array in module.constants.values()) < 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_light_model_when_refilled_then_numbers_agree(name: str) -> None:
    model = refilled(name)
    input_name, shape = data_input(model)
    x = np.random.default_rng(7).standard_normal(shape).astype(np.float32)
    assert_agrees(model, {input_name: x}, tolerance=1e-4)
    logits = expected(model, {input_name: x})[-1]
    assert np.isfinite(logits).all()
    assert len(np.unique(logits)) > 500
