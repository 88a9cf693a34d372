"""What a build refuses before it costs anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from tessera_build.driver.build import build
from tessera_build.verify.errors import VerificationError


@pytest.mark.errors
def test_proof_when_the_values_take_more_than_is_allowed_then_says_how_much(tmp_path: Path) -> None:
    types = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1 << 20]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "graph", types[:1], types[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    with pytest.raises(VerificationError, match="allowed memory") as caught:
        build(model, ["x86-64-v3"], tmp_path / "m", proof_bytes=1 << 20)
    assert (caught.value.found, (tmp_path / "m").exists()) == ("56 MiB", False)
    assert build(model, ["x86-64-v3"], tmp_path / "m", proof_bytes=np.iinfo(np.int64).max).verification
