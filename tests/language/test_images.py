"""Images that become larger or smaller: transposed convolutions and resizing, compiled, with their gradients.

Transposed convolutions are held to what they are defined by, <conv(y, w), x> = <y, conv_transpose(x, w)>, and both to
torch where it is installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.language.build import Floats, compiled, draw

# What a convolution is told, the image that it reads and its weights.
TRANSPOSED: list[tuple[dict[str, Any], tuple[int, ...], tuple[int, ...]]] = [
    ({}, (2, 4, 5, 6), (4, 3, 3, 3)),
    ({"stride": 2}, (2, 4, 5, 6), (4, 3, 2, 2)),
    ({"stride": 2, "padding": 1, "output_padding": 1}, (2, 4, 5, 6), (4, 3, 3, 3)),
    ({"stride": (3, 2), "padding": (2, 0), "dilation": (2, 1), "groups": 2}, (2, 4, 5, 6), (4, 3, 4, 3)),
    ({"stride": 2, "padding": 1}, (1, 2, 7), (2, 5, 4)),
    ({"stride": 2}, (1, 2, 3, 3, 3), (2, 2, 2, 2, 2)),
    ({"stride": 3, "padding": 1, "output_padding": 2}, (1, 2, 4, 4), (2, 2, 2, 2)),
]
RESIZED: list[tuple[tuple[int, ...], tuple[int, ...], str]] = [
    ((8, 12), (2, 3, 4, 6), "nearest"),
    ((7, 5), (2, 3, 4, 6), "nearest"),
    ((8, 12), (2, 3, 4, 6), "linear"),
    ((7, 5), (2, 3, 4, 6), "linear"),
    ((3,), (1, 2, 9), "linear"),
    ((3, 5, 7), (1, 2, 2, 3, 4), "linear"),
    ((1, 1), (1, 2, 4, 4), "linear"),
]


def _built(folder: Path, formula: str, values: dict[str, Floats]) -> dict[str, Floats]:
    """The results of a formula, the sum of their sines and its gradients."""
    names = list(values)
    arguments = ", ".join(f"{name}: Tensor[{', '.join(map(str, values[name].shape))}]" for name in names)
    body = f"""
@graph.module("m")
def m({arguments}):
    result = {formula}
    return result, graph.backward(op.reduce_sum(op.sin(result)), wrt=[{", ".join(names)}])
"""
    return compiled(folder, body, values, verify=True)


def _compare_with_torch(found: dict[str, Floats], values: dict[str, Floats], formula: Any) -> None:  # noqa: ANN401
    """Results and gradients, against torch in float64."""
    torch = pytest.importorskip("torch")
    wide = {name: torch.tensor(value.astype(np.float64), requires_grad=True) for name, value in values.items()}
    wanted = formula(torch.nn.functional, *wide.values())
    torch.sin(wanted).sum().backward()
    np.testing.assert_allclose(found["result"], wanted.detach().numpy(), rtol=1e-5, atol=1e-5)
    for name, value in wide.items():
        np.testing.assert_allclose(found[f"grad.{name}"], value.grad.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.numerics
@pytest.mark.parametrize(("how", "image", "kernel"), TRANSPOSED)
def test_conv_transpose_when_compiled_then_is_torchs(
    tmp_path: Path, how: dict[str, Any], image: tuple[int, ...], kernel: tuple[int, ...]
) -> None:
    values = {"x": draw(0, *image), "w": draw(1, *kernel), "b": draw(2, kernel[1] * how.get("groups", 1))}
    options = "".join(f", {name}={value}" for name, value in how.items())
    found = _built(tmp_path, f"op.conv_transpose(x, w, b{options})", values)
    name = f"conv_transpose{len(image) - 2}d"
    _compare_with_torch(found, values, lambda functional, x, w, b: getattr(functional, name)(x, w, b, **how))


@pytest.mark.numerics
@pytest.mark.parametrize(("how", "image", "kernel"), TRANSPOSED)
def test_conv_transpose_when_beside_conv_then_is_its_transpose(
    tmp_path: Path, how: dict[str, Any], image: tuple[int, ...], kernel: tuple[int, ...]
) -> None:
    options = "".join(f", {name}={value}" for name, value in how.items())
    back = "".join(f", {name}={value}" for name, value in how.items() if name != "output_padding")
    body = f"""
    @graph.module("m")
    def m(x: Tensor[{", ".join(map(str, image))}], w: Tensor[{", ".join(map(str, kernel))}]):
        result = op.conv_transpose(x, w{options})
        y = op.random.normal(op.random.key(3), result.shape)
        return op.reduce_sum(result * y), op.reduce_sum(op.conv(y, w{back}) * x)
    """
    one, other = compiled(tmp_path, body, {"x": draw(0, *image), "w": draw(1, *kernel)}).values()
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)


@pytest.mark.numerics
@pytest.mark.parametrize(("size", "image", "mode"), RESIZED)
def test_resize_when_compiled_then_is_torchs(
    tmp_path: Path, size: tuple[int, ...], image: tuple[int, ...], mode: str
) -> None:
    values = {"x": draw(0, *image)}
    found = _built(tmp_path, f'op.resize(x, {size}, mode="{mode}")', values)
    kinds = {"nearest": "nearest", "linear": ("linear", "bilinear", "trilinear")[len(size) - 1]}
    _compare_with_torch(found, values, lambda functional, x: functional.interpolate(x, size=size, mode=kinds[mode]))


@pytest.mark.numerics
def test_images_when_extents_are_symbolic_then_skips_meet_what_was_made_smaller(tmp_path: Path) -> None:
    body = """
    W = op.tensor((3, 2, 2, 2), init=op.init.normal(1))

    @graph.module("m")
    def m(x: Tensor["N", 3, "H", "W"]):
        small = op.max_pool(x, 2)
        joined = op.concat([op.resize(small, x.shape[2:], mode="linear"), op.resize(small, x.shape[2:]), x], 1)
        wide = op.resize(small, (small.shape[2] * 2, small.shape[3] * 3))
        return joined, wide, op.conv_transpose(x, W, stride=2), graph.backward(op.reduce_sum(joined), wrt=x)
    """
    x = draw(0, 2, 3, 7, 10)
    joined, wide, turned, gradient = compiled(tmp_path, body, {"x": x}, verify=True).values()
    small = x[:, :, :6].reshape(2, 3, 3, 2, 5, 2).max((3, 5))
    rows, columns = np.arange(7) * 3 // 7, np.arange(10) // 2
    np.testing.assert_array_equal(joined[:, 3:6], small[:, :, rows][..., columns])
    np.testing.assert_array_equal(joined[:, 6:], x)
    np.testing.assert_array_equal(wide, small.repeat(2, 2).repeat(3, 3))
    assert turned.shape == (2, 2, 14, 20)
    np.testing.assert_allclose(gradient.sum(), 3 * x.size, rtol=1e-5)
