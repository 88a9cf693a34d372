"""Other networks of tokens, sounds, points and tables, as recipes: few layers each, at their published widths.

Takes nothing; gives recipes by name. Invariant: no layer is one of `recipes`' at its shape, but where a network shares
it by its design.

Sources: ViT (Dosovitskiy et al. 2020), MLP-Mixer (Tolstikhin et al. 2021), GPT-2 (Radford et al. 2019), Llama (Touvron
et al. 2023; grouped heads as in Ainslie et al. 2023), Conformer (Gulati et al. 2020), TCN (Bai et al. 2018), PointNet
(Qi et al. 2016), DLRM (Naumov et al. 2019), sentences by convolution (Kim 2014), Swin (Liu et al. 2021), DETR (Carion
et al. 2020), graph convolution (Kipf and Welling 2016).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.peers.recipes import Recipe, attend

_WORDS: Final = 8000


def _split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class _Attention(nn.Module):
    """Heads of one projection of the input, causal or not."""

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.all, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (_split(part, self.heads) for part in self.all(x).chunk(3, -1))
        tokens = x.shape[1]
        mask = torch.full((tokens, tokens), -1e9).triu(1) if self.causal else None
        return self.out(attend(q, k, v, mask))


class _Layer(nn.Module):
    """A transformer's layer, normalised before each half."""

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = _Attention(width, heads, causal)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.first(x))
        return x + self.feed(self.second(x))


class _Vit(nn.Module):
    """ViT-S/16, three layers: 197 tokens of 384."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.first = nn.Conv2d(3, 384, 16, 16), nn.Parameter(torch.randn(1, 1, 384))
        self.places = nn.Parameter(torch.randn(1, 197, 384) * 0.02)
        self.layers = nn.Sequential(*(_Layer(384, 6) for _ in range(3)), nn.LayerNorm(384))
        self.head = nn.Linear(384, 1000)

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.first, self.patches(x).flatten(2).transpose(1, 2)], 1) + self.places
        return self.head(self.layers(tokens)[:, 0])


class _Gpt2(nn.Module):
    """GPT-2 small, two layers, a whole prompt at once; logits of the last token."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(_WORDS, 768), nn.Embedding(1024, 768)
        self.layers = nn.Sequential(*(_Layer(768, 12, causal=True) for _ in range(2)), nn.LayerNorm(768))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.layers(self.words(ids) + self.places(torch.arange(ids.shape[1])))
        return functional.linear(x[:, -1], self.words.weight)


class _Mixer(nn.Module):
    """MLP-Mixer-S/16, three layers: 196 tokens of 512."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 512, 16, 16)
        self.norms = nn.ModuleList(nn.LayerNorm(512) for _ in range(6))
        self.tokens = nn.ModuleList(
            nn.Sequential(nn.Linear(196, 256), nn.GELU(), nn.Linear(256, 196)) for _ in range(3)
        )
        self.wide = nn.ModuleList(
            nn.Sequential(nn.Linear(512, 2048), nn.GELU(), nn.Linear(2048, 512)) for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        for index, (tokens, wide) in enumerate(zip(self.tokens, self.wide, strict=True)):
            x = x + tokens(self.norms[2 * index](x).transpose(1, 2)).transpose(1, 2)
            x = x + wide(self.norms[2 * index + 1](x))
        return x.mean(1)


class _Rms(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def _turned(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary places: pairs of halves, turned."""
    first, second = x.chunk(2, -1)
    return x * angles.cos() + torch.cat([-second, first], -1) * angles.sin()


class _LlamaLayer(nn.Module):
    """Width 1024, 16 heads that share 4 of keys and values, 2816 units behind a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = _Rms(1024), _Rms(1024)
        self.query, self.out = nn.Linear(1024, 1024, bias=False), nn.Linear(1024, 1024, bias=False)
        self.key, self.value = nn.Linear(1024, 256, bias=False), nn.Linear(1024, 256, bias=False)
        self.gate, self.up = nn.Linear(1024, 2816, bias=False), nn.Linear(1024, 2816, bias=False)
        self.down = nn.Linear(2816, 1024, bias=False)

    def forward(
        self, x: Tensor, places: Tensor, keys: Tensor | None, values: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        y = self.first(x)
        angles = places[:, None] / 10000 ** (torch.arange(0, 64, 2) / 64.0).repeat(2)
        q = _turned(_split(self.query(y), 16), angles)
        k, v = _turned(_split(self.key(y), 4), angles), _split(self.value(y), 4)
        if keys is not None and values is not None:
            k, v = torch.cat([keys, k], 2), torch.cat([values, v], 2)
        tokens = x.shape[1]
        mask = torch.full((tokens, tokens), -1e9).triu(1) if keys is None else None
        x = x + self.out(attend(q, k.repeat_interleave(4, 1), v.repeat_interleave(4, 1), mask))
        y = self.second(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y)), k, v


class _Llama(nn.Module):
    """Two layers; with a cache one more token behind it, without one a whole prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.norm = nn.ModuleList(_LlamaLayer() for _ in range(2)), _Rms(1024)

    def forward(self, x: Tensor, places: Tensor, cache: Tensor | None = None) -> Tensor:
        for index, layer in enumerate(self.layers):
            held = (None, None) if cache is None else (cache[index, 0], cache[index, 1])
            x, _, _ = layer(x, places, *held)
        return self.norm(x)


class _Conformer(nn.Module):
    """One layer of 256 on 200 frames: two halves of a feed-forward net around attention and a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(256) for _ in range(5))
        self.feeds = nn.ModuleList(
            nn.Sequential(nn.Linear(256, 1024), nn.SiLU(), nn.Linear(1024, 256)) for _ in range(2)
        )
        self.attention, self.widen, self.last = _Attention(256, 4), nn.Conv1d(256, 512, 1), nn.Conv1d(256, 256, 1)
        self.depthwise = nn.Sequential(nn.Conv1d(256, 256, 31, padding=15, groups=256), nn.BatchNorm1d(256), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5 * self.feeds[0](self.norms[0](x))
        x = x + self.attention(self.norms[1](x))
        y = functional.glu(self.widen(self.norms[2](x).transpose(1, 2)), 1)
        x = x + self.last(self.depthwise(y)).transpose(1, 2)
        return self.norms[4](x + 0.5 * self.feeds[1](self.norms[3](x)))


class _Causal(nn.Module):
    """A TCN's layer: a dilated convolution that sees only what came before, added to its input."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.past, self.body = 2 * dilation, nn.Conv1d(channels, channels, 3, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return x + functional.relu(self.body(functional.pad(x, (self.past, 0))))


class _Recurrent(nn.Module):
    """Two recurrent layers, both ways, and a class for every step."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.body, self.head = kind(80, 256, 2, batch_first=True, bidirectional=True), nn.Linear(512, 64)

    def forward(self, x: Tensor) -> Tensor:
        return torch.log_softmax(self.head(self.body(x)[0]), -1)


class _PointNet(nn.Module):
    """1024 points to 40 classes."""

    def __init__(self) -> None:
        super().__init__()
        layers, given = list[nn.Module](), 3
        for out in (64, 64, 64, 128, 1024):
            layers += [nn.Conv1d(given, out, 1), nn.BatchNorm1d(out), nn.ReLU()]
            given = out
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 40))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).amax(2))


class _Dlrm(nn.Module):
    """26 tables of 1000 rows, 13 numbers, products of all pairs; 64 requests."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(1000, 64) for _ in range(26))
        self.bottom = nn.Sequential(
            nn.Linear(13, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU()
        )
        self.top = nn.Sequential(
            nn.Linear(64 + 351, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 1), nn.Sigmoid()
        )
        pairs = torch.tril_indices(27, 27, -1)
        self.places = nn.Buffer(pairs[0] * 27 + pairs[1])

    def forward(self, numbers: Tensor, kinds: Tensor) -> Tensor:
        dense = self.bottom(numbers)
        rows = torch.stack([dense, *(table(kinds[:, index]) for index, table in enumerate(self.tables))], 1)
        pairs = (rows @ rows.transpose(1, 2)).flatten(1)
        return self.top(torch.cat([dense, pairs.index_select(1, self.places)], 1))


class _TextCnn(nn.Module):
    """Windows of 3, 4 and 5 of 64 words, 8 sentences."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(_WORDS, 128)
        self.windows = nn.ModuleList(nn.Conv1d(128, 100, size) for size in (3, 4, 5))
        self.head = nn.Linear(300, 5)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids).transpose(1, 2)
        return self.head(torch.cat([functional.relu(window(x)).amax(2) for window in self.windows], 1))


class _Windows(nn.Module):
    """Swin's block on 56 x 56 pixels of 96: attention inside of windows of 7 x 7, every second time moved by three."""

    def __init__(self, moved: int) -> None:
        super().__init__()
        self.moved, self.attention = moved, _Attention(96, 3)
        self.first, self.second = nn.LayerNorm(96), nn.LayerNorm(96)
        self.feed = nn.Sequential(nn.Linear(96, 384), nn.GELU(), nn.Linear(384, 96))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y = torch.roll(y, (-self.moved, -self.moved), (1, 2)) if self.moved else y
        windows = y.reshape(1, 8, 7, 8, 7, 96).transpose(2, 3).reshape(64, 49, 96)
        y = self.attention(windows).reshape(1, 8, 8, 7, 7, 96).transpose(2, 3).reshape(1, 56, 56, 96)
        x = x + (torch.roll(y, (self.moved, self.moved), (1, 2)) if self.moved else y)
        return x + self.feed(self.second(x))


class _Objects(nn.Module):
    """DETR's decoder, two layers: 100 queries look at each other and at 850 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, 100, 256))
        self.own = nn.ModuleList(_Attention(256, 8) for _ in range(2))
        self.asked, self.out = (nn.ModuleList(nn.Linear(256, 256) for _ in range(2)) for _ in range(2))
        self.told = nn.ModuleList(nn.Linear(256, 512) for _ in range(2))
        self.feeds = nn.ModuleList(
            nn.Sequential(nn.Linear(256, 2048), nn.ReLU(), nn.Linear(2048, 256)) for _ in range(2)
        )
        self.norms, self.head = nn.ModuleList(nn.LayerNorm(256) for _ in range(6)), nn.Linear(256, 96)

    def forward(self, x: Tensor) -> Tensor:
        y = self.queries
        for index, (own, asked, told, out) in enumerate(zip(self.own, self.asked, self.told, self.out, strict=True)):
            first, second, third = self.norms[3 * index : 3 * index + 3]
            y = first(y + own(y))
            k, v = (_split(part, 8) for part in told(x).chunk(2, -1))
            y = second(y + out(attend(_split(asked(y), 8), k, v, None)))
            y = third(y + self.feeds[index](y))
        return self.head(y)


class _Graph(nn.Module):
    """Two graph convolutions over 5000 edges of 1000 nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 16)

    def forward(self, x: Tensor, begin: Tensor, end: Tensor) -> Tensor:
        for layer in (self.first, self.second):
            y = layer(x)
            x = torch.relu(torch.zeros_like(y).scatter_add(0, end[:, None].expand(-1, y.shape[1]), y[begin]))
        return x


def _subsampling() -> nn.Module:
    """What stands before an encoder of speech: a quarter of the frames, a quarter of the 80 bands."""
    return nn.Sequential(nn.Conv2d(1, 256, 3, 2), nn.ReLU(), nn.Conv2d(256, 256, 3, 2), nn.ReLU())


def _graph() -> Recipe:
    edges = {name: torch.randint(0, 1000, (5000,)) for name in ("begin", "end")}
    return Recipe(_Graph(), {"x": torch.randn(1000, 64), **edges}, ("y",))


def _tcn() -> nn.Module:
    return nn.Sequential(nn.Conv1d(40, 64, 1), *(_Causal(64, 2**step) for step in range(6)), nn.Conv1d(64, 10, 1))


def _autoencoder() -> nn.Module:
    sizes, layers = (640, 128, 128, 8, 128, 128, 640), list[nn.Module]()
    for given, out in itertools.pairwise(sizes):
        layers += [nn.Linear(given, out), nn.BatchNorm1d(out), nn.ReLU()]
    return nn.Sequential(*layers[:-2])


def _on(make: Callable[[], nn.Module], *shape: int) -> Callable[[], Recipe]:
    return lambda: Recipe(make(), {"x": torch.randn(*shape)}, ("y",))


def _ids(make: Callable[[], nn.Module], *shape: int) -> Callable[[], Recipe]:
    return lambda: Recipe(make(), {"ids": torch.randint(0, _WORDS, shape)}, ("y",))


def _llama(tokens: int, past: int) -> Recipe:
    places = torch.arange(past, past + tokens, dtype=torch.float32)
    inputs = {"x": torch.randn(1, tokens, 1024), "places": places}
    if past:
        inputs["cache"] = torch.randn(2, 2, 1, 4, past, 64)
    return Recipe(_Llama(), inputs, ("y",))


def _dlrm() -> Recipe:
    return Recipe(_Dlrm(), {"numbers": torch.randn(64, 13), "kinds": torch.randint(0, 1000, (64, 26))}, ("y",))


SEQUENCES: Final[dict[str, Callable[[], Recipe]]] = {
    "vit": _on(_Vit, 1, 3, 224, 224),
    "mixer": _on(_Mixer, 1, 3, 224, 224),
    "gpt2_prompt": _ids(_Gpt2, 1, 128),
    "gpt2_long": _ids(_Gpt2, 1, 512),
    "llama_prompt": lambda: _llama(128, 0),
    "llama_decode": lambda: _llama(1, 256),
    "conformer": _on(_Conformer, 1, 200, 256),
    "tcn": _on(_tcn, 1, 40, 400),
    "lstm": _on(lambda: _Recurrent(nn.LSTM), 1, 100, 80),
    "gru": _on(lambda: _Recurrent(nn.GRU), 1, 100, 80),
    "pointnet": _on(_PointNet, 1, 3, 1024),
    "dlrm": _dlrm,
    "swin": _on(lambda: nn.Sequential(_Windows(0), _Windows(3)), 1, 56, 56, 96),
    "detr": _on(_Objects, 1, 850, 256),
    "gcn": _graph,
    "subsampling": _on(_subsampling, 1, 1, 400, 80),
    "textcnn": _ids(_TextCnn, 8, 64),
    "autoencoder": _on(_autoencoder, 32, 640),
}
