"""What is said of models that only large machines can run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from tessera_build.driver.build import build
from tessera_build.driver.doctor import diagnose
from tests.driver.models import model_of

pytestmark = pytest.mark.unit


def _wide(rows: str | int) -> onnx.ModelProto:
    """Between its products, 256 KiB a row."""
    weights = {"wide": np.ones((1, 1 << 16), np.float32), "tall": np.ones((1 << 16, 2), np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "wide"], ["h"]),
        helper.make_node("Softmax", ["h"], ["s"]),
        helper.make_node("MatMul", ["s", "tall"], ["y"]),
    ]
    return model_of(nodes, weights, [rows, 1], [rows, 2])


@pytest.mark.parametrize(
    ("rows", "dims", "said"),
    [
        ("N", {"N": (1, 1 << 16)}, "32.0 GiB of workspace"),
        (1 << 16, {}, "32.0 GiB of workspace"),
        ("N", {"N": (1, 1 << 13)}, None),
        ("N", {}, None),
    ],
)
def test_build_when_a_call_may_take_many_gib_then_says_how_many(
    rows: str | int, dims: dict[str, int | tuple[int, int]], said: str | None, tmp_path: Path
) -> None:
    model = _wide(rows)
    warnings = build(model, ["x86-64-v3"], tmp_path / "m", dims=dims, verify=False, workers=1).warnings
    found = diagnose(model, target="x86-64-v3", dims=dims)
    assert [said is not None and said in text for text in found.warnings] == [True] * (said is not None)
    assert [text for text in warnings if "workspace" in text] == list(found.warnings)


def test_doctor_when_dims_have_bounds_then_counts_the_workspace_at_them() -> None:
    found = diagnose(_wide("N"), target="x86-64-v3", dims={"N": (1, 4096)}).estimate
    assert found is not None
    assert found.largest is not None
    assert 2 << 30 <= found.largest.workspace < 9 << 28
    assert found.largest.weights == found.weight_bytes
    unbounded = diagnose(_wide("N"), target="x86-64-v3").estimate
    assert unbounded is not None
    assert unbounded.largest is None
