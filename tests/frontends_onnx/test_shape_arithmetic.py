"""Arithmetic over shapes becomes extents: no node computes a shape, and one import serves every size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import helper

from bundle_format.errors import TesseraError
from tessera_build.frontends.onnx import import_onnx, read_onnx
from tessera_build.ir.core.dims import parse_extent
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.reference import run
from tests.frontends_onnx.oracle import assert_agrees, floats, integers, make_model

pytestmark = pytest.mark.numerics


def node(op: str, inputs: Sequence[str], output: str, **attributes: object) -> onnx.NodeProto:
    made = helper.make_node(op, inputs, [output])
    made.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    return made


def ops(module: Module) -> list[str]:
    return [n.op for n in graph_nodes(module.entries["main"])]


def x_model(nodes: Sequence[onnx.NodeProto], shape: Sequence[str | int], **weights: Array) -> onnx.ModelProto:
    return make_model(nodes, {"x": (np.float32, shape)}, ["y"], weights)


def test_reshape_when_target_is_built_from_shape_then_only_a_reshape_remains() -> None:
    model = x_model(
        [
            node("Shape", ["x"], "s"),
            node("Gather", ["s", "zero"], "n"),
            node("Gather", ["s", "two"], "w"),
            node("Mul", ["w", "two_scalar"], "w2"),
            node("Unsqueeze", ["n", "zero_axis"], "n1"),
            node("Unsqueeze", ["w2", "zero_axis"], "w21"),
            node("Concat", ["n1", "minus", "w21"], "target", axis=0),
            node("Reshape", ["x", "target"], "y"),
        ],
        ["N", 8, "W"],
        zero=np.asarray(0),
        two=np.asarray(2),
        two_scalar=np.asarray(2),
        zero_axis=integers(0),
        minus=integers(-1),
    )
    module = assert_agrees(model, {"x": floats(2, 8, 3)}, {"x": floats(1, 8, 5)})
    assert ops(module) == ["reshape"]
    (result,) = module.entries["main"].results
    assert module.entries["main"].types[result].shape == (parse_extent("N"), 4, parse_extent("2*W"))


def test_reshape_when_its_target_counts_windows_then_a_guard_asks_for_one() -> None:
    # Exported group normalisation: (L - 10) / 5 + 1 windows, which the least L would make negative.
    model = x_model(
        [
            node("Conv", ["x", "weight"], "windows", strides=[5]),
            node("Shape", ["windows"], "whole"),
            node("Reshape", ["windows", "groups"], "grouped"),
            node("ReduceMax", ["grouped"], "most", axes=[2], keepdims=1),
            node("Sub", ["grouped", "most"], "less"),
            node("Reshape", ["less", "whole"], "y"),
        ],
        ["B", 1, "L"],
        weight=floats(4, 1, 10),
        groups=integers(0, 2, -1),
    )
    assert_agrees(model, {"x": floats(2, 1, 40)}, {"x": floats(1, 1, 12)})
    with pytest.raises(TesseraError, match=r"Reshape to \[.*\] has a negative extent|window"):
        run(read_onnx(model), "main", {"x": floats(1, 1, 3)})


def test_reshape_when_what_is_left_is_a_quotient_of_sums_then_the_extent_is_a_number() -> None:
    # Heads behind convolutions: (windows - 1) frames of 8 channels, [B, frames, -1, 4].
    model = x_model(
        [
            node("Conv", ["x", "weight"], "windows", strides=[5]),
            node("Transpose", ["windows"], "frames", perm=[0, 2, 1]),
            node("Shape", ["frames"], "whole"),
            node("Slice", ["whole", "zero", "two"], "lead"),
            node("Concat", ["lead", "rest"], "target", axis=0),
            node("Reshape", ["frames", "target"], "heads"),
            node("Transpose", ["heads"], "y", perm=[0, 2, 1, 3]),
        ],
        ["B", 1, "L"],
        weight=floats(8, 1, 10),
        zero=integers(0),
        two=integers(2),
        rest=integers(-1, 4),
    )
    module = assert_agrees(model, {"x": floats(2, 1, 40)}, {"x": floats(1, 1, 17)})
    (result,) = module.entries["main"].results
    assert [str(extent) for extent in module.entries["main"].types[result].shape] == ["B", "2", "floordiv(L, 5)-1", "4"]


@pytest.mark.parametrize(
    ("start", "step", "counts"), [(0.0, 1.0, True), (1.0, 2.0, True), (0.5, 1.0, False), (0.0, 0.5, False)]
)
def test_range_when_its_limit_is_a_dim_as_a_float_then_has_as_many_elements(
    start: float, step: float, counts: bool
) -> None:
    # Positions of rotary embeddings, as `torch.arange(S, dtype=torch.float32)` exports them.
    model = x_model(
        [
            node("Shape", ["x"], "s"),
            node("Gather", ["s", "zero"], "n"),
            node("Cast", ["n"], "limit", to=onnx.TensorProto.FLOAT),
            node("Range", ["start", "limit", "step"], "positions"),
            node("ReduceSum", ["x"], "total", keepdims=0),
            node("Add", ["positions", "total"], "y"),
        ],
        ["S"],
        zero=np.asarray(0),
        start=np.asarray(start, np.float32),
        step=np.asarray(step, np.float32),
    )
    module = assert_agrees(model, {"x": floats(7)}, {"x": floats(2)})
    (result,) = module.entries["main"].results
    assert ("S" in str(module.entries["main"].types[result].shape[0])) == counts


@pytest.mark.parametrize("op", ["ReduceProd", "ReduceMax", "ReduceMin"])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reduction_of_a_shape_when_dims_are_symbolic_then_gives_an_extent(op: str, keepdims: int) -> None:
    # The number of elements, as exported variances divide by it.
    model = x_model(
        [
            node("Shape", ["x"], "s"),
            node(op, ["s"], "n", keepdims=keepdims),
            node("Cast", ["n"], "number", to=onnx.TensorProto.FLOAT),
            node("Div", ["x", "number"], "y"),
        ],
        ["B", 3, "L"],
    )
    assert_agrees(model, {"x": floats(2, 3, 5)}, {"x": floats(4, 3, 1)})


def test_expand_when_target_is_patched_by_where_then_the_condition_is_decided() -> None:
    model = x_model(
        [
            node("Shape", ["x"], "s"),
            node("Equal", ["s", "minus"], "open"),
            node("Where", ["open", "one", "s"], "target"),
            node("Expand", ["row", "target"], "wide"),
            node("Add", ["x", "wide"], "y"),
        ],
        ["N", "T"],
        minus=integers(-1),
        one=integers(1),
        row=floats(1, 1),
    )
    module = assert_agrees(model, {"x": floats(2, 3)}, {"x": floats(4, 1)})
    assert "select" not in ops(module)


def test_expand_when_its_target_counts_windows_then_it_is_known_that_some_are() -> None:
    # Exported masks of speech models: without the convolution's own guard, its count might be -1.
    model = x_model(
        [
            node("Conv", ["x", "weight"], "windows", strides=[5]),
            node("Shape", ["windows"], "s"),
            node("Equal", ["s", "minus"], "open"),
            node("Where", ["open", "one", "s"], "target"),
            node("Expand", ["row", "target"], "wide"),
            node("Add", ["windows", "wide"], "y"),
        ],
        ["B", 1, "L"],
        weight=floats(4, 1, 10),
        minus=integers(-1),
        one=integers(1),
        row=floats(1, 1, 1),
    )
    module = assert_agrees(model, {"x": floats(2, 1, 40)}, {"x": floats(1, 1, 10)})
    assert "select" not in ops(module)
    with pytest.raises(TesseraError, match="window"):
        run(module, "main", {"x": floats(1, 1, 9)})


def test_floor_when_a_float_division_of_dims_is_exact_then_it_is_floordiv() -> None:
    model = x_model(
        [
            node("Shape", ["x"], "s"),
            node("Cast", ["s"], "f", to=1),
            node("Div", ["f", "three"], "d"),
            node("Floor", ["d"], "e"),
            node("Cast", ["e"], "i", to=7),
            node("Slice", ["x", "zero", "i"], "y"),
        ],
        ["N"],
        three=np.asarray([3], np.float32),
        zero=integers(0),
    )
    module = assert_agrees(model, *({"x": floats(n)} for n in (3, 7, 12, 100)))
    (result,) = module.entries["main"].results
    assert module.entries["main"].types[result].shape == (parse_extent("floordiv(N, 3)"),)


def test_range_when_its_limit_is_a_dim_then_it_becomes_iota() -> None:
    model = x_model(
        [
            node("Shape", ["x"], "s"),
            node("Squeeze", ["s"], "n"),
            node("Range", ["zero", "n", "two"], "r"),
            node("Gather", ["x", "r"], "y"),
        ],
        ["N"],
        zero=np.asarray(0),
        two=np.asarray(2),
    )
    module = assert_agrees(model, *({"x": floats(n)} for n in (1, 2, 7)))
    assert "iota" in ops(module)


def test_dim_when_used_as_data_then_it_becomes_a_dimension() -> None:
    model = x_model([node("Shape", ["x"], "s"), node("Cast", ["s"], "f", to=1), node("Mul", ["x", "f"], "y")], ["N"])
    module = assert_agrees(model, {"x": floats(3)}, {"x": floats(5)})
    assert "dimension" in ops(module)


@pytest.mark.parametrize("start", [-3, 0, 1, 5])
@pytest.mark.parametrize("end", [-2, 2, 4, 1_000_000_000, 2**63 - 1])
@pytest.mark.parametrize("step", [1, 2, -1, -2])
def test_slice_when_bounds_leave_the_axis_then_they_are_clamped(start: int, end: int, step: int) -> None:
    model = x_model(
        [node("Slice", ["x", "s", "e", "a", "t"], "y")],
        [2, "N"],
        s=integers(start),
        e=integers(end),
        a=integers(1),
        t=integers(step),
    )
    assert_agrees(model, *({"x": floats(2, n)} for n in (1, 2, 3, 8)))


def test_dims_when_two_names_must_be_equal_then_they_become_one() -> None:
    inputs = {"a": (np.float32, ["N", 3]), "b": (np.float32, ["M", 3])}
    model = make_model([node("Add", ["a", "b"], "y")], inputs, ["y"])
    module = read_onnx(model)
    function = module.entries["main"]
    assert len({function.types[a].shape for a in function.args}) == 1
    assert set(module.dims) == {"M"}
    with pytest.raises(TesseraError):
        run(module, "main", {"a": floats(2, 3), "b": floats(4, 3)})
    assert_agrees(model, {"a": floats(2, 3), "b": floats(2, 3)})
    assert read_onnx(model, dims={"N": (2, 9), "M": (1, 5)}).dims == {"M": (2, 5)}


def test_dims_when_numbers_of_elements_fix_one_then_it_is_a_number() -> None:
    # Exported attention with a length written into its reshapes: 2 * B * S elements are 6 * B.
    nodes = [node("Shape", ["x"], "s"), node("Slice", ["s", "none", "first"], "b"), node("Concat", ["b", "rest"], "t")]
    nodes[-1].attribute.extend([helper.make_attribute("axis", 0)])
    model = x_model(
        [*nodes, node("Reshape", ["x", "t"], "y")],
        ["B", "S", 2],
        none=integers(0),
        first=integers(1),
        rest=integers(3, 2),
    )
    module = assert_agrees(model, {"x": floats(2, 3, 2)}, {"x": floats(1, 3, 2)})
    assert set(module.dims) == {"B"}
    assert not module.guards
    guarded = read_onnx(model, dims={"B": (0, 4)})  # of nothing, any S is right
    assert set(guarded.dims) == {"B", "S"}


def test_skip_connection_when_pooling_loses_an_element_then_a_guard_refuses_odd_sizes() -> None:
    model = x_model(
        [
            node("MaxPool", ["x"], "p", kernel_shape=[2], strides=[2]),
            node("Concat", ["p", "p"], "w", axis=2),
            node("Add", ["w", "x"], "y"),
        ],
        [1, 2, "L"],
    )
    module = assert_agrees(model, {"x": floats(1, 2, 8)})
    assert any(relation == "==" for _, relation, _, _ in module.guards)
    with pytest.raises(TesseraError, match="GUARD_FAILED"):
        run(module, "main", {"x": floats(1, 2, 7)})


def test_dims_when_anonymous_or_no_identifier_then_they_get_fresh_names() -> None:
    inputs = {"data in": (np.float32, [None, "?", "batch size", "2n"]), "b": (np.float32, ["batch size", "lambda"])}
    nodes = [node("Relu", ["data in"], "y"), node("Relu", ["b"], "z")]
    imported = import_onnx(make_model(nodes, inputs, ["y", "z"]))
    assert list(imported.module.dims) == ["data_in_d0", "data_in_d1", "batch_size", "d_2n", "d_lambda"]
    assert imported.dim_names["batch_size"] == "batch size"
    assert all(limits == (1, None) for limits in imported.module.dims.values())


def test_dims_when_requested_then_they_are_fixed_or_bounded() -> None:
    model = x_model([node("Relu", ["x"], "y")], ["N", "the T"])
    module = read_onnx(model, dims={"N": 4, "the T": (2, 9)})
    function = module.entries["main"]
    assert function.types[function.args[0]].shape == (4, parse_extent("the_T"))
    assert module.dims == {"the_T": (2, 9)}


def test_constants_when_small_then_arithmetic_over_them_leaves_no_node() -> None:
    nodes = [node("Add", ["a", "b"], "c"), node("Unsqueeze", ["c", "axis"], "d"), node("Mul", ["x", "d"], "y")]
    model = x_model(nodes, [2, 3], a=floats(3), b=floats(3), axis=integers(0))
    assert ops(assert_agrees(model, {"x": floats(2, 3)})) == ["constant", "mul"]


def test_function_when_local_to_the_model_then_it_is_inlined() -> None:
    model = make_model([node("Twice", ["x"], "y")], {"x": (np.float32, [2, "N"])}, ["y"])
    model.graph.node[0].domain = "own"
    model.opset_import.append(helper.make_opsetid("own", 1))
    body = [node("Add", ["a", "a"], "b")]
    model.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
    assert ops(assert_agrees(model, {"x": floats(2, 3)})) == ["add"]


def test_weights_when_also_listed_as_inputs_then_they_are_no_inputs() -> None:
    model = make_model(
        [node("MatMul", ["x", "w"], "y")],
        {"w": (np.float32, [3, 4]), "x": (np.float32, [2, 3])},
        ["y"],
        {"w": floats(3, 4)},
        opset=9,
    )
    assert read_onnx(model).input_names["main"] == ("x",)
    assert_agrees(model, {"x": floats(2, 3)})
