"""The onnx package's nine topologies, refilled, from ONNX to a proved bundle that answers as onnxruntime does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tessera_build
from tests.frontends_onnx.light_models import NAMES, data_input, refilled
from tests.models.bundles import assert_equals_onnxruntime, skip_unless_runnable, variant, with_symbolic_batch

pytestmark = pytest.mark.numerics

TARGETS = ("x86-64-v4", "x86-64-v3")
# Built and run in four seconds.
FAST = "squeezenet"
# Small enough that five images of each do not make the reference the longest part of the test.
ANY_BATCH = ("squeezenet", "shufflenet", "inception_v1", "densenet121", "resnet50")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", [FAST, *(pytest.param(n, marks=pytest.mark.slow) for n in NAMES if n != FAST)])
def test_light_model_when_built_and_served_then_equals_onnxruntime(name: str, target: str, tmp_path: Path) -> None:
    skip_unless_runnable(target)
    proto = refilled(name)
    input_name, shape = data_input(proto)
    built = tessera_build.build(proto, [target], tmp_path / "m.tessera", cache=False)
    assert [proof.target for proof in built.verification] == [target]
    feeds = {input_name: np.random.default_rng(11).standard_normal(shape).astype(np.float32)}
    with variant(built.path, target) as model:
        assert_equals_onnxruntime(model, proto, feeds)


@pytest.mark.slow
@pytest.mark.parametrize("name", ANY_BATCH)
def test_light_model_when_batch_is_symbolic_then_one_bundle_serves_every_size(name: str, tmp_path: Path) -> None:
    proto = with_symbolic_batch(refilled(name))
    input_name, (_, *image) = data_input(proto)
    built = tessera_build.build(proto, TARGETS, tmp_path / "m.tessera", cache=False, verify=False)
    for target in TARGETS:
        skip_unless_runnable(target)
        with variant(built.path, target, threads=2) as model:
            assert model.inputs[0].shape == ("N", *image)
            for count in (1, 2, 5):
                values = np.random.default_rng(count).standard_normal((count, *image)).astype(np.float32)
                assert_equals_onnxruntime(model, proto, {input_name: values})
