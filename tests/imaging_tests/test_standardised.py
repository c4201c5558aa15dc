"""Images standardised when a batch is taken: the bits of standardising all of them at once."""

import warnings

import numpy as np
import pytest
import torch

from imaging_core.classifiers import build_classifier
from imaging_core.datasets.decoding import map_file
from imaging_core.fitting import FitConfig, accuracy, fit, predict
from imaging_core.seeding import torch_generator
from imaging_core.standardised import Joined, joined_images, standardise, standardised

MEAN, STD = np.array([0.43, 0.517, 0.6]), np.array([0.21, 0.19, 0.333])


def pixels(count, seed=0, side=16, channels=3):
    shape = (count, channels, side, side)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def all_at_once(images):
    """What the cells of the first ledgers were computed with: the whole part in float32."""
    x = torch.from_numpy(images).float()
    shift = torch.as_tensor(MEAN, dtype=torch.float32) * 255
    scale = torch.as_tensor(STD, dtype=torch.float32) * 255
    return (x - shift.view(1, -1, 1, 1)) / scale.view(1, -1, 1, 1)


def test_every_way_of_taking_rows_gives_the_bits_of_all_at_once():
    images = pixels(50)
    lazy, whole = standardised(images, MEAN, STD, "cpu"), all_at_once(images)
    assert (len(lazy), lazy.shape, lazy.device) == (50, whole.shape, whole.device)
    assert torch.equal(standardise(images, MEAN, STD, "cpu"), whole)
    rows = torch.randperm(50)[:23]
    assert torch.equal(lazy[rows], whole[rows])
    assert torch.equal(lazy[7:31], whole[7:31])
    for count in (1, 7, 50, 64):
        for mine, theirs in zip(lazy.split(count), whole.split(count), strict=True):
            assert torch.equal(mine, theirs)
            assert mine.stride() == theirs.stride()


def test_a_fit_and_its_scores_have_the_bits_of_all_at_once():
    images, labels = pixels(40, seed=1), torch.arange(40) % 2
    config = FitConfig(
        epochs=3,
        batch_size=8,
        learning_rate=1e-2,
        optimiser="adamw",
        schedule="onecycle",
        weight_decay=0.01,
        patience=0,
        min_steps=0,
        augment="traditional",
    )
    outcomes = []
    for seen in (all_at_once(images), standardised(images, MEAN, STD, "cpu")):
        model = build_classifier(
            "tiny-resnet", channels=3, classes=2, size=16, generator=torch_generator(0, "w")
        )
        fitted = fit(
            model,
            seen,
            labels,
            config=config,
            generator=torch_generator(0, "order"),
            validation=(seen, labels),
            keep_best=True,
        )
        weights = torch.cat([p.detach().flatten() for p in model.parameters()])
        outcomes.append((fitted, weights, predict(model, seen, 7), accuracy(model, seen, labels)))
    (one, weights, said, right), (other, weights2, said2, right2) = outcomes
    assert one == other
    assert torch.equal(weights, weights2)
    assert torch.equal(said, said2)
    assert right == right2


@pytest.mark.parametrize("chosen", [[], [3], [0, 2, 2, 9]])
def test_joined_images_are_the_concatenation_copied_or_not(chosen, monkeypatch):
    real, pool = pixels(12), pixels(10, seed=2)
    rows = torch.tensor(chosen, dtype=torch.int64)
    whole = torch.cat([all_at_once(real), all_at_once(pool)[rows]])
    parts = [standardised(x, MEAN, STD, "cpu") for x in (real, pool)]
    copied = joined_images(*parts, rows)
    monkeypatch.setattr("imaging_core.standardised.COPIED_BYTES", 0)
    viewed = joined_images(*parts, rows)
    assert isinstance(viewed, Joined) == bool(chosen)
    for found in (copied, viewed):
        assert found.shape == whole.shape
        order = torch.randperm(len(whole))
        assert torch.equal(found[order], whole[order])
        assert torch.equal(torch.cat(list(found.split(5))), whole)


def test_mapped_pixels_are_not_copied_and_what_is_wrong_is_refused(tmp_path):
    (tmp_path / "x.u8").write_bytes(pixels(20).tobytes())
    mapped = map_file(tmp_path / "x.u8", 20, (3, 16, 16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch's, of an array that cannot be written
        found = standardised(mapped[4:], MEAN, STD, "cpu")
    first = mapped.__array_interface__["data"][0]
    assert found.pixels.data_ptr() == first + 4 * 3 * 16 * 16
    with pytest.raises(ValueError, match=r"images must be \(N, C, H, W\) uint8"):
        standardised(pixels(2).astype(np.float32), MEAN, STD, "cpu")
