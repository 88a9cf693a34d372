"""Other networks that classify images, as recipes: what `recipes` shares with them must not be what was tuned.

Takes nothing; gives recipes by name. Invariant: shapes are those of the published networks, in depth cut where stages
repeat the same layers.

Sources: VGG (Simonyan and Zisserman 2014), ResNet-18 (He et al. 2015), Inception (Szegedy et al. 2014), SqueezeNet
(Iandola et al. 2016), DenseNet (Huang et al. 2016), ResNeXt (Xie et al. 2016), ShuffleNet-V2 (Ma et al. 2018),
MobileNet-V3 (Howard et al. 2019), EfficientNet (Tan and Le 2019), ConvNeXt (Liu et al. 2022), RepVGG (Ding et al.
2021).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

from benchmarks.peers.recipes import Recipe, drawn, normalised


def _head(channels: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000)


def _stem(channels: int) -> tuple[nn.Module, ...]:
    return *normalised(3, channels, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)


class Added(nn.Module):
    """A body added to its input, or to what `side` makes of it, then `after`."""

    def __init__(self, body: nn.Module, side: nn.Module | None = None, after: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.side, self.after = body, side or nn.Identity(), after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Takes and gives images."""
        return self.after(self.body(x) + self.side(x))


class Joined(nn.Module):
    """What several branches make of one input, behind one another along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """Takes and gives images."""
        return torch.cat([branch(x) for branch in self.branches], 1)


def vgg11() -> nn.Module:
    """Eight convolutions and a smaller head than the published one, whose products are those of the perceptron."""
    layers, channels = list[nn.Module](), 3
    for out, pools in (
        (64, True),
        (128, True),
        (256, False),
        (256, True),
        (512, False),
        (512, True),
        (512, False),
        (512, True),
    ):
        layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(), *((nn.MaxPool2d(2),) if pools else ())]
        channels = out
    return nn.Sequential(*layers, *_head(512))


def resnet18() -> nn.Module:
    """Eight pairs of 3x3 convolutions."""
    layers, channels = list(_stem(64)), 64
    for out in (64, 128, 256, 512):
        for index in range(2):
            stride = 2 if out > 64 and not index else 1
            body = nn.Sequential(*normalised(channels, out, 3, stride), nn.ReLU(), *normalised(out, out, 3))
            side = nn.Sequential(*normalised(channels, out, 1, stride)) if channels != out else None
            layers.append(Added(body, side, nn.ReLU()))
            channels = out
    return nn.Sequential(*layers, *_head(512))


def resnext50() -> nn.Module:
    """Groups of 4 to 32 channels in the 3x3 convolutions: one or two bottlenecks a stage."""
    layers, channels = list(_stem(64)), 64
    for stage, width in enumerate((128, 256, 512, 1024)):
        for index in range(2):
            stride, out = (2 if stage and not index else 1), 2 * width
            body = nn.Sequential(
                *normalised(channels, width, 1), nn.ReLU(),
                *normalised(width, width, 3, stride, 32), nn.ReLU(),
                *normalised(width, out, 1),
            )  # fmt: skip
            side = nn.Sequential(*normalised(channels, out, 1, stride)) if not index else None
            layers.append(Added(body, side, nn.ReLU()))
            channels = out
    return nn.Sequential(*layers, *_head(2048))


def densenet121() -> nn.Module:
    """Growth 32; half of each block's layers."""
    layers, channels = list(_stem(64)), 64
    for count in (3, 6, 12, 8):
        for _ in range(count):
            body = (nn.BatchNorm2d(channels), nn.ReLU(), *normalised(channels, 128, 1), nn.ReLU())
            grown = nn.Sequential(*body, nn.Conv2d(128, 32, 3, padding=1, bias=False))
            layers.append(Joined(nn.Identity(), grown))
            channels += 32
        if count != 8:
            halved = channels // 2
            layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, halved, 1, bias=False), nn.AvgPool2d(2)]
            channels = halved
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(), *_head(channels))


def _fire(channels: int, narrow: int, wide: int) -> nn.Module:
    one = nn.Sequential(nn.Conv2d(narrow, wide, 1), nn.ReLU())
    three = nn.Sequential(nn.Conv2d(narrow, wide, 3, padding=1), nn.ReLU())
    return nn.Sequential(nn.Conv2d(channels, narrow, 1), nn.ReLU(), Joined(one, three))


def squeezenet() -> nn.Module:
    """Version 1.1."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)]
    channels = 64
    for narrow, wide, pools in ((16, 64, False), (16, 64, True), (32, 128, False), (32, 128, True),
                                (48, 192, False), (48, 192, False), (64, 256, False), (64, 256, False)):  # fmt: skip
        layers += [_fire(channels, narrow, wide), *((nn.MaxPool2d(3, 2, ceil_mode=True),) if pools else ())]
        channels = 2 * wide
    layers += [nn.Conv2d(channels, 1000, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers)


def inception() -> nn.Module:
    """Two of GoogLeNet's modules on 28x28 behind its stem."""

    def side(given: int, *steps: tuple[int, int]) -> nn.Module:
        layers = list[nn.Module]()
        for out, kernel in steps:
            layers += [*normalised(given, out, kernel), nn.ReLU()]
            given = out
        return nn.Sequential(*layers)

    def module(given: int, a: int, b: tuple[int, int], c: tuple[int, int], d: int) -> nn.Module:
        pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), side(given, (d, 1)))
        return Joined(side(given, (a, 1)), side(given, (b[0], 1), (b[1], 3)), side(given, (c[0], 1), (c[1], 5)), pooled)

    stem = (*_stem(64), side(64, (64, 1), (192, 3)), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(
        *stem, module(192, 64, (96, 128), (16, 32), 32), module(256, 128, (128, 192), (32, 96), 64), *_head(480)
    )


class Shuffle(nn.Module):
    """ShuffleNet-V2's unit: half of the channels pass by, the others are computed; then they are dealt out in turn."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        half, given = out // 2, channels if stride > 1 else out // 2
        self.splits = stride == 1
        self.body = nn.Sequential(
            *normalised(given, half, 1), nn.ReLU(),
            *normalised(half, half, 3, stride, half), *normalised(half, half, 1), nn.ReLU(),
        )  # fmt: skip
        past = nn.Sequential(*normalised(given, given, 3, stride, given), *normalised(given, half, 1), nn.ReLU())
        self.past = nn.Identity() if self.splits else past

    def forward(self, x: Tensor) -> Tensor:
        """Takes and gives images."""
        first, second = x.chunk(2, 1) if self.splits else (x, x)
        joined = torch.cat([self.past(first), self.body(second)], 1)
        batch, channels, height, width = joined.shape
        return joined.reshape(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(joined.shape)


def shufflenetv2() -> nn.Module:
    """Width 1.0."""
    layers: list[nn.Module] = [*normalised(3, 24, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 24
    for out, count in ((116, 4), (232, 8), (464, 4)):
        for index in range(count):
            layers.append(Shuffle(channels, out, 1 if index else 2))
            channels = out
    return nn.Sequential(*layers, *normalised(464, 1024, 1), nn.ReLU(), *_head(1024))


class Squeezed(nn.Module):
    """Channels weighed by what a small perceptron makes of their means."""

    def __init__(self, channels: int, narrow: int, gate: nn.Module, inner: nn.Module) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, narrow, 1), inner, nn.Conv2d(narrow, channels, 1), gate
        )

    def forward(self, x: Tensor) -> Tensor:
        """Takes and gives images."""
        return x * self.weigh(x)


def _bottleneck(sizes: tuple[int, int, int], kernel: int, stride: int, act: nn.Module, squeeze: nn.Module) -> nn.Module:
    """From given channels over wide ones to those that come out; `squeeze` weighs the wide ones."""
    given, wide, out = sizes
    expand = (*normalised(given, wide, 1), act) if wide != given else ()
    depthwise = (*normalised(wide, wide, kernel, stride, wide), act)
    body = nn.Sequential(*expand, *depthwise, squeeze, *normalised(wide, out, 1))
    return Added(body) if stride == 1 and given == out else body


def mobilenetv3() -> nn.Module:
    """The large one."""
    layers: list[nn.Module] = [*normalised(3, 16, 3, 2), nn.Hardswish()]
    given = 16
    for kernel, wide, out, squeezes, hard, stride in (
        (3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1), (5, 72, 40, 1, 0, 2), (5, 120, 40, 1, 0, 1),
        (5, 120, 40, 1, 0, 1), (3, 240, 80, 0, 1, 2), (3, 200, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1),
        (3, 480, 112, 1, 1, 1), (3, 672, 112, 1, 1, 1), (5, 672, 160, 1, 1, 2), (5, 960, 160, 1, 1, 1),
        (5, 960, 160, 1, 1, 1),
    ):  # fmt: skip
        narrow = max(8, wide // 4 // 8 * 8)
        squeeze = Squeezed(wide, narrow, nn.Hardsigmoid(), nn.ReLU()) if squeezes else nn.Identity()
        layers.append(_bottleneck((given, wide, out), kernel, stride, nn.Hardswish() if hard else nn.ReLU(), squeeze))
        given = out
    layers += [*normalised(160, 960, 1), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(960, 1280), nn.Hardswish(), nn.Linear(1280, 1000))


def efficientnetb0() -> nn.Module:
    """As published."""
    layers: list[nn.Module] = [*normalised(3, 32, 3, 2), nn.SiLU()]
    given = 32
    for factor, out, count, kernel, stride in (
        (1, 16, 1, 3, 1), (6, 24, 2, 3, 2), (6, 40, 2, 5, 2), (6, 80, 3, 3, 2), (6, 112, 3, 5, 1), (6, 192, 4, 5, 2),
        (6, 320, 1, 3, 1),
    ):  # fmt: skip
        for index in range(count):
            squeeze = Squeezed(given * factor, given // 4, nn.Sigmoid(), nn.SiLU())
            sizes = (given, given * factor, out)
            layers.append(_bottleneck(sizes, kernel, 1 if index else stride, nn.SiLU(), squeeze))
            given = out
    return nn.Sequential(*layers, *normalised(320, 1280, 1), nn.SiLU(), *_head(1280))


class _ChannelsLast(nn.Module):
    """LayerNorm over the channels of an image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, 1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    """The tiny one's stages with one block each."""
    layers: list[nn.Module] = [nn.Conv2d(3, 96, 4, 4), _ChannelsLast(96)]
    given = 96
    for out in (96, 192, 384, 768):
        if out != given:
            layers += [_ChannelsLast(given), nn.Conv2d(given, out, 2, 2)]
        depthwise = nn.Conv2d(out, out, 7, padding=3, groups=out)
        layers.append(
            Added(
                nn.Sequential(
                    depthwise, _ChannelsLast(out), nn.Conv2d(out, 4 * out, 1), nn.GELU(), nn.Conv2d(4 * out, out, 1)
                )
            )
        )
        given = out
    return nn.Sequential(*layers, *_head(768))


def repvgg() -> nn.Module:
    """As it is deployed: 3x3 convolutions and nothing else, two or three a stage."""
    layers, given = list[nn.Module](), 3
    for out, count in ((48, 1), (48, 2), (96, 3), (192, 3), (1280, 1)):
        for index in range(count):
            layers += [nn.Conv2d(given, out, 3, 1 if index else 2, 1), nn.ReLU()]
            given = out
    return nn.Sequential(*layers, *_head(1280))


def of_one(make: Callable[[], nn.Module], *shape: int) -> Callable[[], Recipe]:
    """The recipe of what takes one tensor, whose first axis is a batch of one."""
    return lambda: Recipe(drawn(make()), {"x": torch.randn(1, *shape)}, ("y",))


IMAGES: Final[dict[str, Callable[[], Recipe]]] = {
    make.__name__: of_one(make, 3, 224, 224)
    for make in (
        vgg11, resnet18, resnext50, densenet121, squeezenet, inception, shufflenetv2, mobilenetv3, efficientnetb0,
        convnext, repvgg,
    )
}  # fmt: skip
