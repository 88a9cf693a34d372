"""The op families as compiled code, against numpy in float64."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tessera import executor, graph, op
from tessera.errors import LanguageError
from tessera_build.frontends.python.safetensors import read_safetensors
from tests.language.build import compiled, draw
from tests.language.numeric import Doubles, softmax

Formula = Callable[[Doubles, Doubles], object]
ERF = np.vectorize(math.erf)


def _normal(x: Doubles, epsilon: float) -> Doubles:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)


def _log_sum(x: Doubles) -> Doubles:
    top = x.max(-1, keepdims=True)
    return (np.log(np.exp(x - top).sum(-1, keepdims=True)) + top)[..., 0]


# Of x[B, 6] and y[6, 4]: what the author writes, and what numpy computes.
FORMULAS: dict[str, Formula] = {
    "x @ y": lambda x, y: x @ y,
    "x[0] @ y": lambda x, y: x[0] @ y,
    "y.T @ x[0]": lambda x, y: y.T @ x[0],
    "op.dot(x[0], x[1])": lambda x, y: x[0] @ x[1],
    "op.outer(x[0], x[1])": lambda x, y: np.outer(x[0], x[1]),
    'op.einsum("bi,ij->jb", x, y)': lambda x, y: np.einsum("bi,ij->jb", x, y),
    'op.einsum("bi->i", x)': lambda x, y: x.sum(0),
    'op.einsum("bi,bj->bij", x, x)': lambda x, y: np.einsum("bi,bj->bij", x, x),
    "op.softmax(x)": lambda x, y: softmax(x),
    "op.softmax_safe(x)": lambda x, y: softmax(x),
    "op.log_softmax(x)": lambda x, y: np.log(softmax(x)),
    "op.logsumexp(x)": lambda x, y: _log_sum(x),
    "op.logsumexp_safe(x)": lambda x, y: _log_sum(x),
    "op.layernorm(x)": lambda x, y: _normal(x, 1e-5),
    "op.layernorm_safe(x)": lambda x, y: _normal(x, 1e-5),
    "op.rmsnorm(x)": lambda x, y: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6),
    "op.rmsnorm_safe(x)": lambda x, y: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6),
    "op.groupnorm(x, 2)": lambda x, y: _normal(x.reshape(-1, 2, 3), 1e-5).reshape(-1, 6),
    "op.gelu(x)": lambda x, y: x * 0.5 * (1 + ERF(x / math.sqrt(2))),
    "op.gelu(x, True)": lambda x, y: x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "op.silu(x)": lambda x, y: x / (1 + np.exp(-x)),
    "op.softplus(x)": lambda x, y: np.log1p(np.exp(x)),
    "op.elu(x)": lambda x, y: np.where(x > 0, x, np.expm1(x)),
    "op.leaky_relu(x)": lambda x, y: np.where(x > 0, x, 0.01 * x),
    "op.clip(x, -0.5, 0.5)": lambda x, y: np.clip(x, -0.5, 0.5),
    "op.where(x > 0, x, -1)": lambda x, y: np.where(x > 0, x, -1),
    "op.where((x == x[0]) & ~(x != x[0]), 1.0, x)": lambda x, y: np.where(x == x[0], 1, x),
    "op.asin(op.tanh(x))": lambda x, y: np.arcsin(np.tanh(x)),
    "op.acos(op.tanh(x))": lambda x, y: np.arccos(np.tanh(x)),
    "op.atan(x)": lambda x, y: np.arctan(x),
    "op.sinh(x)": lambda x, y: np.sinh(x),
    "op.cosh(x)": lambda x, y: np.cosh(x),
    "op.asinh(x)": lambda x, y: np.arcsinh(x),
    "op.acosh(x * x + 1.5)": lambda x, y: np.arccosh(x * x + 1.5),
    "op.atanh(op.tanh(x) * 0.9)": lambda x, y: np.arctanh(np.tanh(x) * 0.9),
    "op.mod(x, 0.75)": lambda x, y: np.mod(x, 0.75),
    "op.log1p(x * x - 0.4)": lambda x, y: np.log1p(x * x - 0.4),
    "op.log1p(x * 1e-6) * 1e6": lambda x, y: np.log1p(x * 1e-6) * 1e6,
    "op.expm1(x * 1e-6) * 1e6": lambda x, y: np.expm1(x * 1e-6) * 1e6,
    "op.log2(x * x + 0.1)": lambda x, y: np.log2(x * x + 0.1),
    "op.log10(x * x + 0.1)": lambda x, y: np.log10(x * x + 0.1),
    "op.exp2(x)": lambda x, y: np.exp2(x),
    "op.logaddexp(x, x[0])": lambda x, y: np.logaddexp(x, x[0]),
    "op.hypot(x, x[0])": lambda x, y: np.hypot(x, x[0]),
    "op.atan2(x, x[0])": lambda x, y: np.arctan2(x, x[0]),
    "op.logsigmoid(x)": lambda x, y: -np.log1p(np.exp(-x)),
    "op.mish(x)": lambda x, y: x * np.tanh(np.log1p(np.exp(x))),
    "op.softsign(x)": lambda x, y: x / (1 + np.abs(x)),
    "op.relu6(x * 9)": lambda x, y: np.clip(x * 9, 0, 6),
    "op.hard_sigmoid(x * 4)": lambda x, y: np.clip(x * 4 / 6 + 0.5, 0, 1),
    "op.hard_swish(x * 4)": lambda x, y: x * 4 * np.clip(x * 4 / 6 + 0.5, 0, 1),
    "op.celu(x, 0.5)": lambda x, y: np.where(x > 0, x, 0.5 * np.expm1(x / 0.5)),
    "op.selu(x)": lambda x, y: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    "op.cumprod(x, 1)": lambda x, y: x.cumprod(1),
    "op.inverse(y[:4] + 5 * op.eye(4))": lambda x, y: np.linalg.inv(y[:4] + 5 * np.eye(4)),
    "op.determinant(y[:4] + 5 * op.eye(4)) * 1e-3": lambda x, y: np.linalg.det(y[:4] + 5 * np.eye(4)) * 1e-3,
    "2 - x / 3 + 1 / (x * x + 1)": lambda x, y: 2 - x / 3 + 1 / (x * x + 1),
    "2.0 ** x": lambda x, y: 2.0**x,
    "x ** 2": lambda x, y: x**2,
    "op.reduce_mean(x, 0)": lambda x, y: x.mean(0),
    "op.variance(x)": lambda x, y: x.var(),
    "op.reduce_prod(x, 1)": lambda x, y: x.prod(1),
    "op.cast(op.argmax(x), f32)": lambda x, y: x.argmax(-1).astype(np.float64),
    "op.cast(op.argmin(x, 0), f32)": lambda x, y: x.argmin(0).astype(np.float64),
    "op.cumsum(x)": lambda x, y: x.cumsum(-1),
    "op.flip(x, 0)": lambda x, y: x[::-1],
    "op.flip(x, 1)": lambda x, y: x[:, ::-1],
    "op.concat([x, x], 1)": lambda x, y: np.concatenate([x, x], 1),
    "op.stack([x, x], 1)": lambda x, y: np.stack([x, x], 1),
    "op.split(x, 3)[1]": lambda x, y: x[:, 2:4],
    "op.transpose(op.reshape(x, (-1, 2, 3)), (2, 0, 1))": lambda x, y: x.reshape(-1, 2, 3).transpose(2, 0, 1),
    "op.pad(x, (0, 1), (0, 2), 7.0)": lambda x, y: np.pad(x, ((0, 0), (1, 2)), constant_values=7),
    "x[:, ::2]": lambda x, y: x[:, ::2],
    "x[-1, None, 1:-1]": lambda x, y: x[-1, None, 1:-1],
    "x[1:, ..., 0]": lambda x, y: x[1:, ..., 0],
    "y[op.constant([3, 0, 3], i64)]": lambda x, y: y[[3, 0, 3]],
    "op.squeeze(op.expand_dims(x, 1))": lambda x, y: x,
    "op.top_k(x, 2)[0]": lambda x, y: -np.sort(-x, -1)[:, :2],
    "op.top_k(x, 2, axis=0, largest=False)[0]": lambda x, y: np.sort(x, 0)[:2],
    "op.top_k(op.reshape(x, (-1, 2, 3)), 1, axis=1)[1]": lambda x, y: x.reshape(-1, 2, 3).argmax(1)[:, None],
    "op.one_hot(op.argmax(x), 6)": lambda x, y: np.eye(6)[x.argmax(-1)],
    'op.one_hot(op.cast(op.argmax(x), "u8"), 300)': lambda x, y: np.eye(300)[x.argmax(-1)],
    'op.one_hot(op.cast(op.argmax(x), "i8"), 128)': lambda x, y: np.eye(128)[x.argmax(-1)],
    "op.eye(3) + op.zeros((3, 3))": lambda x, y: np.eye(3),
    "op.cast(op.dimension(x.shape[0]), f32) * op.ones((2,))": lambda x, y: np.full(2, float(len(x))),
    "op.scatter(y, op.constant([2, 2], i64), x[:2, :4], add=True)": lambda x, y: np.concatenate(
        [y[:2], y[2:3] + x[:2, :4].sum(0), y[3:]]
    ),
    "op.solve_linear(op.reshape(y[:4] + 5 * op.eye(4), (1, 4, 4)), op.ones((1, 4, 1)))": lambda x, y: np.linalg.solve(
        y[:4] + 5 * np.eye(4), np.ones((4, 1))
    )[None],
    "op.cross_entropy(x, op.softmax(x * 2))": lambda x, y: -(softmax(x * 2) * np.log(softmax(x))).sum(-1).mean(),
    "op.max_pool(op.reshape(x, (-1, 1, 6)), 3, stride=2, padding=1)": lambda x, y: np.stack(
        [np.maximum(x[:, 0], x[:, 1]), x[:, 1:4].max(1), x[:, 3:6].max(1)], 1
    )[:, None],
    "op.avg_pool(op.reshape(x, (-1, 1, 6)), 2)": lambda x, y: x.reshape(-1, 1, 3, 2).mean(-1),
    "op.conv(op.reshape(x, (-1, 1, 6)), op.ones((2, 1, 3)), padding=1)": lambda x, y: np.repeat(
        np.stack([np.convolve(row, np.ones(3), "same") for row in x])[:, None], 2, 1
    ),
    "op.fixed_point(lambda v: op.cos(v) * 0.5 + x, x)": lambda x, y: _iterated(lambda v: np.cos(v) * 0.5 + x, x),
}


def _iterated(function: Callable[[Doubles], Doubles], x: Doubles) -> Doubles:
    for _ in range(200):
        x = function(x)
    return x


@pytest.mark.numerics
def test_ops_when_compiled_then_give_what_numpy_gives(tmp_path: Path) -> None:
    lines = "".join(f'    results["r{index}"] = {text}\n' for index, text in enumerate(FORMULAS))
    head = '@graph.module("all")\ndef everything(x: Tensor["B", 6], y: Tensor[6, 4]):\n    results = {}\n'
    body = f"{head}{lines}    return results\n"
    x, y = draw(0, 5, 6), draw(1, 6, 4)
    found = compiled(tmp_path, body, {"x": x, "y": y})
    wide_x, wide_y = x.astype(np.float64), y.astype(np.float64)
    wrong: list[str] = []
    for index, (text, formula) in enumerate(FORMULAS.items()):
        wanted, got = np.asarray(formula(wide_x, wide_y), np.float64), found[f"r{index}"]
        if wanted.shape != got.shape or not np.allclose(got, wanted, rtol=1e-5, atol=2e-6):
            wrong.append(f"{text}: {got.shape} {wanted.shape}")
    assert wrong == []


ONE = "op.asin op.acos op.atan op.sinh op.cosh op.asinh op.atanh op.log1p op.expm1 op.exp2 op.logsigmoid op.mish"
SMOOTH = (*ONE.split(), "op.softsign", "op.celu", "op.selu", "op.hard_swish", "op.cumprod")


@pytest.mark.numerics
def test_functions_when_differentiated_then_agree_with_differences() -> None:
    """In float64 by the interpreter, at points away from jumps, and where functions lose digits if badly written."""
    x = np.asarray([-0.7, -0.2, 1e-4, 0.3, 0.6])
    names = dict(zip(SMOOTH, (getattr(op, name.removeprefix("op.")) for name in SMOOTH), strict=True))
    pairs = {"op.atan2": op.atan2, "op.hypot": op.hypot, "op.logaddexp": op.logaddexp}
    other = np.asarray([0.4, -0.9, 0.2, -0.1, 1.3])
    with executor.using(None):
        for name, function in names.items():
            _agree(name, lambda v, f=function: f(v), x)
        for name, function in pairs.items():
            _agree(name, lambda v, f=function: f(v, op.constant(other)), x)
            _agree(name, lambda v, f=function: f(op.constant(other), v), x)
        matrix = np.random.default_rng(1).standard_normal((3, 3)) + 3 * np.eye(3)
        _agree("op.inverse", op.inverse, matrix)
        _agree("op.determinant", op.determinant, matrix)


def _agree(name: str, function: Callable[..., object], x: Doubles) -> None:
    weights = np.random.default_rng(2).standard_normal(np.asarray(graph.jit(function)(x)).shape)

    def loss(v: object) -> object:
        return op.reduce_sum(function(v) * op.constant(weights))  # type: ignore[operator]

    gradient = np.asarray(graph.jit(lambda v: graph.grad(loss)(v))(x), np.float64)
    direction = np.random.default_rng(3).standard_normal(x.shape)
    ends = [float(np.asarray(graph.jit(loss)(x + step * direction))) for step in (1e-6, -1e-6)]
    slope = float(np.sum(gradient * direction))
    assert abs((ends[0] - ends[1]) / 2e-6 - slope) <= 1e-7 * max(1.0, abs(slope)), name


@pytest.mark.numerics
def test_safe_forms_when_rows_are_huge_or_masked_then_stay_finite(tmp_path: Path) -> None:
    body = """
    @graph.module("safe")
    def safe(x: Tensor["B", 4], masked: Tensor["B", 4]):
        return {
            "layer": op.layernorm_safe(x), "root": op.rmsnorm_safe(x), "plain": op.rmsnorm(x),
            "soft": op.softmax_safe(masked), "log": op.logsumexp_safe(masked),
        }
    """
    x = np.asarray([[1e30, -2e30, 3e30, 0], [1, 2, 3, 4]], np.float32)
    masked = np.asarray([[-np.inf] * 4, [0, -np.inf, 0, -np.inf]], np.float32)
    found = compiled(tmp_path, body, {"x": x, "masked": masked})
    small = x.astype(np.float64) / np.asarray([[1e30], [1]])
    np.testing.assert_allclose(found["layer"], _normal(small, 0), atol=1e-4)
    np.testing.assert_allclose(found["root"], small / np.sqrt((small**2).mean(-1, keepdims=True)), atol=1e-4)
    assert not found["plain"][0].any()  # squares overflow: what the safe form is for
    np.testing.assert_array_equal(found["soft"], [[0, 0, 0, 0], [0.5, 0, 0.5, 0]])
    np.testing.assert_allclose(found["log"], [-np.inf, math.log(2)], rtol=1e-6)


@pytest.mark.numerics
def test_safe_softmax_when_an_element_is_nan_then_its_row_is() -> None:
    rows = np.asarray([[np.nan, 0, 1], [0, -np.inf, 0]], np.float32)
    expected = [[np.nan] * 3, [0.5, 0, 0.5]]
    np.testing.assert_array_equal(np.asarray(graph.jit(lambda x: op.softmax_safe(x))(rows)), expected)
    with executor.using(None):
        np.testing.assert_array_equal(np.asarray(graph.jit(lambda x: op.softmax_safe(x))(rows)), expected)


def _file(header: object, data: bytes, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


ROW = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.errors
@pytest.mark.parametrize(
    "content",
    [
        b"",
        _file({"w": ROW}, b"\0" * 4),
        _file({"w": ROW}, b"\0" * 8, 1 << 60),
        _file({"w": {**ROW, "data_offsets": [-8, 0]}}, b"\0" * 8),
        _file({"w": {**ROW, "shape": [3]}}, b"\0" * 8),
        _file({"w": {**ROW, "shape": [1 << 62, 1 << 62]}}, b"\0" * 8),
        _file({"w": {**ROW, "dtype": "F31"}}, b"\0" * 8),
        _file({"w": 3}, b"\0" * 8),
        _file([1], b"\0" * 8),
        _file(b"{no json", b"\0" * 8),
        _file(b"[" * 5000, b"\0" * 8),
    ],
)
def test_safetensors_when_damaged_then_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(LanguageError, match="BAD_WEIGHTS"):
        read_safetensors(path)


@pytest.mark.parametrize("size", [1, 3, 16, 17, 33])
@pytest.mark.numerics
def test_reduction_when_the_row_is_one_number_repeated_then_lanes_beyond_its_end_do_not_count(
    tmp_path: Path, size: int
) -> None:
    body = """
    @graph.module("m")
    def m(x: Tensor["B", "N"]):
        row = op.broadcast_to(x[0, 0], x.shape)
        return {"softmax": op.softmax(row), "sum": op.reduce_sum(row, 1), "max": op.reduce_max(row, 1)}
    """
    x = draw(0, 2, size)
    found = compiled(tmp_path, body, {"x": x})
    np.testing.assert_allclose(found["softmax"], np.full((2, size), 1 / size), rtol=1e-5)
    np.testing.assert_allclose(found["sum"], np.full(2, size * x[0, 0]), rtol=1e-5)
    np.testing.assert_array_equal(found["max"], np.full(2, x[0, 0]))
