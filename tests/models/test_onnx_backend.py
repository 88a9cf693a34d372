"""onnx's own node tests as compiled code: what is not supported is refused, and nothing is wrong."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

import tessera_build
import tessera_runtime
from bundle_format.errors import TesseraError
from tessera_build.ir.graph.nodes import Array
from tests.frontends_onnx.backend_suite import collect, judge, run_reference

# Counted on onnx 1.23; a newer onnx adds cases, and a change that loses one must say why.
RIGHT = {"static": 930, "dynamic": 850}
# The suite's own tables lack the shapes of these inputs, so that no dynamic version of them can be made.
NO_SHAPES = "optional"


class _Refused(Exception):  # noqa: N818  a verdict, not an error
    """The build said clearly that it cannot."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dims", ["static", "dynamic"])
def test_node_cases_when_compiled_then_each_is_right_or_refused(dims: str, tmp_path: Path) -> None:
    bundle = tmp_path / "case.tessera"

    def execute(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
        run_reference(model, inputs)  # what the importer refuses is judged by its own tests
        try:
            tessera_build.build(
                model, targets=["native"], out=bundle, verify=False, workers=1, cache=tmp_path / "cache"
            )
            with tessera_runtime.load(bundle, threads=1) as loaded:
                found = loaded.run({name: np.array(array, order="C") for name, array in inputs.items()})
                return [np.array(found[value.name]) for value in model.graph.output]
        except TesseraError as error:
            if error.code == "INTERNAL":
                raise
            raise _Refused(error.message) from error

    counts: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    for name, case in collect().items():
        if dims == "dynamic" and NO_SHAPES in name:
            continue
        try:
            verdict = judge(case, dynamic=dims == "dynamic", execute=execute)
        except _Refused:
            counts["refused"] += 1
            continue
        counts[verdict.outcome] += 1
        if verdict.outcome == "wrong":
            wrong.append(f"{name}: {verdict.reason}")
    assert not wrong, "\n".join(wrong)
    assert counts["right"] >= RIGHT[dims], counts
