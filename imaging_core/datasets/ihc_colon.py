"""`ihc-colon`: patches of the real H-DAB-stained colon slide that scikit-image ships.

The slide is cut into a checkerboard of blocks; a block belongs to one part and a patch lies inside
one block, so no pixel is shared between train, validation and test. The input is the hematoxylin
channel, the label comes from the DAB channel of the patch's centre, and everything that is fitted
(the grey scale, the DAB threshold) is fitted on training blocks only. No torch here, and no slow
import: this loader runs in front of every command.
"""

import hashlib

import numpy as np
from skimage import data as skimage_data
from skimage.color import rgb2hed
from skimage.filters import threshold_otsu

from imaging_core.datasets.base import ImageDataset, Split
from imaging_core.fields import ConfigError

BLOCK = 64  # pixels; the slide is 8 × 8 blocks
PATCH = 32  # pixels
STRIDE = 4  # pixels between neighbouring patches of one block
CENTRE = 16  # pixels; the side of the central square that the label is read from
NEGATIVE_BELOW = 0.35  # DAB-positive fraction of the centre
POSITIVE_ABOVE = 0.65
SCALE_PERCENTILES = (1.0, 99.0)  # hematoxylin of the training blocks → 0 … 255
HEMATOXYLIN, DAB = 0, 2  # channels of the colour deconvolution
TILE = (("train", "validation"), ("test", "train"))  # repeated over the slide, block by block
CLASSES = ("DAB-negative", "DAB-positive")

CARD = """\
# ihc-colon
**What it is.** 32×32 patches (stride 4) of one real immunohistochemistry slide of colon tissue,
stained with hematoxylin and DAB (FHL2), 512×512 pixels, as scikit-image ships it
(`skimage.data.immunohistochemistry`; image by the Center for Microscopy and Molecular Imaging).
The input is the hematoxylin channel of a colour deconvolution; the label says whether the central
16×16 pixels are mostly DAB-positive (at least 65 %) or mostly not (at most 35 %); patches between
are left out. DAB is never an input.

**Parts.** Blocks of 64 pixels in a checkerboard: half of them train, a quarter each validation and
test; a patch lies inside one block, and the block is its group. Grey scale and DAB threshold are
fitted on training blocks. Classes are balanced within each part.

**Licence.** No known copyright restrictions, as stated by scikit-image.

**What it may not be used to claim.** It is one field of view of one slide: 32 training, 16
validation and 16 test blocks that touch each other, with heavily overlapping patches inside a
block. It shows that a method runs and what it does on real pixels. It says nothing about colon
cancer, about other slides, stainings or scanners, or about how well a method generalises; the
label is computed from a stain and was given by no pathologist. Intervals that treat patches as
independent are too narrow.
"""


def part_of_block(row: int, column: int) -> str:
    """The part (train, validation, test) that the block in this row and column belongs to."""
    return TILE[row % 2][column % 2]


def load(path: str | None = None, *, protocol: str = "held-out") -> ImageDataset:
    """The embedded slide as patches (1, 32, 32).

    Raises:
        ConfigError: a path was given, or a protocol other than held-out.
    """
    if path is not None:
        raise ConfigError(
            f'ihc-colon is embedded and takes no path, got "{path}"; write --data ihc-colon'
        )
    if protocol != "held-out":
        raise ConfigError(f'ihc-colon knows protocol "held-out" only, got "{protocol}"')
    return from_slide(skimage_data.immunohistochemistry())


def from_slide(slide: np.ndarray) -> ImageDataset:
    """The dataset of an H-DAB slide (H, W, 3) uint8 whose sides are multiples of a block."""
    stains = rgb2hed(slide)
    rows, columns = slide.shape[0] // BLOCK, slide.shape[1] // BLOCK
    block_part = np.array([[part_of_block(i, j) for j in range(columns)] for i in range(rows)])
    in_train = np.kron(block_part == "train", np.ones((BLOCK, BLOCK), dtype=bool))

    hematoxylin, dab = stains[..., HEMATOXYLIN], stains[..., DAB]
    low, high = np.percentile(hematoxylin[in_train], SCALE_PERCENTILES)
    grey = np.rint(255 * np.clip((hematoxylin - low) / (high - low), 0, 1)).astype(np.uint8)
    positive = dab > threshold_otsu(dab[in_train])

    tops, lefts = _corners(rows), _corners(columns)
    fraction = _centre_fraction(positive, tops, lefts)
    parts = {
        part: _split(grey, fraction, tops, lefts, block_part == part)
        for part in ("train", "validation", "test")
    }
    return ImageDataset(name="ihc-colon", classes=CLASSES, **parts)


def _corners(blocks: int) -> np.ndarray:
    """First pixels of the patches along one axis of `blocks` blocks; none crosses a border."""
    inside = np.arange(0, BLOCK - PATCH + 1, STRIDE)
    return (BLOCK * np.arange(blocks)[:, None] + inside).ravel()


def _centre_fraction(positive: np.ndarray, tops: np.ndarray, lefts: np.ndarray) -> np.ndarray:
    """DAB-positive fraction of the centre of the patch at each (top, left), in [0, 1]."""
    margin = (PATCH - CENTRE) // 2
    windows = np.lib.stride_tricks.sliding_window_view(positive, (CENTRE, CENTRE))
    return windows[np.ix_(tops + margin, lefts + margin)].mean(axis=(2, 3))


def _split(
    grey: np.ndarray, fraction: np.ndarray, tops: np.ndarray, lefts: np.ndarray, blocks: np.ndarray
) -> Split:
    """The clearly labelled patches of these `blocks` (a boolean block map), classes equalised."""
    here = blocks[np.ix_(tops // BLOCK, lefts // BLOCK)]
    negative = np.argwhere(here & (fraction <= NEGATIVE_BELOW))
    positive = np.argwhere(here & (fraction >= POSITIVE_ABOVE))
    count = min(len(negative), len(positive))
    rows, labels = [], []
    for label, found in enumerate((negative, positive)):
        corners = [(int(tops[i]), int(lefts[j])) for i, j in found]
        rows += sorted(corners, key=_fixed_order)[:count]
        labels += [label] * count
    order = sorted(range(len(rows)), key=lambda n: rows[n])
    corners = [rows[n] for n in order]
    return Split(
        images=np.stack([grey[None, y : y + PATCH, x : x + PATCH] for y, x in corners]),
        labels=np.array([labels[n] for n in order], dtype=np.int64),
        groups=np.array([f"block-{y // BLOCK}-{x // BLOCK}" for y, x in corners]),
        ids=np.array([f"y{y:03d}-x{x:03d}" for y, x in corners]),
    )


def _fixed_order(corner: tuple[int, int]) -> bytes:
    """Which patches go when a class is cut to the size of the other: a hash, so no region."""
    return hashlib.sha256(f"ihc-colon/{corner[0]}/{corner[1]}".encode()).digest()
