"""Masks: complements, the empty case, the fills, and shapes that must not move."""

import numpy as np
import pytest
import scipy.ndimage
import torch

from apga_core import masking
from imaging_core.seeding import torch_generator


def test_the_aid_mask_keeps_one_half_and_above():
    logits = torch.tensor([-1.0, 0.0, 2.0]).view(1, 1, 1, 3)
    assert masking.aid_keep(logits).flatten().tolist() == [0, 1, 1]


def test_erase_puts_the_fill_where_nothing_is_kept():
    images = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2)
    keep = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 1, 2, 2)
    fill = torch.full((1, 1, 1, 1), -9.0)
    assert masking.erase(images, keep, fill).flatten().tolist() == [1, -9, -9, 4]
    samples = torch.stack([keep, 1 - keep])
    both = masking.erase(images, samples, fill)
    assert both.flatten(1).tolist() == [[1, -9, -9, 4], [-9, 2, 3, -9]]
    assert masking.erase(images, 0.5 * keep, fill).flatten().tolist() == [-4, -9, -9, -2.5]


def test_fills_are_black_mean_and_blurred():
    images = torch.randn(2, 3, 16, 16, generator=torch_generator(0, "fills"))
    black = torch.tensor([-1.0, -2.0, -3.0])
    zero = masking.fill_images(images, "zero", black=black, blur_sigma=2.0)
    assert zero.flatten().tolist() == [-1, -2, -3]
    assert masking.fill_images(images, "mean", black=black, blur_sigma=2.0).item() == 0
    blurred = masking.fill_images(images, "blur", black=black, blur_sigma=2.0)
    oracle = scipy.ndimage.gaussian_filter(
        images.numpy(), (0, 0, 2.0, 2.0), mode="mirror", radius=(0, 0, 5, 5)
    )
    np.testing.assert_allclose(blurred.numpy(), oracle, atol=1e-5)


def test_an_empty_aid_mask_falls_back_to_the_original():
    keep = torch.stack([torch.zeros(1, 4, 4), torch.eye(4).unsqueeze(0)])
    assert masking.empty_masks(keep).tolist() == [True, False]
    kept = masking.keep_all_where_empty(keep)
    assert kept[0].sum() == 16
    assert torch.equal(kept[1], keep[1])


def test_grids_pool_and_repeat():
    logits = torch.arange(16.0).view(1, 1, 4, 4)
    coarse = masking.to_grid(logits, 2)
    assert coarse.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert masking.to_grid(logits, 0) is logits
    fine = masking.to_pixels(coarse, (4, 4))
    assert fine[0, 0, 0].tolist() == [2.5, 2.5, 4.5, 4.5]
    many = torch.randn(3, 1, 4, 2, generator=torch_generator(0, "cells"))
    for size in ((12, 8), (13, 7)):
        expected = torch.nn.functional.interpolate(many, size=size, mode="nearest")
        assert torch.equal(masking.to_pixels(many, size), expected)


@pytest.mark.parametrize("seed", range(3))
def test_shifted_masks_keep_their_area_and_outline(seed):
    keep = torch.zeros(6, 1, 8, 8)
    keep[:, :, 1:3, 2:7] = 1
    shifted = masking.shift_masks(keep, torch_generator(seed, "shift"))
    assert torch.equal(shifted.sum(dim=(1, 2, 3)), keep.sum(dim=(1, 2, 3)))
    assert torch.equal(shifted.sum(dim=2).sort(dim=-1).values, keep.sum(dim=2).sort(dim=-1).values)
    assert not torch.equal(shifted, keep)
