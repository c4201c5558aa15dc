"""The masks of the rivals that train no policy: their areas, cells and streams."""

import numpy as np
import pytest
import torch
from small_arms import PIXELS, batch, classifier

from apga_core import augmentations
from apga_core.arms import AugmentArm, build_arm
from apga_core.config import APGAConfig
from imaging_core.seeding import torch_generator


def test_released_cutout_has_the_measured_areas():
    """The notes' simulation of the released helper: mean 14.8 %, median 10.9 % of the image."""
    keep = augmentations.cutout_released_keep(4000, (64, 64), torch_generator(0, "cutout"))
    area = 1 - keep.mean(dim=(1, 2, 3)).numpy()
    assert np.mean(area) == pytest.approx(0.148, abs=0.012)
    assert np.median(area) == pytest.approx(0.109, abs=0.012)


def test_cutout_hides_every_pixel_about_as_often():
    keep = augmentations.cutout_keep(4000, (32, 32), torch_generator(0, "cutout"))
    hidden = 1 - keep.mean(dim=0)[0]
    # A corner is reached by a quarter of the squares that can reach the middle.
    assert float(hidden.min()) > 0.2 * float(hidden.max())
    one = 1 - keep[0, 0]
    rows, columns = one.any(dim=1).sum(), one.any(dim=0).sum()
    assert int(one.sum()) == int(rows * columns)


def test_hide_and_seek_hides_half_in_cells():
    keep = augmentations.hide_and_seek_keep(500, (32, 32), torch_generator(0, "hide"))
    assert float(keep.mean()) == pytest.approx(0.5, abs=0.03)
    cells = keep.unfold(2, 8, 8).unfold(3, 8, 8).flatten(4).mean(dim=-1)
    assert set(cells.unique().tolist()) == {0.0, 1.0}


def test_trivial_augment_uses_our_stream_and_leaves_the_global_one():
    images, _ = batch()
    mean, std = PIXELS.mean, PIXELS.std
    state = torch.get_rng_state()
    first = augmentations.trivial_augment(images, mean, std, torch_generator(0, "ta"))
    assert torch.equal(torch.get_rng_state(), state)
    generator = torch_generator(0, "ta")
    assert torch.equal(first, augmentations.trivial_augment(images, mean, std, generator))
    again = augmentations.trivial_augment(images, mean, std, generator)
    assert not torch.equal(first, again)


@pytest.mark.parametrize(
    "method", ["cutout", "cutout_released", "gradcam", "hide_and_seek", "trivial_augment"]
)
def test_untrained_rivals_change_the_batch_and_keep_its_shape(method):
    images, _ = batch()
    arm = build_arm(
        APGAConfig(method=method), None, base=classifier(), policy=None, pixels=PIXELS, classes=2,
        generator=torch_generator(0, "arm"),
    )  # fmt: skip
    assert isinstance(arm, AugmentArm)
    augmented = arm.augment(images)
    assert augmented.shape == images.shape
    assert not torch.equal(augmented, images)
