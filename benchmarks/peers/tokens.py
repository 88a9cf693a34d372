"""Networks of tokens with a twist, as recipes: experts that data choose, and positions relative to each other.

Takes nothing; gives recipes by name. Invariant: as in `sequences`.

Sources: mixtures of experts (Shazeer et al. 2017) with the sizes of Granite 3.0 1B-A400M (IBM 2024), DeBERTa (He et al.
2020) with the sizes of DeBERTa-v3-base.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.peers.recipes import Recipe

_WORDS: Final = 8000


class _Experts(nn.Module):
    """Eight of 32 experts of 512 units behind a gate, at a width of 1024, whose matrices are looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(1024, 32, bias=False)
        self.up = nn.Parameter(torch.randn(32, 1024, 1024) / 32)
        self.down = nn.Parameter(torch.randn(32, 1024, 512) / 23)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.shape[0]
        shares, chosen = torch.topk(functional.softmax(self.router(x), -1), 8)
        shares = shares / shares.sum(-1, keepdim=True)
        each, chosen = x.repeat_interleave(8, 0), chosen.flatten()
        gate, up = torch.bmm(self.up[chosen], each.unsqueeze(-1)).squeeze(-1).chunk(2, -1)
        made = torch.bmm(self.down[chosen], (functional.silu(gate) * up).unsqueeze(-1)).squeeze(-1)
        return x + (made * shares.reshape(-1, 1)).reshape(tokens, 8, 1024).sum(1)


class _Relative(nn.Module):
    """Attention by contents, and by contents and how far apart tokens are, either way round."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(768, 768) for _ in range(4))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (12, 64)).transpose(-2, -3)

    def forward(self, x: Tensor, far: Tensor, bucket: Tensor) -> Tensor:
        q, k, v = self._heads(self.query(x)), self._heads(self.key(x)), self._heads(self.value(x))
        by_key, by_query = self._heads(self.key(far)), self._heads(self.query(far))
        index = bucket.expand(*q.shape[:2], -1, -1)
        scores = q @ k.transpose(-1, -2)
        scores = scores + torch.gather(q @ by_key.transpose(-1, -2), -1, index)
        scores = scores + torch.gather(k @ by_query.transpose(-1, -2), -1, index).transpose(-1, -2)
        weights = functional.softmax(scores / math.sqrt(3 * 64), -1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class _Deberta(nn.Module):
    """Two layers on 128 tokens; 512 places, one for each distance up to 256."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.far = nn.Embedding(_WORDS, 768), nn.Parameter(torch.randn(512, 768))
        self.first, self.places = nn.LayerNorm(768), nn.LayerNorm(768)
        self.attention = nn.ModuleList(_Relative() for _ in range(2))
        self.feed = nn.ModuleList(
            nn.Sequential(nn.Linear(768, 3072), nn.GELU(), nn.Linear(3072, 768)) for _ in range(2)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(768) for _ in range(4))

    def forward(self, ids: Tensor) -> Tensor:
        x, far = self.first(self.words(ids)), self.places(self.far)
        order = torch.arange(ids.shape[1])
        bucket = (order[:, None] - order[None, :] + 256).clamp(0, 511)
        for index, (attention, feed) in enumerate(zip(self.attention, self.feed, strict=True)):
            x = self.norms[2 * index](x + attention(x, far, bucket))
            x = self.norms[2 * index + 1](x + feed(x))
        return x


def _experts(tokens: int) -> Recipe:
    return Recipe(_Experts(), {"x": torch.randn(tokens, 1024)}, ("y",))


TOKENS: Final[dict[str, Callable[[], Recipe]]] = {
    "experts_decode": lambda: _experts(1),
    "experts": lambda: _experts(4),
    "deberta": lambda: Recipe(_Deberta(), {"ids": torch.randint(0, _WORDS, (1, 128))}, ("y",)),
}
