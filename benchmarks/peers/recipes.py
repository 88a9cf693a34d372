"""Models to measure, from recipes: seeded random weights, nothing downloaded, nothing committed.

Takes nothing; gives functions that make a PyTorch module with its inputs, by name. Invariant: the shapes are those of
the published networks, layer by layer; weights come from PyTorch's generator, which `export` seeds.

Sources: ResNet-50 v1.5 (He et al. 2015, stride on the 3x3), MobileNet-V2 (Sandler et al. 2018), BERT-base (Devlin et
al. 2018), GPT-2 small (Radford et al. 2019; one decoding step with the cache as inputs and outputs).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from tessera_build.ir.graph.nodes import Array


@dataclass(frozen=True, slots=True)
class Recipe:
    """A module in evaluation mode, its inputs by name in order, the names of its outputs."""

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]

    def feeds(self) -> dict[str, Array]:
        """The inputs as arrays."""
        return {name: value.numpy() for name, value in self.inputs.items()}


class _Block(nn.Module):
    """ResNet's bottleneck: 1x1, 3x3 (with the stride), 1x1, added to its input or to a projection of it."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        wide = 4 * width
        self.body = nn.Sequential(
            *normalised(channels, width, 1), nn.ReLU(),
            *normalised(width, width, 3, stride), nn.ReLU(),
            *normalised(width, wide, 1),
        )  # fmt: skip
        same = channels == wide and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*normalised(channels, wide, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


def normalised(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> tuple[nn.Module, nn.Module]:
    """A convolution that keeps the size where the stride is 1, and its normalisation."""
    side = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return side, nn.BatchNorm2d(out)


def resnet50() -> nn.Module:
    """Four stages of 3, 4, 6 and 3 bottlenecks on 224 x 224."""
    layers: list[nn.Module] = [*normalised(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, (width, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for index in range(count):
            layers.append(_Block(channels, width, 2 if stage and not index else 1))
            channels = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


class Inverted(nn.Module):
    """MobileNet-V2's block: expand, depthwise, project; added to its input where shapes allow."""

    def __init__(self, channels: int, out: int, stride: int, factor: int) -> None:
        super().__init__()
        wide = channels * factor
        expand: tuple[nn.Module, ...] = () if factor == 1 else (*normalised(channels, wide, 1), nn.ReLU6())
        depthwise = (*normalised(wide, wide, 3, stride, wide), nn.ReLU6())
        self.body = nn.Sequential(*expand, *depthwise, *normalised(wide, out, 1))
        self.adds = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        """Takes and gives images."""
        return x + self.body(x) if self.adds else self.body(x)


def mobilenetv2() -> nn.Module:
    """Width 1.0 on 224 x 224."""
    layers: list[nn.Module] = [*normalised(3, 32, 3, 2), nn.ReLU6()]
    channels = 32
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for factor, out, count, stride in stages:
        for index in range(count):
            layers.append(Inverted(channels, out, 1 if index else stride, factor))
            channels = out
    layers += [*normalised(channels, 1280, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(1280, 1000))


def mlp() -> nn.Module:
    """784-512-512-10."""
    sizes = (nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    return nn.Sequential(*sizes, nn.Softmax(-1))


def _heads(x: Tensor, count: int) -> Tensor:
    batch, tokens, width = x.shape
    return x.reshape(batch, tokens, count, width // count).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot products, the heads side by side again."""
    scores = q @ k.transpose(-1, -2) / float(q.shape[-1]) ** 0.5
    weights = torch.softmax(scores if mask is None else scores + mask, -1)
    return (weights @ v).transpose(1, 2).flatten(2)


class _Encoder(nn.Module):
    """BERT's layer: attention and a feed-forward net with GELU, each normalised after its residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out, self.up, self.down = nn.Linear(width, width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.first, self.second = nn.LayerNorm(width, 1e-12), nn.LayerNorm(width, 1e-12)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (_heads(made(x), self.heads) for made in (self.query, self.key, self.value))
        x = self.first(x + self.out(attend(q, k, v, mask)))
        return self.second(x + self.down(functional.gelu(self.up(x))))


class Bert(nn.Module):
    """BERT-base: 12 layers of 768, 12 heads, and the pooler."""

    def __init__(self, layers: int = 12, width: int = 768, heads: int = 12, words: int = 30522) -> None:
        super().__init__()
        self.words, self.kinds, self.places = (
            nn.Embedding(words, width),
            nn.Embedding(2, width),
            nn.Embedding(512, width),
        )
        self.norm, self.pool = nn.LayerNorm(width, 1e-12), nn.Linear(width, width)
        self.layers = nn.ModuleList(_Encoder(width, heads) for _ in range(layers))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states [batch, tokens, 768] and what is pooled from the first token."""
        tokens = torch.arange(input_ids.shape[1])
        x = self.norm(self.words(input_ids) + self.places(tokens) + self.kinds(token_type_ids))
        mask = (1.0 - attention_mask[:, None, None, :].float()) * -1e4
        for layer in self.layers:
            x = layer(x, mask)
        return x, torch.tanh(self.pool(x[:, 0]))


class _Decoder(nn.Module):
    """GPT-2's layer on one new token: keys and values are appended to what the cache holds."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.all, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (_heads(part, self.heads) for part in self.all(self.first(x)).chunk(3, -1))
        k, v = torch.cat([keys, k], 2), torch.cat([values, v], 2)
        x = x + self.out(attend(q, k, v, None))
        return x + self.down(functional.gelu(self.up(self.second(x)), approximate="tanh")), k, v


class Gpt2Step(nn.Module):
    """One token of GPT-2 small; the cache is [layers, 2, batch, heads, tokens, 64] in and one token longer out."""

    def __init__(self, layers: int = 12, width: int = 768, heads: int = 12, words: int = 50257) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(1024, width)
        self.norm, self.layers = nn.LayerNorm(width), nn.ModuleList(_Decoder(width, heads) for _ in range(layers))
        nn.init.normal_(self.words.weight, std=0.02)

    def forward(self, ids: Tensor, place: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [batch, 1, words] and the cache with one more token."""
        x, kept = self.words(ids) + self.places(place), list[Tensor]()
        for index, layer in enumerate(self.layers):
            x, keys, values = layer(x, cache[index, 0], cache[index, 1])
            kept.append(torch.stack([keys, values]))
        return functional.linear(self.norm(x), self.words.weight), torch.stack(kept)


_TOKENS: Final = 128


def drawn(module: nn.Module) -> nn.Module:
    """The module with weights that keep activations in range, as trained ones do."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_in")
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            for made, low, high in (
                (part.bias, -0.1, 0.1),
                (part.running_mean, -0.1, 0.1),
                (part.running_var, 0.5, 1.5),
            ):
                nn.init.uniform_(made, low, high)  # type: ignore[arg-type]
    return module


def _images(make: Callable[[], nn.Module], batch: int) -> Recipe:
    return Recipe(drawn(make()), {"image": torch.randn(batch, 3, 224, 224)}, ("logits",))


def _bert(batch: int) -> Recipe:
    ids = torch.randint(0, 30522, (batch, _TOKENS))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    return Recipe(Bert(), inputs, ("hidden", "pooled"))


def _gpt2() -> Recipe:
    cache = torch.randn(12, 2, 1, 12, _TOKENS, 64) * 0.5
    inputs = {"ids": torch.randint(0, 50257, (1, 1)), "place": torch.full((1, 1), _TOKENS), "cache": cache}
    return Recipe(Gpt2Step(), inputs, ("logits", "new_cache"))


# By the number of examples in a batch.
BATCHED: Final[dict[str, Callable[[int], Recipe]]] = {
    "mlp": lambda batch: Recipe(mlp(), {"x": torch.randn(batch, 784)}, ("y",)),
    "mobilenetv2": lambda batch: _images(mobilenetv2, batch),
    "resnet50": lambda batch: _images(resnet50, batch),
    "bert_base": _bert,
}
SINGLE: Final[dict[str, Callable[[], Recipe]]] = {"gpt2_decode": _gpt2}
