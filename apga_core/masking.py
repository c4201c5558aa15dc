"""From the policy's probabilities to masked images: batched, no loop, no trip through numpy.

`keep` masks are 0/1 with 1 = the pixel stays. Images are standardised, so a pixel value of 0 in
the file is not 0 here: the fill of `zero` is passed in.
"""

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from apga_core.learner import to_device


def aid_keep(logits: Tensor) -> Tensor:
    """The aid mask erases p < 0.5 (Sec. 2.1); p = 0.5 stays."""
    return (logits >= 0).to(logits.dtype)


def to_pixels(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """Each cell of a coarse (B, 1, h, w) grid repeated over its pixels: (B, 1, *size)."""
    batch, channels, height, width = grid.shape
    if (height, width) == size:
        return grid
    down, right = size[0] // height, size[1] // width
    if (down * height, right * width) != size:
        return F.interpolate(grid, size=size, mode="nearest")
    # The same, in a tenth of the time on a CPU.
    cells = grid.view(batch, channels, height, 1, width, 1)
    return cells.expand(-1, -1, -1, down, -1, right).reshape(batch, channels, *size)


def to_grid(logits: Tensor, grid: int) -> Tensor:
    """Mean logit of each cell of a `grid` × `grid` layout; grid 0 leaves one cell per pixel."""
    if grid == 0 or logits.shape[-2:] == (grid, grid):
        return logits
    return F.adaptive_avg_pool2d(logits, (grid, grid))


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (B, C, H, W), `sigma` in pixels, edges mirrored.

    Two matrix products: for kernels of a third of the side they cost less than convolutions.
    """
    rows, columns = (
        _blur_matrix(side, sigma, images.dtype, images.device) for side in images.shape[-2:]
    )
    return rows.T @ images @ columns


@cache
def _blur_matrix(side: int, sigma: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(side, side): row i is the blur of a line whose only 1 is at i."""
    # 2.5 sigma holds 98.8 % of the kernel; mirroring needs a radius below the image's side.
    radius = min(math.ceil(2.5 * sigma), side - 1)
    at = torch.arange(-radius, radius + 1, dtype=dtype, device=device)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = kernel / kernel.sum()
    lines = torch.eye(side, dtype=dtype, device=device).unsqueeze(1)
    return F.conv1d(F.pad(lines, (radius, radius), mode="reflect"), kernel.view(1, 1, -1))[:, 0]


def fill_images(images: Tensor, kind: str, *, black: Tensor, blur_sigma: float) -> Tensor:
    """What an erased pixel becomes, in the shape of standardised `images` or broadcast to it.

    `zero` is a black pixel of the file (`black`, (C,), is 0 after standardisation), as in the
    paper; `mean` the training set's mean, which standardisation puts at 0; `blur` the image
    itself without detail finer than `blur_sigma` pixels.
    """
    if kind == "blur":
        return gaussian_blur(images, blur_sigma)
    if kind == "mean":
        return torch.zeros(1, 1, 1, 1, dtype=images.dtype, device=images.device)
    return black.to(images).view(1, -1, 1, 1)


def erase(images: Tensor, keep: Tensor, fill: Tensor) -> Tensor:
    """`images` where `keep` is 1 and `fill` where it is 0, exactly; soft values blend them.

    `images` (B, C, H, W), `keep` (B, 1, H, W) or (K, B, 1, H, W); all three are broadcast.
    """
    return torch.lerp(fill, images, keep)


def empty_masks(keep: Tensor) -> Tensor:
    """(B,) bool: nothing of the image is kept."""
    return keep.flatten(1).sum(dim=1) == 0


def keep_all_where_empty(keep: Tensor) -> Tensor:
    """An empty aid mask keeps the original image, so that a batch keeps its classes.

    Line 17 of Algorithm 1 would train on a black image with a real label; skipping such images
    leaves whichever class the policy does not empty.
    """
    return torch.where(empty_masks(keep).view(-1, 1, 1, 1), torch.ones_like(keep), keep)


def shift_masks(keep: Tensor, generator: torch.Generator) -> Tensor:
    """Every (1, H, W) mask rolled by a random offset: the same area and outline, elsewhere."""
    batch, _, height, width = keep.shape
    down = torch.randint(height, (batch, 1), generator=generator, device=generator.device)
    right = torch.randint(width, (batch, 1), generator=generator, device=generator.device)
    rows = (torch.arange(height, device=keep.device) + to_device(down, keep.device)) % height
    columns = (torch.arange(width, device=keep.device) + to_device(right, keep.device)) % width
    index = torch.arange(batch, device=keep.device).view(-1, 1, 1)
    return keep[index, 0, rows.unsqueeze(2), columns.unsqueeze(1)].unsqueeze(1)
