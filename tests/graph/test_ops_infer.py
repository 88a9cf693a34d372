"""Type rules: result types with symbolic extents, and mismatches that explain themselves."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import parse_extent, symbol
from tessera_build.ir.core.node import Span
from tessera_build.ir.core.types import BOOL, F16, F32, I32, I64, Type, tensor
from tessera_build.ir.graph.infer import complete, infer, op_named
from tessera_build.ir.graph.nodes import Attribute

N, H, W, S = (symbol(name) for name in "NHWS")
CONV: dict[str, Attribute] = {"strides": (2, 2), "low": (1, 1), "high": (1, 1), "dilations": (1, 1)}
ONES = (1, 1, 1, 1)


def inferred(op: str, types: list[Type], **attributes: Attribute) -> Type:
    (result,) = infer(op, types, complete(op_named(op), attributes))
    return result


@pytest.mark.unit
@pytest.mark.parametrize(
    ("op", "types", "attributes", "expected"),
    [
        ("add", [tensor(F32, N, 1, H), tensor(F32, 5, 1)], {}, "tensor<Nx5xHxf32>"),
        ("lt", [tensor(I64, N), tensor(I64)], {}, "tensor<Nxbool>"),
        ("select", [tensor(BOOL, N, 1), tensor(F32, 4), tensor(F32)], {}, "tensor<Nx4xf32>"),
        ("cast", [tensor(F32, N)], {"dtype": I32}, "tensor<Nxi32>"),
        ("matmul", [tensor(F32, N, 1, S, 8), tensor(F32, 4, S, 8)], {"transpose_b": True}, "tensor<Nx4xSxSxf32>"),
        ("matmul", [tensor(F32, 8, N), tensor(F32, 8, 3)], {"transpose_a": True}, "tensor<Nx3xf32>"),
        (
            "conv",
            [tensor(F32, N, 3, H, 224), tensor(F32, 8, 3, 3, 3)],
            CONV,
            "tensor<Nx8xfloordiv(H+1, 2)x112xf32>",
        ),
        (
            "conv",
            [tensor(F32, N, H, W, 6), tensor(F32, 4, 3, 1, 1)],
            {**CONV, "strides": (1, 1), "low": (0, 0), "high": (0, 0), "groups": 2, "layout": "NHWC"},
            "tensor<NxHxWx4xf32>",
        ),
        (
            "reduce_window",
            [tensor(F32, N, 3, H, 8)],
            {
                "kind": "max",
                "window": (1, 1, 2, 2),
                "strides": (1, 1, 2, 2),
                "low": (0, 0, 0, 0),
                "high": (0, 0, 0, 1),
                "dilations": ONES,
            },
            "tensor<Nx3xfloordiv(H, 2)x4xf32>",
        ),
        ("reduce", [tensor(F32, N, H, 4)], {"kind": "sum", "axes": (1,), "keepdims": True}, "tensor<Nx1x4xf32>"),
        ("reduce", [tensor(F32, N, H, 4)], {"kind": "max", "axes": (0, 2)}, "tensor<Hxf32>"),
        ("softmax", [tensor(F16, N, 4)], {"axis": 1}, "tensor<Nx4xf16>"),
        ("reshape", [tensor(F32, N, S, 12)], {"shape": (N * S, 3, 4)}, "tensor<N*Sx3x4xf32>"),
        ("transpose", [tensor(F32, N, S, 4)], {"perm": (2, 0, 1)}, "tensor<4xNxSxf32>"),
        ("broadcast_to", [tensor(F32, 1, 4)], {"shape": (N, S, 4)}, "tensor<NxSx4xf32>"),
        ("concat", [tensor(F32, N, S), tensor(F32, N, 3)], {"axis": 1}, "tensor<NxS+3xf32>"),
        ("slice", [tensor(F32, S)], {"starts": (1,), "stops": (S,), "steps": (2,)}, "tensor<floordiv(S, 2)xf32>"),
        ("pad", [tensor(F32, S)], {"low": (1,), "high": (N,)}, "tensor<N+S+1xf32>"),
        ("gather", [tensor(F32, 100, 8), tensor(I64, N, S)], {"axis": 0}, "tensor<NxSx8xf32>"),
        ("dimension", [], {"value": N * S, "dtype": I64}, "tensor<i64>"),
        ("iota", [], {"shape": (N, 4), "axis": 1, "dtype": I32}, "tensor<Nx4xi32>"),
        (
            "attention",
            [tensor(F32, N, 2, S, 8), tensor(F32, N, 2, W, 8), tensor(F32, N, 2, W, 5), tensor(F32, N, 1, 1, W)],
            {"scale": 0.5},
            "tensor<Nx2xSx5xf32>",
        ),
    ],
)
def test_infer_when_operands_fit_then_gives_the_type(
    op: str, types: list[Type], attributes: Mapping[str, Attribute], expected: str
) -> None:
    assert str(inferred(op, types, **attributes)) == expected


@pytest.mark.errors
@pytest.mark.parametrize(
    ("op", "types", "attributes", "words"),
    [
        ("add", [tensor(F32, 3), tensor(F32, 4)], {}, ["equal extents, or 1", "[3] and [4]"]),
        ("add", [tensor(F32, N), tensor(F32, S)], {}, ["[N] and [S]", "one name in the model"]),
        ("add", [tensor(F32, 3), tensor(F16, 3)], {}, ["one element type", "cast"]),
        ("add", [tensor(F32, 3)], {}, ["2 operands", "1: tensor<3xf32>"]),
        ("exp", [tensor(I32, 3)], {}, ["float element type", "tensor<3xi32>"]),
        ("and", [tensor(F32, 3), tensor(F32, 3)], {}, ["truth values"]),
        ("select", [tensor(F32), tensor(F32), tensor(F32)], {}, ["bool, T, T"]),
        ("matmul", [tensor(F32, 3), tensor(F32, 3, 4)], {}, ["rank >= 2", "reshape"]),
        ("matmul", [tensor(F32, 3, 5), tensor(F32, 4, 6)], {}, ["5 rows in b"]),
        ("conv", [tensor(F32, N, 4, H, W), tensor(F32, 8, 3, 3, 3)], CONV, ["3 input channels", "4 input channels"]),
        ("conv", [tensor(F32, N, 3, 8, 8), tensor(F32, 8, 3, 3, 3)], {**CONV, "groups": 3}, ["9 input channels"]),
        ("conv", [tensor(F32, N, 3, 8, 8), tensor(F32, 8, 3, N, 3)], CONV, ["static"]),
        ("conv", [tensor(F32, N, 3, 2, 2), tensor(F32, 8, 3, 7, 7)], CONV, ["larger than its padded input", "7"]),
        ("conv", [tensor(F32, N, 3, 8, 8), tensor(F32, 8, 3, 3, 3)], {**CONV, "layout": "HWCN"}, ["NCHW | NHWC"]),
        ("conv", [tensor(F32, N, 3, 8, 8), tensor(F32, 8, 3, 3, 3)], {**CONV, "low": (1,)}, ["2 values each"]),
        ("reduce", [tensor(F32, 3)], {"kind": "sum", "axes": (1,)}, ["distinct axes below 1"]),
        ("reduce", [tensor(F32, 3)], {"kind": "mean", "axes": (0,)}, ["sum | max | min | prod"]),
        ("softmax", [tensor(F32, 3)], {"axis": -1}, ["0 <= axis < 1"]),
        ("reshape", [tensor(F32, N, 4)], {"shape": (N, 5)}, ["4*N elements", "5*N"]),
        ("transpose", [tensor(F32, 2, 3)], {"perm": (0, 0)}, ["a permutation of 2 axes"]),
        ("broadcast_to", [tensor(F32, 2, 3)], {"shape": (3,)}, ["shape that tensor<2x3xf32> broadcasts to"]),
        ("concat", [tensor(F32, 2, 3), tensor(F32, 3, 3)], {"axis": 1}, ["every other axis"]),
        ("slice", [tensor(F32, 4)], {"starts": (1,), "stops": (5,), "steps": (1,)}, ["1:5:1 of 4"]),
        ("pad", [tensor(F32, 4)], {"low": (-1,), "high": (0,)}, ["padding >= 0", "use slice"]),
        ("gather", [tensor(F32, 4), tensor(F32, 2)], {"axis": 0}, ["integer element type"]),
        ("cast", [tensor(F32, 4)], {}, ["dtype"]),
        ("cast", [tensor(F32, 4)], {"dtype": F16, "to": F16}, ["dtype, to"]),
        ("relu", [tensor(F32, 4)], {}, ["no op 'relu'"]),
        ("sofmax", [tensor(F32, 4)], {}, ["did you mean softmax"]),
    ],
)
def test_infer_when_operands_do_not_fit_then_says_expected_and_found(
    op: str, types: list[Type], attributes: Mapping[str, Attribute], words: list[str]
) -> None:
    with pytest.raises(TesseraError) as caught:
        inferred(op, types, **attributes)
    assert all(word in caught.value.diagnostics() for word in words), caught.value.diagnostics()


@pytest.mark.errors
def test_infer_when_span_is_known_then_error_says_where() -> None:
    with pytest.raises(TesseraError) as caught:
        infer("add", [tensor(F32, 3), tensor(F32, 4)], {}, Span("/block/Add"))
    assert caught.value.where == "/block/Add"


@pytest.mark.unit
def test_infer_when_window_is_strided_then_extent_is_the_number_of_positions() -> None:
    x = inferred("conv", [tensor(F32, N, 3, H, W), tensor(F32, 8, 3, 7, 7)], **{**CONV, "low": (3, 3), "high": (3, 3)})
    assert x.shape[2] == parse_extent("floordiv(H+1, 2)")


@pytest.mark.errors
@pytest.mark.parametrize("shape", [(2**41,), (2**21, 2**21), (1,) * 33])
def test_value_when_no_machine_can_hold_it_then_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(TesseraError, match="larger than any machine"):
        infer("broadcast_to", [tensor(F32, 1)], {"shape": shape})


@pytest.mark.errors
def test_reshape_when_two_extents_are_negative_then_is_refused() -> None:
    """Their product is right, as that of a group normalisation of -1 groups."""
    with pytest.raises(TesseraError, match="negative extent"):
        inferred("reshape", [tensor(F32, 3, 4)], shape=(3, -1, -4))


_ONE_ROW: dict[str, Attribute] = {
    "window": (1, 2),
    "strides": (1, 1),
    "low": (0, 0),
    "high": (0, 0),
    "dilations": (1, 1),
}


@pytest.mark.errors
@pytest.mark.parametrize(
    ("op", "operands", "attributes"),
    [
        *((op, 1, {}) for op in ("neg", "abs", "sign")),
        *((op, 2, {}) for op in ("add", "sub", "mul", "div", "mod", "rem", "pow", "matmul")),
        *(("reduce", 1, {"kind": kind, "axes": (1,)}) for kind in ("sum", "prod")),
        ("reduce_window", 1, {"kind": "sum", **_ONE_ROW}),
    ],
)
def test_infer_when_truth_values_are_computed_with_then_asks_for_numbers(
    op: str, operands: int, attributes: dict[str, Attribute]
) -> None:
    with pytest.raises(TesseraError, match="defined on numbers"):
        inferred(op, [tensor(BOOL, 2, 2)] * operands, **attributes)


@pytest.mark.unit
@pytest.mark.parametrize("kind", ["max", "min"])
def test_infer_when_truth_values_are_compared_then_gives_truth_values(kind: str) -> None:
    assert inferred("reduce_window", [tensor(BOOL, 2, 2)], kind=kind, **_ONE_ROW) == tensor(BOOL, 2, 1)
    assert inferred(kind, [tensor(BOOL, 2, 2)] * 2) == tensor(BOOL, 2, 2)
