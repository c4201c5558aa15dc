import numpy as np
import pytest
from skimage import data as skimage_data

from imaging_core.datasets import ihc_colon, load
from imaging_core.fields import ConfigError

PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def slide():
    return skimage_data.immunohistochemistry()


@pytest.fixture(scope="module")
def data(slide):
    return ihc_colon.from_slide(slide)


def corners(part):
    return [tuple(int(x[1:]) for x in identity.split("-")) for identity in part.ids.tolist()]


def covered(part, shape):
    mask = np.zeros(shape, dtype=bool)
    for y, x in corners(part):
        mask[y : y + ihc_colon.PATCH, x : x + ihc_colon.PATCH] = True
    return mask


def repaint(slide, part):
    """Darker colours in every block of one part."""
    out = slide.copy()
    for i in range(8):
        for j in range(8):
            if ihc_colon.part_of_block(i, j) == part:
                out[64 * i : 64 * i + 64, 64 * j : 64 * j + 64] //= 2
    return out


def test_no_pixel_is_in_two_parts(data, slide):
    total = sum(covered(getattr(data, part), slide.shape[:2]).astype(int) for part in PARTS)
    assert total.max() == 1


def test_a_patch_lies_in_the_block_that_is_its_group(data):
    for part in PARTS:
        split = getattr(data, part)
        for (y, x), group in zip(corners(split), split.groups, strict=True):
            assert group == f"block-{y // 64}-{x // 64}"
            assert (y % 64) <= 32
            assert (x % 64) <= 32
            assert ihc_colon.part_of_block(y // 64, x // 64) == part


def test_patches_are_where_their_ids_say(slide, data):
    y, x = corners(data.validation)[17]
    other = slide.copy()
    other[y, x] = (255, 255, 255) if slide[y, x].mean() < 128 else (0, 0, 0)
    moved = ihc_colon.from_slide(other).validation.images[17]
    assert np.argwhere(moved[0] != data.validation.images[17][0]).tolist() == [[0, 0]]


def test_scale_and_threshold_are_fitted_on_training_blocks_only(slide, data):
    for part in ("validation", "test"):
        seen = ihc_colon.from_slide(repaint(slide, part))
        for other in PARTS:
            before, after = getattr(data, other), getattr(seen, other)
            same = before.ids.tolist() == after.ids.tolist() and np.array_equal(
                before.images, after.images
            )
            assert same == (other != part), (part, other)


def test_validation_depends_on_training_blocks(slide, data):
    """The twin of the test above: were nothing fitted at all, that one could not fail."""
    seen = ihc_colon.from_slide(repaint(slide, "train"))
    assert not np.array_equal(seen.validation.images[0], data.validation.images[0])


def test_classes_are_balanced_in_every_part(data):
    for part, size in zip(PARTS, (2108, 924, 1002), strict=True):
        assert np.bincount(getattr(data, part).labels).tolist() == [size // 2, size // 2]


def test_labels_follow_the_dab_fraction_of_the_centre(slide, data):
    from skimage.color import rgb2hed
    from skimage.filters import threshold_otsu

    dab = rgb2hed(slide)[..., 2]
    train_pixels = np.concatenate(
        [
            dab[64 * i : 64 * i + 64, 64 * j : 64 * j + 64].ravel()
            for i in range(8)
            for j in range(8)
            if i % 2 == j % 2
        ]
    )
    threshold = threshold_otsu(train_pixels)
    for part in PARTS:
        split = getattr(data, part)
        for (y, x), label in zip(corners(split), split.labels, strict=True):
            fraction = (dab[y + 8 : y + 24, x + 8 : x + 24] > threshold).mean()
            assert fraction >= 0.65 if label else fraction <= 0.35


def test_the_data_is_checked_and_stable(data):
    loaded = load("ihc-colon")
    assert loaded.fingerprint == data.fingerprint
    # part of the key of every committed cell: other bytes would orphan them
    assert loaded.fingerprint.startswith("02165e5d8c2cf310")
    assert loaded.train.images.shape == (2108, 1, 32, 32)
    assert loaded.train.images.dtype == np.uint8
    assert len(set(loaded.train.groups)) <= 32


def test_a_path_is_refused():
    with pytest.raises(ConfigError, match='ihc-colon is embedded and takes no path, got "/data"'):
        load("ihc-colon", "/data")


def test_the_paper_protocol_is_refused():
    with pytest.raises(ConfigError, match='ihc-colon knows protocol "held-out" only, got "paper"'):
        load("ihc-colon", protocol="paper")
