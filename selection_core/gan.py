"""The networks of our class-conditional GAN: spectral normalisation and a projection discriminator.

It is *not* the paper's HistoGAN, whose architecture is not published with it. Spectral
normalisation: Miyato et al. 2018; projection: Miyato and Koyama 2018. Any size whose sides halve
evenly works: 32, 64, 96, 256 × 128.
"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from imaging_core.seeding import initialise
from selection_core.sizes import halvings


def spectral_weight(weight: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """`weight` over its largest singular value, by one power iteration from `u`; and the new u.

    `weight` is (out, ...), seen as a matrix (out, rest); `u` is (out,).
    """
    matrix = weight.flatten(1)
    with torch.no_grad():
        v = functional.normalize(matrix.T @ u, dim=0)
        u = functional.normalize(matrix @ v, dim=0)
    return weight / torch.dot(u, matrix @ v), u


class SpectralConv2d(nn.Conv2d):
    """A convolution of spectral norm 1 (of its weight seen as a matrix)."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("u", torch.ones(self.out_channels))

    def forward(self, x: Tensor) -> Tensor:
        weight, u = spectral_weight(self.weight, self.u)
        self.u.copy_(u)
        return self._conv_forward(x, weight, self.bias)


class SpectralLinear(nn.Linear):
    """A linear map of spectral norm 1."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("u", torch.ones(self.out_features))

    def forward(self, x: Tensor) -> Tensor:
        weight, u = spectral_weight(self.weight, self.u)
        self.u.copy_(u)
        return functional.linear(x, weight, self.bias)


class ClassNorm(nn.Module):
    """Batch norm whose gain and shift are those of the class."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = nn.Linear(classes, channels, bias=False)
        self.shift = nn.Linear(classes, channels, bias=False)

    def forward(self, x: Tensor, onehot: Tensor) -> Tensor:
        gain, shift = self.gain(onehot), self.shift(onehot)
        return self.norm(x) * (1 + gain[:, :, None, None]) + shift[:, :, None, None]


class Generator(nn.Module):
    """(B, latent) noise and (B, classes) one-hot labels → (B, channels, H, W) in [−1, 1]."""

    def __init__(
        self, *, latent: int, classes: int, channels: int, size: tuple[int, int], width: int
    ):
        super().__init__()
        levels = halvings(size)
        self.base = (size[0] >> levels, size[1] >> levels)
        widths = [width * min(2**level, 8) for level in range(levels, -1, -1)]
        self.start = nn.Linear(latent + classes, widths[0] * self.base[0] * self.base[1])
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(ClassNorm(b, classes) for b in widths[1:])
        self.paint = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, z: Tensor, onehot: Tensor) -> Tensor:
        x = self.start(torch.cat([z, onehot], 1)).view(len(z), -1, *self.base)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            # Nearest then convolve: transposed convolutions leave a checkerboard.
            x = functional.interpolate(functional.relu(x), scale_factor=2.0)
            x = norm(conv(x), onehot)
        return torch.tanh(self.paint(functional.relu(x)))


class Discriminator(nn.Module):
    """(B, channels, H, W) and one-hot labels → (B,) realness: ψ(h) + ⟨embed(y), h⟩."""

    def __init__(self, *, classes: int, channels: int, size: tuple[int, int], width: int):
        super().__init__()
        widths = [width * min(2**level, 8) for level in range(halvings(size) + 1)]
        layers: list[nn.Module] = [SpectralConv2d(channels, widths[0], 3, padding=1)]
        for a, b in itertools.pairwise(widths):
            layers += [nn.LeakyReLU(0.1), SpectralConv2d(a, b, 4, stride=2, padding=1)]
        self.trunk = nn.Sequential(*layers, nn.LeakyReLU(0.1))
        self.realness = SpectralLinear(widths[-1], 1)
        self.embed = SpectralLinear(classes, widths[-1], bias=False)

    def forward(self, x: Tensor, onehot: Tensor) -> Tensor:
        h = self.trunk(x).sum((2, 3))
        return self.realness(h).squeeze(1) + (self.embed(onehot) * h).sum(1)


@torch.no_grad()
def draw_network(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """`module` with weights, power-iteration vectors and neutral class norms from `generator`."""
    initialise(module, generator)
    for layer in module.modules():
        if isinstance(layer, SpectralConv2d | SpectralLinear):
            u = torch.randn(layer.u.shape, generator=generator)
            layer.u.copy_(functional.normalize(u, dim=0))
        elif isinstance(layer, ClassNorm):
            nn.init.zeros_(layer.gain.weight)
            nn.init.zeros_(layer.shift.weight)
        elif isinstance(layer, Generator):
            # He's fan-out of one output channel would saturate tanh before the first step.
            layer.paint.weight.mul_(0.1)
    return module
