"""Images that stay 8-bit integers until a batch of them is taken, on the device too.

In float32 a dataset takes four times the room, in every worker; its pixels as they were decoded
are one mapped file that all workers of a node share.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

COPIED_BYTES = 64 << 20
"""Up to so many a join is copied: batches of two tensors cost a small network 2 % of a step."""


class Standardised:
    """(N, C, H, W) images, (x / 255 − mean) / std per channel in float32 when they are taken.

    Taking rows gives the bits that standardising all of them would have given: every operation is
    on one number alone.

    Args:
        pixels: (N, C, H, W) uint8.
        shift, scale: (1, C, 1, 1) float32 on the same device: 255 · mean and 255 · std.
    """

    def __init__(self, pixels: Tensor, shift: Tensor, scale: Tensor) -> None:
        self.pixels, self.shift, self.scale = pixels, shift, scale

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""
        return self.pixels.shape

    @property
    def device(self) -> torch.device:
        """Where the pixels are, and the batches that are taken."""
        return self.pixels.device

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """(B, C, H, W) float32 of these rows."""
        return self._floats(self.pixels[rows])

    def split(self, count: int) -> Iterator[Tensor]:
        """All of them, `count` at a time, (B, C, H, W) float32."""
        for start in range(0, len(self), count):
            yield self[start : start + count]

    def _floats(self, pixels: Tensor) -> Tensor:
        # A division, not a product with the inverse, which would give other bits.
        return pixels.float().sub_(self.shift).div_(self.scale)


class Joined(Standardised):
    """The images of one list, then chosen ones of another that is standardised alike; no copy.

    Args:
        rows: (K,) int64 on the same device, the rows of `second`.
    """

    def __init__(self, first: Standardised, second: Standardised, rows: Tensor) -> None:
        super().__init__(first.pixels, first.shift, first.scale)
        self.second, self.rows = second.pixels, rows

    def __len__(self) -> int:
        return len(self.pixels) + len(self.rows)

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""
        return torch.Size((len(self), *self.pixels.shape[1:]))

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """(B, C, H, W) float32 of these rows."""
        if isinstance(rows, slice):
            rows = torch.arange(*rows.indices(len(self)), device=self.device)
        count = len(self.pixels)
        one = self.pixels[rows.clamp(max=count - 1)]
        other = self.second[self.rows[(rows - count).clamp(min=0)]]
        # Both are taken and one is left: a GPU need not be asked which.
        return self._floats(torch.where((rows < count).view(-1, 1, 1, 1), one, other))


def standardised(
    images: np.ndarray, mean: np.ndarray, std: np.ndarray, device: str | torch.device
) -> Standardised:
    """`images` as (x / 255 − mean) / std per channel, on `device`; on the CPU without a copy.

    Args:
        images: (N, C, H, W) uint8.
        mean, std: (C,), of images scaled to [0, 1] (`Split.mean_std` of the training part).

    Raises:
        ValueError: images of another shape or type.
    """
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"images must be (N, C, H, W) uint8, got {images.shape} {images.dtype}")
    pixels = torch.from_numpy(_writable(np.ascontiguousarray(images))).to(device)
    shift = torch.as_tensor(np.asarray(mean), dtype=torch.float32, device=device) * 255
    scale = torch.as_tensor(np.asarray(std), dtype=torch.float32, device=device) * 255
    return Standardised(pixels, shift.view(1, -1, 1, 1), scale.view(1, -1, 1, 1))


def _writable(images: np.ndarray) -> np.ndarray:
    """What torch takes without a warning; nothing here writes to it."""
    return images if images.flags.writeable else images.copy()


def standardise(
    images: np.ndarray, mean: np.ndarray, std: np.ndarray, device: str | torch.device
) -> Tensor:
    """All of `standardised` at once, (N, C, H, W) float32: for few images."""
    return standardised(images, mean, std, device)[:]


Images = Tensor | Standardised
"""(N, C, H, W) standardised images, all at once or when a batch is taken."""


def joined_images(first: Images, second: Images, rows: Tensor) -> Images:
    """The images of `first`, then the `rows` (K,) of `second`, which is the same kind of list."""
    if isinstance(first, Tensor):
        return torch.cat([first, second[rows]])
    count = len(first) + len(rows)
    if not len(rows):
        return first
    if count * first.pixels[:1].numel() > COPIED_BYTES:
        return Joined(first, second, rows)
    return Standardised(torch.cat([first.pixels, second.pixels[rows]]), first.shift, first.scale)
