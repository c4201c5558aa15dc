"""The rivals that need no training: each takes a batch and returns its augmented copy.

Masks are drawn per image from an explicit CPU generator.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

CUTOUT_SIDE = (0.125, 0.5)  # of the image's side; the paper says "randomly sized"
RELEASED_ASPECT = (0.3, 1 / 0.3)  # height over width
HIDE_CELLS, HIDE_SHARE = 4, 0.5  # Kumar Singh and Lee, ICCV 2017: a 4 × 4 grid, each hidden by half


def box_keep(
    top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: tuple[int, int]
) -> Tensor:
    """(B, 1, *size) 0/1: 0 inside the box of each image; arguments (B,) in pixels."""
    rows = torch.arange(size[0]).view(1, -1, 1)
    columns = torch.arange(size[1]).view(1, 1, -1)
    top, left, height, width = (a.view(-1, 1, 1) for a in (top, left, height, width))
    inside = (rows >= top) & (rows < top + height) & (columns >= left) & (columns < left + width)
    return (~inside).float().unsqueeze(1)


def cutout_keep(count: int, size: tuple[int, int], generator: Generator) -> Tensor:
    """One square per image, its side uniform in `CUTOUT_SIDE`, centred on a random pixel.

    DeVries and Taylor 2017; a square may reach over the border, so every pixel is hidden about
    as often.
    """
    low, high = CUTOUT_SIDE
    draws = torch.rand(3, count, generator=generator)
    side = (min(size) * (low + (high - low) * draws[0])).round().clamp(min=1)
    top = (draws[1] * size[0] - side / 2).round()
    left = (draws[2] * size[1] - side / 2).round()
    return box_keep(top, left, side, side, size)


def cutout_released_keep(count: int, size: tuple[int, int], generator: Generator) -> Tensor:
    """The released script's boxes: aspect 0.3-3.3, any area that happens to lie in the image.

    It draws the area as U(0, 224) *of the image* and throws away what does not fit, 1,711 draws
    an image. No area above 1 can fit, so drawing U(0, 1) accepts the same boxes as often.
    """
    height, width = size
    box = torch.zeros(4, count)
    waiting = torch.arange(count)
    while len(waiting):
        area, aspect, y, x = torch.rand(4, len(waiting), generator=generator)
        aspect = RELEASED_ASPECT[0] + (RELEASED_ASPECT[1] - RELEASED_ASPECT[0]) * aspect
        tall = (area * height * width * aspect).sqrt().floor()
        wide = (area * height * width / aspect).sqrt().floor()
        top, left = (y * height).floor(), (x * width).floor()
        fits = (top + tall <= height) & (left + wide <= width)
        box[:, waiting[fits]] = torch.stack([top, left, tall, wide])[:, fits]
        waiting = waiting[~fits]
    return box_keep(*box, size)


def hide_and_seek_keep(count: int, size: tuple[int, int], generator: Generator) -> Tensor:
    """Each of 4 × 4 cells hidden with probability one half."""
    hidden = torch.rand(count, 1, HIDE_CELLS, HIDE_CELLS, generator=generator) < HIDE_SHARE
    rows = torch.arange(size[0]) * HIDE_CELLS // size[0]
    columns = torch.arange(size[1]) * HIDE_CELLS // size[1]
    return (~hidden)[:, :, rows][:, :, :, columns].float()


KEEPS: dict[str, Callable[[int, tuple[int, int], Generator], Tensor]] = {
    "cutout": cutout_keep,
    "cutout_released": cutout_released_keep,
    "hide_and_seek": hide_and_seek_keep,
}


def trivial_augment(images: Tensor, mean: Tensor, std: Tensor, generator: Generator) -> Tensor:
    """torchvision's TrivialAugmentWide (Müller and Hutter, ICCV 2021), one draw per image.

    Args:
        images: (B, C, H, W) standardised; the operations work on 8-bit pixels, so these are
            restored with `mean`, `std` (C,) of images in [0, 1] and standardised again.
    """
    # Here: torchvision takes a second to import, and only this arm needs it.
    from torchvision.transforms import TrivialAugmentWide

    mean, std = (a.to(images).view(1, -1, 1, 1) for a in (mean, std))
    pixels = ((images * std + mean) * 255).round().clamp(0, 255).byte().cpu()
    transform = TrivialAugmentWide()
    with torch.random.fork_rng(devices=[]):
        # torchvision draws from the global stream only: lend it ours, and take it back.
        torch.set_rng_state(generator.get_state())
        augmented = torch.stack([transform(image) for image in pixels])
        generator.set_state(torch.get_rng_state())
    return (augmented.to(images) / 255 - mean) / std
