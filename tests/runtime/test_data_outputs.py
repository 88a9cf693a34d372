"""Outputs whose shapes only a run knows: what they cost the caller, beside the run itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import tessera_build
import tessera_runtime
from bundle_format.schema import Entry


@pytest.mark.numerics
def test_run_when_outputs_depend_on_data_then_the_signature_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was read once for each output of each run, which took ten times as long as the run."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Neg", ["x"], ["a"]),
            helper.make_node("NonZero", ["x"], ["b"]),
            helper.make_node("Compress", ["x", "keep"], ["c"], axis=0),
        ],
        "g",
        [value("x", TensorProto.FLOAT, ["N"]), value("keep", TensorProto.BOOL, ["N"])],
        [
            value("a", TensorProto.FLOAT, ["N"]),
            value("b", TensorProto.INT64, [1, "M"]),
            value("c", TensorProto.FLOAT, ["K"]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    tessera_build.build(model, ["native"], tmp_path / "m.tessera", verify=False, workers=1)
    x, keep = np.array([0, 2, 0, 3], np.float32), np.array([True, True, False, True])
    with tessera_runtime.load(tmp_path / "m.tessera", threads=1) as loaded:
        loaded.run({"x": x, "keep": keep})

        def refused(_: Entry) -> tuple[int, ...]:
            raise AssertionError

        monkeypatch.setattr(Entry, "dynamic_outputs", property(refused))
        found = loaded.run({"x": x[::-1].copy(), "keep": keep})
    for name, expected in {"a": -x[::-1], "b": [[0, 2]], "c": [3, 0, 0]}.items():
        np.testing.assert_array_equal(found[name], np.array(expected))
