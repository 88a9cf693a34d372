"""Bundles of real models: built once, every variant run that this CPU can run, compared with onnxruntime.

Takes models and inputs; gives bundles, loaded variants, errors.
Invariant: a variant is chosen by showing the runtime a machine of exactly that variant's features, so the way that
chooses it is the way that serves.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import onnx
import pytest

from tessera_build.config import load_target
from tessera_build.ir.graph.nodes import Array
from tessera_runtime import Model, load, loader
from tessera_runtime.cpu.machine import Machine, normal_feature, this_machine
from tests.frontends_onnx.light_models import data_input
from tests.frontends_onnx.oracle import expected

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
TOLERANCE = 1e-4


def digits_images(count: int) -> Array:
    """The first images that the network was not trained on."""
    with np.load(DIGITS / "digits_test.npz") as held_out:
        return held_out["image"][:count]


def needed_features(target: str) -> frozenset[str]:
    """What a target's code needs of a CPU."""
    return frozenset(normal_feature(name) for name in load_target(target).features)


def skip_unless_runnable(target: str) -> None:
    """Skip a test whose code this CPU cannot run."""
    missing = needed_features(target) - this_machine().features
    if missing:
        pytest.skip(f"this CPU lacks {', '.join(sorted(missing))}")


@contextmanager
def variant(path: Path, target: str, threads: int = 1) -> Generator[Model]:
    """A bundle, loaded as a machine loads it that has the features of `target` and no others."""
    machine = Machine(this_machine().system, this_machine().arch, needed_features(target))
    with patch.object(loader, "this_machine", lambda: machine), load(path, threads=threads) as model:
        assert model.target == target
        yield model


def with_symbolic_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model for any number of images: the first dim gets a name, and reshapes to one row keep their rows."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    name, _ = data_input(changed)
    (info,) = [i for i in changed.graph.input if i.name == name]
    info.type.tensor_type.shape.dim[0].dim_param = "N"
    shapes = {node.input[1] for node in changed.graph.node if node.op_type == "Reshape"}
    for initializer in changed.graph.initializer:
        values = onnx.numpy_helper.to_array(initializer)
        if initializer.name in shapes and values[0] == 1:
            # 0 is ONNX's word for "as in the input".
            values = np.concatenate([np.zeros(1, values.dtype), values[1:]])
            initializer.CopyFrom(onnx.numpy_helper.from_array(values, initializer.name))
    for output in changed.graph.output:
        output.ClearField("type")
    return changed


def assert_equals_onnxruntime(model: Model, proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> None:
    """Every output, logits included, within `TOLERANCE` of its own maximum."""
    found = model.run(feeds)
    for info, reference in zip(proto.graph.output, expected(proto, feeds), strict=True):
        result = found[info.name]
        assert (result.dtype, result.shape) == (reference.dtype, reference.shape), info.name
        found_values, wanted = result.astype(np.float64), reference.astype(np.float64)
        atol = TOLERANCE * float(np.max(np.abs(wanted)))
        np.testing.assert_allclose(found_values, wanted, rtol=0, atol=atol, err_msg=info.name)
