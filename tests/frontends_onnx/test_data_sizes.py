"""Operands that are shapes and that only data tell: imported, run by the reference and as code, against onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from numpy.typing import ArrayLike
from onnx import helper

from bundle_format.errors import TesseraError
from tessera_build.frontends.onnx import read_onnx
from tessera_build.frontends.onnx.errors import UnsupportedError
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.graph.sizes import data_sizes
from tests.frontends_onnx.oracle import assert_agrees, expected, floats, integers, make_model
from tests.lower.compiled import assert_close, compile_module

pytestmark = pytest.mark.numerics

X = floats(4, 7)
SIZE = (np.int64, (2,))


@dataclass(frozen=True)
class Model:
    """Nodes with inputs by name; `operands` are what each case gives beside x."""

    nodes: Sequence[onnx.NodeProto]
    inputs: Mapping[str, tuple[type[np.generic], Sequence[int | str]]]
    operands: Sequence[Mapping[str, ArrayLike]]
    weights: Mapping[str, ArrayLike] = field(default_factory=dict[str, ArrayLike])
    outputs: Sequence[str] = ("y",)

    def proto(self) -> onnx.ModelProto:
        return make_model(self.nodes, self.inputs, self.outputs, self.weights)

    def cases(self) -> list[dict[str, Array]]:
        return [
            {name: np.asarray(case[name], dtype) if name in case else X for name, (dtype, _) in self.inputs.items()}
            for case in self.operands
        ]


def node(op: str, *names: str, outputs: Sequence[str] = ("y",), **attributes: object) -> onnx.NodeProto:
    made = helper.make_node(op, list(names), list(outputs), name=f"the {op}")
    made.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    return made


def of_x(op: onnx.NodeProto, *targets: Sequence[int], count: int = 2, **more: Mapping[str, ArrayLike]) -> Model:
    """An operator of x and a vector t."""
    inputs = {"x": (np.float32, ("A", "B")), "t": (np.int64, (count,))}
    return Model([op], inputs, [{"t": t} for t in targets], **more)  # type: ignore[arg-type]


def sliced(
    starts_and_ends: Sequence[tuple[Sequence[int], Sequence[int]]], *steps: int, dtype: type = np.int64
) -> Model:
    inputs = {"x": (np.float32, ("A", "B")), "s": (dtype, (2,)), "e": (dtype, (2,))}
    weights = {"a": integers(0, 1), "by": integers(*steps)}
    nodes = [node("Slice", "x", "s", "e", "a", "by")]
    if dtype is np.int32:
        weights = {name: np.asarray(array, np.int32) for name, array in weights.items()}
    return Model(nodes, inputs, [{"s": s, "e": e} for s, e in starts_and_ends], weights)


FORWARD = [((0, 0), (4, 7)), ((1, 2), (3, 5)), ((-3, -5), (-1, 100)), ((3, 3), (1, 2)), ((-100, -9), (100, 9))]
BACKWARD = [((3, 6), (0, 0)), ((-1, -2), (-4, -100)), ((100, 100), (-100, -100)), ((0, 0), (3, 3))]
FAR = [((0, 0), (2**63 - 1, 2**62)), ((-(2**62), 6), (2**63 - 1, 2**31))]


def counted(dtype: type[np.generic]) -> Model:
    limits = [(0, 10, 3), (5, 5, 1), (10, -3, -2), (0, 3, -1)]
    inputs = dict.fromkeys("abc", (dtype, ()))
    return Model([node("Range", "a", "b", "c")], inputs, [dict(zip("abc", row, strict=True)) for row in limits])


def partly_known() -> Model:
    """The last extent is a constant: only the first is read, and nothing downstream loses the constant."""
    nodes = [node("Concat", "t", "seven", outputs=("shape",), axis=0), node("Reshape", "x", "shape", outputs=("r",))]
    nodes.append(node("MatMul", "r", "w"))
    inputs = {"x": (np.float32, ("A", "B")), "t": (np.int64, (1,))}
    return Model(nodes, inputs, [{"t": [4]}, {"t": [-1]}, {"t": [0]}], {"seven": integers(7), "w": floats(7, 3)})


def joined() -> Model:
    """A part whose width is data between two that are not: the whole's size is known only after the first was made."""
    nodes = [
        node("Abs", "x", outputs=("left",)),
        node("Slice", "x", "s", "e", "one", outputs=("part",)),
        node("Exp", "part", outputs=("middle",)),
        node("Concat", "left", "middle", "x", axis=1),
    ]
    inputs = {"x": (np.float32, ("A", "B")), "s": (np.int64, (1,)), "e": (np.int64, (1,))}
    return Model(nodes, inputs, [{"s": [s], "e": [e]} for s, e in ((0, 7), (2, 5), (3, 3))], {"one": integers(1)})


MODELS: dict[str, Model] = {
    "Slice": sliced([*FORWARD, *FAR[:1]], 1, 1),
    "Slice by steps": sliced(FORWARD, 2, 3),
    "Slice backwards": sliced([*BACKWARD, *FAR], -1, -2),
    "Slice by int32": sliced([*FORWARD], 1, 2, dtype=np.int32),
    "Reshape to two": of_x(node("Reshape", "x", "t"), (7, 4), (-1, 2), (14, -1), (0, 0), (0, -1), (28, 1)),
    "Reshape to three": of_x(node("Reshape", "x", "t"), (7, 2, 2), (-1, 2, 1), (2, -1, 2), count=3),
    "Reshape to what is left": of_x(node("Reshape", "x", "t"), (28,), (-1,), count=1),
    "Reshape partly": partly_known(),
    "Expand": Model(
        [node("Slice", "x", "zero", "one", "one", outputs=("column",)), node("Expand", "column", "t")],
        {"x": (np.float32, ("A", "B")), "t": (np.int64, (3,))},
        [{"t": t} for t in ((2, 4, 3), (1, 1, 5), (3, 1, 1), (0, 4, 2))],
        {"zero": integers(0), "one": integers(1)},
    ),
    "Tile": of_x(node("Tile", "x", "t"), (2, 3), (1, 1), (0, 2)),
    "ConstantOfShape": Model(
        [node("ConstantOfShape", "t")], {"t": SIZE}, [{"t": t} for t in ((2, 3), (0, 2), (40, 50))]
    ),
    "Range of i64": counted(np.int64),
    "Range of i32": counted(np.int32),
    "Range of f32": counted(np.float32),
    "Range of f64": counted(np.float64),
    "Split": Model(
        [node("Split", "x", "t", outputs=("y", "z"), axis=1)],
        {"x": (np.float32, ("A", "B")), "t": SIZE},
        [{"t": t} for t in ((3, 4), (7, 0), (0, 7), (5, 2))],
        outputs=("y", "z"),
    ),
    "Concat": joined(),
    "Pad": of_x(node("Pad", "x", "t"), (1, 2, 0, 3), (0, 0, 0, 0), (2, 0, 0, 1), count=4),
    "Pad by reflection": of_x(node("Pad", "x", "t", mode="reflect"), (1, 2, 0, 3), (2, 0, 3, 6), count=4),
    "Resize": Model(
        [node("Resize", "i", "", "", "t", mode="linear")],
        {"i": (np.float32, (1, 2, "H", "W")), "t": (np.int64, (4,))},
        [{"i": floats(1, 2, 5, 6), "t": (1, 2, *size)} for size in ((7, 9), (5, 6), (3, 12))],
    ),
    "Resize by scales": Model(
        [node("Resize", "i", "", "s", mode="nearest", coordinate_transformation_mode="half_pixel")],
        {"i": (np.float32, (1, 2, "H", "W")), "s": (np.float32, (4,))},
        [{"i": floats(1, 2, 5, 6), "s": (1, 1, *scales)} for scales in ((2, 3), (0.5, 1.7), (1, 1))],
    ),
    "Resize by scales, linear": Model(
        [node("Resize", "i", "", "s", mode="linear", coordinate_transformation_mode="pytorch_half_pixel")],
        {"i": (np.float32, (1, 2, "H", "W")), "s": (np.float32, (4,))},
        [{"i": floats(1, 2, 5, 6), "s": (1, 1, *scales)} for scales in ((2, 3), (0.6, 1.7), (1, 1))],
    ),
    "OneHot": Model(
        [node("OneHot", "t", "d", "values")],
        {"t": (np.int64, (3,)), "d": (np.int64, ())},
        [{"t": (0, 2, -1), "d": depth} for depth in (3, 5)],
        {"values": floats(2)},
    ),
    "OneHot of float depth": Model(
        [node("OneHot", "t", "d", "values")],
        {"t": (np.int64, (3,)), "d": (np.float32, ())},
        [{"t": (0, 2, -1), "d": depth} for depth in (3, 5)],
        {"values": floats(2)},
    ),
    "TopK": Model(
        [node("TopK", "x", "t", outputs=("y", "z"))],
        {"x": (np.float32, ("A", "B")), "t": (np.int64, (1,))},
        [{"t": [k]} for k in (1, 3, 7)],
        outputs=("y", "z"),
    ),
}


def sizes_of(model: Model, case: Mapping[str, Array]) -> dict[str, int]:
    named = ((e, n) for name, (_, shape) in model.inputs.items() for e, n in zip(shape, case[name].shape, strict=True))
    return {extent: size for extent, size in named if isinstance(extent, str)}


def imported(model: Model) -> Module:
    module = run_passes(read_onnx(model.proto()), verify_each=True)
    assert data_sizes(module.entries["main"]), "nothing is read from data"
    return module


@pytest.mark.parametrize("name", MODELS)
def test_operator_when_its_sizes_are_data_then_agrees_with_onnxruntime(name: str) -> None:
    model = MODELS[name]
    proto, module, cases = model.proto(), imported(model), model.cases()
    assert_agrees(proto, *cases, module=module)
    compiled = compile_module(module)
    for case in cases:
        found = compiled.run(case, sizes_of(model, case), threads=2)
        for info, wanted in zip(proto.graph.output, expected(proto, case), strict=True):
            assert_close(found[info.name], wanted, info.name)


REFUSED: dict[str, tuple[Model, str]] = {
    "Reshape to another count": (of_x(node("Reshape", "x", "t"), (5, 5)), "GUARD_FAILED"),
    "Reshape to a negative extent": (of_x(node("Reshape", "x", "t"), (-7, -4)), "SIZE_BEYOND_BOUND"),
    "Reshape that disagrees with what is left": (of_x(node("Reshape", "x", "t"), (27,), count=1), "GUARD_FAILED"),
    "Tile by a negative number": (of_x(node("Tile", "x", "t"), (-1, 2)), "SIZE_BEYOND_BOUND"),
    "Expand to another extent": (of_x(node("Expand", "x", "t"), (4, 5)), "GUARD_FAILED"),
    "Pad by a negative number": (of_x(node("Pad", "x", "t"), (1, -2, 0, 3), count=4), "SIZE_BEYOND_BOUND"),
    "TopK of more than there are": (
        of_x(node("TopK", "x", "t", outputs=("y", "z")), (8,), count=1),
        "SIZE_BEYOND_BOUND",
    ),
    "Range by nothing": (
        Model(
            [node("Range", "a", "b", "c")],
            dict.fromkeys("abc", (np.int64, ())),
            [{"a": np.array(0), "b": np.array(3), "c": np.array(0)}],
        ),
        "SIZE_BEYOND_BOUND",
    ),
    "Split that does not add up": (
        Model(
            [node("Split", "x", "t", outputs=("y", "z"), axis=1)],
            {"x": (np.float32, ("A", "B")), "t": SIZE},
            [{"t": [3, 3]}],
            outputs=("y", "z"),
        ),
        "GUARD_FAILED",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_operator_when_the_data_make_no_shape_then_the_run_says_so(name: str) -> None:
    model, code = REFUSED[name]
    (case,) = model.cases()
    compiled = compile_module(imported(model))
    with pytest.raises(TesseraError) as caught:
        compiled.run(case, sizes_of(model, case))
    assert caught.value.code == code
    if code == "SIZE_BEYOND_BOUND":
        assert str(caught.value.where).startswith("the ")


def test_target_when_known_in_part_then_only_the_rest_is_read() -> None:
    module = read_onnx(partly_known().proto())
    assert len(data_sizes(module.entries["main"])) == 1
    (result,) = module.entries["main"].results
    assert str(module.entries["main"].types[result].shape[1]) == "3"


@pytest.mark.parametrize("op", ["ReduceSum", "Squeeze", "Unsqueeze"])
def test_operator_when_its_rank_or_axis_is_data_then_is_refused(op: str) -> None:
    inputs = {"x": (np.float32, ("A", "B")), "t": (np.int64, (1,))}
    with pytest.raises(UnsupportedError):
        read_onnx(make_model([node(op, "x", "t")], inputs, ["y"]))
