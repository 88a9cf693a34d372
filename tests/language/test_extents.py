"""Extents in arithmetic: whole numbers stay extents, floats and tensors make tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.language.build import compiled, draw

# Of x[n, 4] in f32: what the author writes, and numpy with n for a number.
FORMULAS = (
    "n * x",
    "n + x",
    "n - x",
    "n / x",
    "x * n",
    "n % x",
    "n // x",
    "n ** op.absolute(x)",
    "x * (1.0 / n)",
    "x * (n / 2)",
    "x * n ** 0.5",
    "x * n ** -1",
    "x * 2 ** n",
    "x * (0.5 * n - 0.25)",
    "x * (0.5 - n)",
    "x * (2.5 // n) + n % 2.5 + n // 2.5",
    "x * (n / (n + 1))",
    "x * (np.float32(2) * n) * (n - np.float64(1))",
    "x + n * np.ones(4, np.float32)",
    "x + np.ones(4, np.float32) / n",
    "x * op.sqrt(n) + op.exp(-n * 0.1) + op.maximum(n, 2.5)",
    "x * op.cast(n, f32)",
    "op.cast(n > x, f32)",
    # Whole numbers: these are extents, and shapes too.
    "op.zeros((n + 1, n * 2, n // 2, n % 3, 7 // n + 1, 7 % n + 1, n ** 2, 3 * n - n)) + 1",
    "op.zeros((np.int64(2) * n, n + np.int32(1), 10 * n - 2))",
)


@pytest.mark.numerics
@pytest.mark.parametrize("rows", ['"N"', "5"])
def test_extents_when_computed_with_then_are_extents_or_scalar_tensors(tmp_path: Path, rows: str) -> None:
    lines = "".join(f'    found["r{index}"] = {text}\n' for index, text in enumerate(FORMULAS))
    head = (
        'import numpy as np\n@graph.module("all")\ndef everything(x: Tensor[ROWS, 4]):\n    n, found = x.shape[0], {}\n'
    ).replace("ROWS", rows)
    x = draw(0, 5, 4)
    found = compiled(tmp_path, f"{head}{lines}    return found\n", {"x": x})
    for index, text in enumerate(FORMULAS):
        wanted = np.asarray(
            eval(text, {"np": np, "op": _Numpy, "f32": np.float32}, {"n": 5, "x": x.astype(np.float64)})
        )
        np.testing.assert_allclose(found[f"r{index}"], wanted, rtol=2e-6, err_msg=text)


class _Numpy:
    """The functions of the formulas, as numpy has them."""

    absolute, sqrt, exp, maximum, zeros = np.abs, np.sqrt, np.exp, np.maximum, np.zeros
    cast = staticmethod(lambda x, dtype: np.asarray(x).astype(dtype))  # pyright: ignore[reportUnknownLambdaType]


@pytest.mark.numerics
def test_attention_when_scaled_by_an_extent_then_is_that_of_the_number(tmp_path: Path) -> None:
    body = """
    @graph.module("m")
    def m(q: Tensor[1, 1, 3, 8], k: Tensor[1, 1, 3, 8], p: Tensor[3, "D"], r: Tensor[3, "D"]):
        n = p.shape[1]
        written = op.softmax(p @ r.T * n**-0.5) @ r
        return written, op.attention(q, k, k, scale=1 / op.sqrt(n)), op.attention(q, k, k, scale=n**-0.5)
    """
    q, k = draw(0, 1, 1, 3, 8), draw(1, 1, 1, 3, 8)
    found = list(compiled(tmp_path, body, {"q": q, "k": k, "p": q[0, 0], "r": k[0, 0]}).values())
    scores = (q @ k.swapaxes(-1, -2)).astype(np.float64) / np.sqrt(8)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    for result in found:
        np.testing.assert_allclose(result.reshape(q.shape), weights @ k, rtol=1e-5)


@pytest.mark.numerics
def test_extent_when_cast_then_large_ones_are_exact(tmp_path: Path) -> None:
    """16,777,217 is no f32: an extent is converted from a whole number."""
    body = """
    from tessera import i8

    @graph.module("m")
    def m(x: Tensor["N", i8]):
        return op.cast(x.shape[0], f64)
    """
    (found,) = compiled(tmp_path, body, {"x": np.zeros((1 << 24) + 1, np.int8)}).values()
    assert found == (1 << 24) + 1


@pytest.mark.numerics
def test_extents_when_no_size_leaves_it_open_then_are_equal_or_not(tmp_path: Path) -> None:
    body = """
    @graph.module("m")
    def m(x: Tensor["B", graph.dim("S", 4, 64)], y: Tensor["B", "S"]):
        b, s = x.shape
        decided = [x.shape == y.shape, b == y.shape[0], s != 3, b + 1 != b, s not in (1, 2), {b: 1}[y.shape[0]] == 1]
        return x * float(all(decided))
    """
    x = draw(0, 2, 5)
    (found,) = compiled(tmp_path, body, {"x": x, "y": x}).values()
    np.testing.assert_array_equal(found, x)
