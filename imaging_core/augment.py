"""Augmentations of a batch, drawn per image from an explicit generator.

torchvision's v2 transforms draw one set of parameters for the whole batch they are given; these
draw one per image and stay on the device.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Generator, Tensor

from imaging_core.stream import Draws

Augmentation = Literal["none", "flips", "flips-transposes", "traditional"]

CONTRAST = 0.2  # traditional: each image's contrast is scaled by U(1 − 0.2, 1 + 0.2)
BRIGHTNESS = 0.2  # and each of its channels shifted by U(−0.2, 0.2) training standard deviations


Source = Generator | Draws  # a CPU generator, or draws that each image keeps in any batch


def _uniform(source: Source, count: int, *shape: int) -> Tensor:
    """(count, *shape) in [0, 1)."""
    if isinstance(source, Draws):
        return source.uniform(*shape)
    return torch.rand(count, *shape, generator=source)


def none(x: Tensor, generator: Source) -> Tensor:
    """x itself; draws nothing."""
    return x


def _coin(x: Tensor, generator: Source) -> Tensor:
    """(B, 1, 1, 1) bool, true with probability one half."""
    draws = _uniform(generator, len(x)) < 0.5
    return draws.to(x.device).view(-1, 1, 1, 1)


def flips(x: Tensor, generator: Source) -> Tensor:
    """Mirror each image (B, C, H, W) left-right and upside-down, each with probability 1/2."""
    x = torch.where(_coin(x, generator), x.flip(3), x)
    return torch.where(_coin(x, generator), x.flip(2), x)


def flips_transposes(x: Tensor, generator: Source) -> Tensor:
    """`flips`, and a transposition with probability 1/2: the 8 symmetries of the square.

    Raises:
        ValueError: the images are not square.
    """
    if x.shape[2] != x.shape[3]:
        raise ValueError(
            f'augment="flips-transposes" needs square images, got {tuple(x.shape[2:])}; use "flips"'
        )
    x = flips(x, generator)
    return torch.where(_coin(x, generator), x.transpose(2, 3), x)


def traditional(x: Tensor, generator: Source) -> Tensor:
    """Left-right mirror and colour jitter of standardised images (B, C, H, W), per image.

    Ye et al. 2020 name the two and give no strengths: contrast about the image's mean by up to
    20 %, brightness of each channel by up to 0.2 training standard deviations.
    """
    x = torch.where(_coin(x, generator), x.flip(3), x)
    batch, channels = x.shape[:2]
    contrast = 1 + CONTRAST * (2 * _uniform(generator, batch, 1, 1, 1) - 1)
    shift = BRIGHTNESS * (2 * _uniform(generator, batch, channels, 1, 1) - 1)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * contrast.to(x) + mean + shift.to(x)


AUGMENTATIONS: dict[str, Callable[[Tensor, Source], Tensor]] = {
    "none": none,
    "flips": flips,
    "flips-transposes": flips_transposes,
    "traditional": traditional,
}
