"""Other networks that give a value for every pixel, sample or voxel, as recipes.

Takes nothing; gives recipes by name. Invariant: shapes are those of the published networks, in depth cut where stages
repeat the same layers.

Sources: U-Net (Ronneberger et al. 2015) and its volumes (Cicek et al. 2016), DeepLab-V3 (Chen et al. 2017), DCGAN
(Radford et al. 2015), ESPCN (Shi et al. 2016), RRDB (Wang et al. 2018), R3D (Tran et al. 2017), latent diffusion
(Rombach et al. 2022), YOLO's neck (Jocher 2020), WaveNet (van den Oord et al. 2016), HiFi-GAN (Kong et al. 2020), NeRF
(Mildenhall et al. 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.peers.images import Added, Joined, of_one
from benchmarks.peers.recipes import Recipe, attend, normalised


class _UNet(nn.Module):
    """Three levels down and up, of 32 to 256 channels."""

    def __init__(self) -> None:
        super().__init__()
        widths = (32, 64, 128, 256)
        self.down = nn.ModuleList(self._pair(given, out) for given, out in zip((3, *widths), widths, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * out, out, 2, 2) for out in reversed(widths[:-1]))
        self.join = nn.ModuleList(self._pair(2 * out, out) for out in reversed(widths[:-1]))
        self.last = nn.Conv2d(32, 2, 1)

    @staticmethod
    def _pair(given: int, out: int) -> nn.Module:
        return nn.Sequential(*normalised(given, out, 3), nn.ReLU(), *normalised(out, out, 3), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Scores of two classes for each pixel."""
        kept = list[Tensor]()
        for index, part in enumerate(self.down):
            x = part(functional.max_pool2d(x, 2) if index else x)
            kept.append(x)
        for up, join, past in zip(self.up, self.join, reversed(kept[:-1]), strict=True):
            x = join(torch.cat([past, up(x)], 1))
        return self.last(x)


class _Pooled(nn.Module):
    """The mean of an image at each of its pixels again."""

    def __init__(self, given: int, out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(given, out, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return functional.interpolate(self.body(x), x.shape[2:], mode="bilinear", align_corners=False)


def unet() -> nn.Module:
    """Scores of two classes for each pixel."""
    return _UNet()


def deeplab_head() -> nn.Module:
    """DeepLab-V3's head on 512 channels of 28x28, its scores drawn to 224x224."""

    def dilated(rate: int) -> nn.Module:
        side = nn.Conv2d(512, 128, 3, padding=rate, dilation=rate, bias=False)
        return nn.Sequential(side, nn.BatchNorm2d(128), nn.ReLU())

    one = nn.Sequential(*normalised(512, 128, 1), nn.ReLU())
    joined = Joined(one, dilated(6), dilated(12), dilated(18), _Pooled(512, 128))
    tail = (*normalised(640, 128, 1), nn.ReLU(), *normalised(128, 128, 3), nn.ReLU(), nn.Conv2d(128, 21, 1))
    return nn.Sequential(joined, *tail, nn.Upsample(scale_factor=8, mode="bilinear", align_corners=False))


def dcgan() -> nn.Module:
    """The generator of images of 64x64 from 100 numbers."""
    layers, given = list[nn.Module](), 100
    for out, stride in ((512, 1), (256, 2), (128, 2), (64, 2)):
        side = nn.ConvTranspose2d(given, out, 4, stride, 0 if stride == 1 else 1, bias=False)
        layers += [side, nn.BatchNorm2d(out), nn.ReLU()]
        given = out
    return nn.Sequential(*layers, nn.ConvTranspose2d(given, 3, 4, 2, 1, bias=False), nn.Tanh())


def espcn() -> nn.Module:
    """Three times as many pixels along each axis."""
    body = (nn.Conv2d(1, 64, 5, padding=2), nn.Tanh(), nn.Conv2d(64, 32, 3, padding=1), nn.Tanh())
    return nn.Sequential(*body, nn.Conv2d(32, 9, 3, padding=1), nn.PixelShuffle(3))


def r3d() -> nn.Module:
    """The first stages of a residual network of videos."""

    def side(given: int, out: int, stride: int = 1, kernel: int = 3) -> tuple[nn.Module, nn.Module]:
        return nn.Conv3d(given, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm3d(out)

    layers: list[nn.Module] = [
        nn.Conv3d(3, 64, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
        nn.BatchNorm3d(64),
        nn.ReLU(),
    ]
    given = 64
    for out in (64, 128, 256):
        body = nn.Sequential(*side(given, out, 1 if out == given else 2), nn.ReLU(), *side(out, out))
        layers.append(Added(body, None if out == given else nn.Sequential(*side(given, out, 2, 1)), nn.ReLU()))
        given = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(256, 400))


class _Unet3d(nn.Module):
    """Two levels of a volume of 32 x 32 x 32."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.deep, self.last = self._pair(1, 16, 32), self._pair(32, 32, 64), self._pair(96, 32, 32)
        self.up, self.head = nn.ConvTranspose3d(64, 64, 2, 2), nn.Conv3d(32, 3, 1)

    @staticmethod
    def _pair(given: int, between: int, out: int) -> nn.Module:
        sides = (nn.Conv3d(given, between, 3, padding=1), nn.Conv3d(between, out, 3, padding=1))
        return nn.Sequential(
            sides[0], nn.InstanceNorm3d(between), nn.ReLU(), sides[1], nn.InstanceNorm3d(out), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        past = self.first(x)
        deep = self.up(self.deep(functional.max_pool3d(past, 2)))
        return self.head(self.last(torch.cat([past, deep], 1)))


def unet3d() -> nn.Module:
    """Scores of three classes for each voxel."""
    return _Unet3d()


class _Dense(nn.Module):
    """RRDB's block: five convolutions, each of all that was made before."""

    def __init__(self, channels: int = 64, growth: int = 32) -> None:
        super().__init__()
        widths = [channels + index * growth for index in range(5)]
        self.parts = nn.ModuleList(
            nn.Conv2d(given, channels if given == widths[-1] else growth, 3, padding=1) for given in widths
        )

    def forward(self, x: Tensor) -> Tensor:
        kept = [x]
        for part in self.parts[:-1]:
            kept.append(functional.leaky_relu(part(torch.cat(kept, 1)), 0.2))
        return x + 0.2 * self.parts[-1](torch.cat(kept, 1))


def rrdb() -> nn.Module:
    """Two blocks on 64 x 64, and twice as many pixels by repeating them."""
    tail = (
        nn.Upsample(scale_factor=2),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(64, 3, 3, padding=1),
    )
    return nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), _Dense(), _Dense(), *tail)


class _Pixels(nn.Module):
    """Attention of an image's pixels, one head, beside their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.all, self.out = (
            nn.GroupNorm(32, channels),
            nn.Conv2d(channels, 3 * channels, 1),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.flatten(2).transpose(1, 2)[:, None] for part in self.all(self.norm(x)).chunk(3, 1))
        return x + self.out(attend(q, k, v, None).transpose(1, 2).reshape(x.shape))


def _residual(given: int, out: int) -> nn.Module:
    body = (nn.GroupNorm(32, given), nn.SiLU(), nn.Conv2d(given, out, 3, padding=1), nn.GroupNorm(32, out), nn.SiLU())
    side = nn.Conv2d(given, out, 1) if given != out else None
    return Added(nn.Sequential(*body, nn.Conv2d(out, out, 3, padding=1)), side)


def diffusion() -> nn.Module:
    """Latent diffusion's decoder from 16 x 16, its widths halved."""
    layers: list[nn.Module] = [nn.Conv2d(4, 256, 3, padding=1), _residual(256, 256), _Pixels(256), _residual(256, 256)]
    given = 256
    for out in (256, 128, 64):
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(given, given, 3, padding=1), _residual(given, out)]
        given = out
    return nn.Sequential(*layers, nn.GroupNorm(32, given), nn.SiLU(), nn.Conv2d(given, 3, 3, padding=1))


def _silu(given: int, out: int, kernel: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(*normalised(given, out, kernel, stride), nn.SiLU())


class _Csp(nn.Module):
    """Half of the channels through a bottleneck, beside the other half."""

    def __init__(self, given: int, out: int) -> None:
        super().__init__()
        half = out // 2
        self.past, self.first, self.last = _silu(given, half, 1), _silu(given, half, 1), _silu(out, out, 1)
        self.body = nn.Sequential(_silu(half, half, 1), _silu(half, half, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([self.body(self.first(x)), self.past(x)], 1))


class _Pyramid(nn.Module):
    """YOLO's neck on features of 40 x 40 and 20 x 20: pools, down, up, and scores with their boxes."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.first, self.last = _silu(128, 256, 3, 2), _silu(256, 128, 1), _silu(512, 256, 1)
        self.small, self.large = _Csp(256, 128), _Csp(256, 256)
        self.heads = nn.ModuleList((nn.Conv2d(128, 255, 1), nn.Conv2d(256, 255, 1)))

    def forward(self, x: Tensor) -> Tensor:
        pooled = [self.first(self.down(x))]
        for _ in range(3):
            pooled.append(functional.max_pool2d(pooled[-1], 5, 1, 2))
        deep = self.large(self.last(torch.cat(pooled, 1)))
        up = functional.interpolate(deep[:, :128], scale_factor=2.0)
        found = [
            head(part).flatten(2)
            for head, part in zip(self.heads, (self.small(torch.cat([x, up], 1)), deep), strict=True)
        ]
        return torch.sigmoid(torch.cat(found, 2)).transpose(1, 2)


def yolo_neck() -> nn.Module:
    """All boxes of two scales."""
    return _Pyramid()


class _Gated(nn.Module):
    """WaveNet's layer: two dilated convolutions, one the gate of the other."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.past, self.both = dilation, nn.Conv1d(channels, 2 * channels, 2, dilation=dilation)
        self.out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        values, gate = self.both(functional.pad(x, (self.past, 0))).chunk(2, 1)
        return x + self.out(torch.tanh(values) * torch.sigmoid(gate))


def wavenet() -> nn.Module:
    """Ten layers on 2048 samples."""
    return nn.Sequential(nn.Conv1d(1, 64, 1), *(_Gated(64, 2**step) for step in range(10)), nn.Conv1d(64, 256, 1))


def hifigan() -> nn.Module:
    """Two of the generator's stages: eight times as many samples each, and dilated convolutions."""
    layers, given = [nn.Conv1d(80, 256, 7, padding=3)], 256
    stages = list[nn.Module](layers)
    for out in (128, 64):
        stages += [nn.LeakyReLU(0.1), nn.ConvTranspose1d(given, out, 16, 8, 4)]
        for kernel, dilation in ((3, 1), (3, 3), (7, 5)):
            side = nn.Conv1d(out, out, kernel, padding=dilation * (kernel // 2), dilation=dilation)
            stages.append(Added(nn.Sequential(nn.LeakyReLU(0.1), side)))
        given = out
    return nn.Sequential(*stages, nn.LeakyReLU(0.1), nn.Conv1d(given, 1, 7, padding=3), nn.Tanh())


def nerf() -> nn.Module:
    """1024 points through eight layers of 256."""
    layers, given = list[nn.Module](), 63
    for _ in range(8):
        layers += [nn.Linear(given, 256), nn.ReLU()]
        given = 256
    return nn.Sequential(*layers, nn.Linear(256, 4))


PIXELS: Final[dict[str, Callable[[], Recipe]]] = {
    make.__name__: of_one(make, *shape)
    for make, shape in (
        (unet, (3, 256, 256)), (deeplab_head, (512, 28, 28)), (dcgan, (100, 1, 1)), (espcn, (1, 224, 224)),
        (r3d, (3, 8, 112, 112)), (unet3d, (1, 32, 32, 32)), (rrdb, (3, 64, 64)), (diffusion, (4, 16, 16)),
        (yolo_neck, (128, 40, 40)), (wavenet, (1, 2048)), (hifigan, (80, 32)), (nerf, (1024, 63)),
    )
}  # fmt: skip
