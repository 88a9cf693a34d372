"""Single kernels as models, so that the peers of a model are those of a kernel.

Takes nothing; gives recipes by name. Invariant: names ending in `_alone` are one operator between the layouts of the
file's inputs and outputs; the others of an image are chains of it, long enough that the layout at the ends does not
decide. What a call itself costs each runner is `call`: an addition of four numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.peers.recipes import Inverted, Recipe, attend, drawn

_SIZE: Final = 56


def _convolutions(channels: tuple[int, ...], kernel: int, depthwise: bool = False) -> Recipe:
    """Convolutions one behind the other, each with its bias and ReLU."""
    layers: list[nn.Module] = []
    for given, out in itertools.pairwise(channels):
        side = nn.Conv2d(given, out, kernel, padding=kernel // 2, groups=given if depthwise else 1)
        layers += [side, nn.ReLU()]
    return _image(nn.Sequential(*layers), channels[0])


def _blocks(count: int) -> Recipe:
    return _image(nn.Sequential(*(Inverted(24, 24, 1, 6) for _ in range(count))), 24)


def _image(module: nn.Module, channels: int) -> Recipe:
    return Recipe(drawn(module), {"x": torch.randn(1, channels, _SIZE, _SIZE)}, ("y",))


class _Attention(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k, v, None)


def _attention() -> Recipe:
    inputs = {name: torch.randn(1, 12, 128, 64) for name in ("q", "k", "v")}
    return Recipe(_Attention(), inputs, ("y",))


class _FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(x)))


class _Product(nn.Module):
    """Two matrices that are both given at run time."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a @ b


class _Call(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1.0


def _rows(module: nn.Module, rows: int, columns: int) -> Recipe:
    return Recipe(module, {"x": torch.randn(rows, columns)}, ("y",))


KERNELS: Final[dict[str, Callable[[], Recipe]]] = {
    "conv3x3": lambda: _convolutions((64,) * 5, 3),
    "conv3x3_alone": lambda: _convolutions((64, 64), 3),
    "conv1x1": lambda: _convolutions((256, 64, 256, 64, 256), 1),
    "conv1x1_alone": lambda: _convolutions((256, 64), 1),
    "depthwise3x3": lambda: _convolutions((144,) * 5, 3, depthwise=True),
    "depthwise3x3_alone": lambda: _convolutions((144, 144), 3, depthwise=True),
    "mobile_block": lambda: _blocks(3),
    "mobile_block_alone": lambda: _blocks(1),
    "attention": _attention,
    "feed_forward": lambda: _rows(_FeedForward(768), 128, 768),
    "feed_forward_tokens": lambda: Recipe(_FeedForward(768), {"x": torch.randn(1, 128, 768)}, ("y",)),
    "softmax": lambda: _rows(nn.Softmax(-1), 1536, 128),
    "layer_norm": lambda: _rows(nn.LayerNorm(768), 512, 768),
    "product": lambda: _rows(nn.Linear(1024, 1024, bias=False), 1024, 1024),
    "product_of_inputs": lambda: Recipe(
        _Product(), {"a": torch.randn(1024, 1024), "b": torch.randn(1024, 1024)}, ("y",)
    ),
    "call": lambda: _rows(_Call(), 1, 4),
}
