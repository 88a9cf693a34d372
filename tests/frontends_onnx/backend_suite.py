"""Runs onnx's own node tests through import and the reference interpreter, with static or with dynamic dims.

Takes cases; gives one verdict each: `right`, `unsupported` (with the reason) or `wrong` (with what happened).
Invariant: an operand that must be known at build time (axes, a target shape) is made a constant of the case's value,
as any exporter would, and nothing else of the case is changed; `dynamic` makes every extent above 1 a symbol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case import node as node_cases
from onnx.backend.test.case.test_case import TestCase

from bundle_format.errors import TesseraError
from tessera_build.frontends.onnx import UnsupportedError, read_onnx
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.reference import run

Execute = Callable[[onnx.ModelProto, Mapping[str, Array]], list[Array]]

# Their results are random: only types and shapes can be compared here (tests/onnx_backend/drawn.py looks further).
DRAWN = frozenset(
    (
        *(f"test_bernoulli{kind}{end}" for kind in ("", "_double", "_seed") for end in ("", "_expanded")),
        *(f"test_training_dropout{kind}{end}" for kind in ("", "_default") for end in ("", "_mask")),
    )
)
# These compute from shapes alone; every other operator has its data first.
SHAPES_FIRST = frozenset({"Range", "ConstantOfShape", "Loop"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one case."""

    name: str
    outcome: str
    reason: str = ""


def collect() -> dict[str, TestCase]:
    """All node cases of the installed onnx package by name."""
    return {case.name: case for case in node_cases.collect_testcases(None)}


def judge(case: TestCase, *, dynamic: bool = False, execute: Execute | None = None) -> Verdict:
    """Import a case, run it (`execute`: how; by default the reference) on each data set and compare its outputs."""
    try:
        for inputs, outputs in case.data_sets or ():
            assert case.model is not None
            if not all(
                isinstance(v, (np.ndarray, np.generic, onnx.TensorProto)) for v in list[object]((*inputs, *outputs))
            ):
                return Verdict(case.name, "unsupported", "sequences and optionals")
            named = dict(zip([i.name for i in case.model.graph.input], [_array(v) for v in inputs], strict=True))
            model = with_dynamic_dims(case.model, named) if dynamic else case.model
            found = _results(model, named, execute or run_reference)
            if case.name in DRAWN:
                assert [(a.dtype, a.shape) for a in found] == [(a.dtype, a.shape) for a in map(_array, outputs)]
            else:
                compare(found, outputs, (case.rtol, case.atol))
    except UnsupportedError as error:
        return Verdict(case.name, "unsupported", error.problems[0].message if error.problems else error.message)
    except TesseraError as error:
        # Dims that the build takes to be equal, or not to be 1, and says so when a call has others.
        refused = dynamic and error.code in ("GUARD_FAILED", "BAD_INPUT")
        return Verdict(case.name, "unsupported" if refused else "wrong", str(error))
    except AssertionError as error:
        return Verdict(case.name, "wrong", str(error))
    return Verdict(case.name, "right")


def with_dynamic_dims(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> onnx.ModelProto:
    """The model with every extent above 1 of its inputs unknown."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for info in copy.graph.input:
        shape = info.type.tensor_type.shape
        for dim, size in zip(shape.dim, inputs[info.name].shape, strict=True):
            if size > 1:
                dim.ClearField("dim_value")
    return copy


def _array(value: object) -> Array:
    return np.asarray(numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value)


def _results(model: onnx.ModelProto, inputs: Mapping[str, Array], execute: Execute) -> list[Array]:
    """The model's outputs; operands that only the build can use become constants when it asks for them."""
    try:
        return execute(model, inputs)
    except UnsupportedError as error:
        if not any("at run time" in p.message or "symbolic shape" in p.message for p in error.problems):
            raise
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    first = 0 if model.graph.node[0].op_type in SHAPES_FIRST else 1
    for name, array in list(inputs.items())[first:]:
        if array.dtype.kind in "iub" or array.size == 1:
            fixed.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    kept = {i.name for i in fixed.graph.initializer}
    return execute(fixed, {name: array for name, array in inputs.items() if name not in kept})


def run_reference(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
    """The outputs by import and the reference interpreter."""
    found = run(read_onnx(model), "main", inputs)
    return [found[o.name] for o in model.graph.output]


def compare(found: Sequence[Array], wanted: Sequence[object], tolerance: tuple[float, float]) -> None:
    """Assert equal types, shapes and, within the tolerance (relative, absolute), elements."""
    for position, (result, raw) in enumerate(zip(found, wanted, strict=True)):
        reference = _array(raw)
        assert result.dtype == reference.dtype, f"result {position} is {result.dtype}, not {reference.dtype}"
        assert result.shape == reference.shape, f"result {position} is {result.shape}, not {reference.shape}"
        if reference.dtype.kind in "iub":
            assert np.array_equal(result, reference), f"result {position} has other integers"
            continue
        narrow = reference.dtype.itemsize < 4
        relative, absolute = (2e-2, 1e-2) if narrow else (max(tolerance[0], 1e-4), max(tolerance[1], 1e-5))
        np.testing.assert_allclose(result.astype(np.float64), reference.astype(np.float64), relative, absolute)
