"""`phantom-xray`: disjoint by patient, and no trivial score finds its lesion."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from apga_core.localisation import lesion_auroc, over_pixels
from apga_core.networks import build_policy
from imaging_core.datasets import phantom_xray, registry
from imaging_core.fields import ConfigError
from imaging_core.seeding import torch_generator
from imaging_core.standardised import standardise

IMAGES = 200  # test images with a lesion, as the card says


def trivial_scores(variant: str) -> dict[str, float]:
    """AUROC for the lesion pixels of the test images, per score that has seen no label."""
    data = phantom_xray.load(variant)
    rows = np.flatnonzero(data.test.labels)[:IMAGES]
    part = data.test.take(rows)
    x = part.images[:, 0] / 255.0
    scores = {
        "raw intensity": x,
        "image − blur": x - gaussian_filter(x, (0, 3.0, 3.0)),
        "bone mask": part.anatomy.astype(float),
    }
    images = standardise(part.images, *data.train.mean_std, "cpu")
    untrained = []
    for seed in range(5):
        policy = build_policy(
            "coarse-unet", channels=1, grid=8, initial_bias=0.0,
            generator=torch_generator(seed, "apga/policy"),
        )  # fmt: skip
        with torch.no_grad():
            maps = over_pixels(torch.sigmoid(policy(images)), data.size)
        untrained.append(lesion_auroc(maps, part.masks))
    measured = {name: lesion_auroc(score, part.masks) for name, score in scores.items()}
    return measured | {"untrained policy": max(untrained)}


@pytest.mark.long
@pytest.mark.parametrize("variant", phantom_xray.VARIANTS)
def test_no_trivial_score_finds_the_lesion_and_the_card_prints_them(variant):
    card = registry.card("phantom-xray")
    row = next(line for line in card.splitlines() if line.startswith(f"| {variant} "))
    printed = [float(cell) for cell in re.findall(r"\d\.\d+", row)]
    measured = trivial_scores(variant)
    assert max(measured.values()) < 0.75, measured
    assert printed == pytest.approx(list(measured.values()), abs=0.011), measured


@pytest.mark.long
@pytest.mark.parametrize("variant", phantom_xray.VARIANTS)
def test_parts_are_disjoint_and_every_positive_has_its_lesion(variant):
    data = registry.load("phantom-xray", variant).check()
    for part in (data.train, data.validation, data.test):
        assert np.array_equal(part.masks.any(axis=(1, 2)), part.labels > 0)
        views = np.unique(part.groups, return_counts=True)[1]
        assert views.min() >= 2
        assert views.max() <= 4
    assert len(data.train) + len(data.validation) + len(data.test) > 1900


def test_the_lesion_is_darker_or_brighter_by_chance_and_lies_on_bone():
    part = phantom_xray.load().train
    bone = phantom_xray.load().train.anatomy
    x = part.images[:, 0].astype(float)
    signs = []
    for row in np.flatnonzero(part.labels):
        lesion = part.masks[row]
        assert (lesion & ~bone[row]).sum() <= 0.1 * lesion.sum()
        around = bone[row] & ~lesion
        signs.append(x[row][lesion].mean() > x[row][around].mean())
    assert 0.4 < np.mean(signs) < 0.6


def test_nothing_off_the_bone_depends_on_the_class():
    """Decoys and tags: the off-bone contrast of negatives and positives has one distribution."""
    part = phantom_xray.load().train
    bone = phantom_xray.load().train.anatomy
    x = part.images[:, 0] / 255.0
    blurred = np.abs(x - gaussian_filter(x, (0, 3.0, 3.0)))
    peak = np.where(bone, 0, blurred).max(axis=(1, 2))
    positive, negative = peak[part.labels == 1], peak[part.labels == 0]
    wins = (positive[:, None] > negative[None, :]).mean()
    assert 0.45 < wins < 0.55


def test_the_same_seed_gives_the_same_phantom():
    variant = dataclasses.replace(phantom_xray.VARIANTS["fracture"], patients=40)
    first = phantom_xray.generate(variant, name="a", seed=3)
    again = phantom_xray.generate(variant, name="a", seed=3)
    other = phantom_xray.generate(variant, name="a", seed=4)
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != other.fingerprint


def test_unknown_variants_and_protocols_are_refused():
    with pytest.raises(ConfigError, match=r'no variant "hip-bound".*did you mean "hip-bounded"'):
        phantom_xray.load("hip-bound")
    with pytest.raises(ConfigError, match='protocol "held-out" only, got "paper"'):
        phantom_xray.load(protocol="paper")
