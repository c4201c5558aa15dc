"""Generator, pool, centroids and batches against small independent computations."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import cosine_distances
from sklearn.neighbors import NearestCentroid

from imaging_core.datasets.base import Split
from imaging_core.fields import ConfigError
from imaging_core.seeding import numpy_generator, torch_generator
from imaging_core.splits import k_shot_index
from imaging_core.task import no_progress
from selection_core import features as feats
from selection_core.gan import Discriminator, Generator, SpectralConv2d, draw_network, halvings
from selection_core.generator import (
    GanConfig,
    GanTraining,
    augment,
    discriminator_loss,
    generator_loss,
)
from selection_core.pool import generated_pool, mislabel, real_pool
from selection_core.training import keep_auc

GAN = GanConfig(
    steps=6,
    snapshots=3,
    batch=8,
    width=4,
    latent=8,
    generator_learning_rate=4e-4,
    discriminator_learning_rate=8e-4,
    ema=0.9,
)


def _split(count=60, size=16, classes=2):
    rng = np.random.default_rng(0)
    return Split(
        images=rng.integers(0, 256, (count, 1, size, size), dtype=np.uint8),
        labels=np.arange(count) % classes,
        groups=np.array([f"g{i // 6}" for i in range(count)]),
        ids=np.array([f"i{i}" for i in range(count)]),
    )


@pytest.mark.parametrize(
    ("size", "count"), [((32, 32), 3), ((64, 64), 4), ((96, 96), 5), ((256, 128), 5)]
)
def test_sizes_that_the_generator_paints(size, count):
    assert halvings(size) == count


def test_a_size_that_does_not_halve_is_refused():
    with pytest.raises(ConfigError, match=r"halve evenly .* got 30 × 30; resize"):
        halvings((30, 30))


def test_networks_have_the_shapes_they_promise():
    shape = {"classes": 3, "channels": 2, "size": (64, 32), "width": 4}
    z = torch.randn(5, 8, generator=torch_generator(0, "z"))
    onehot = torch.eye(3)[torch.tensor([0, 1, 2, 0, 1])]
    images = draw_network(Generator(latent=8, **shape), torch_generator(0, "g"))(z, onehot)
    assert images.shape == (5, 2, 64, 32)
    assert float(images.detach().abs().mean()) < 0.5  # tanh is not saturated at the start
    critic = draw_network(Discriminator(**shape), torch_generator(0, "d"))
    assert critic(images, onehot).shape == (5,)


def test_spectral_norm_against_svd():
    layer = draw_network(SpectralConv2d(3, 5, 3), torch_generator(0, "s"))
    x = torch.zeros(1, 3, 3, 3)
    for _ in range(200):  # one power iteration a call
        layer(x)
    largest = torch.linalg.svdvals(layer.weight.detach().flatten(1))[0]
    x = torch.randn(1, 3, 3, 3, generator=torch_generator(0, "x"))
    plain = torch.nn.functional.conv2d(x, layer.weight, layer.bias * largest)
    assert torch.allclose(layer(x) * largest, plain, atol=1e-4)


def test_hinge_literals():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-2.0, 0.5])
    assert float(discriminator_loss(real, fake)) == pytest.approx(0.25 + 0.75)
    assert float(generator_loss(fake)) == pytest.approx(0.75)


def test_augmentation_moves_but_never_invents_pixels():
    x = torch.arange(1.0, 1 + 4 * 16 * 16).view(4, 1, 16, 16)
    y = augment(x, torch_generator(0, "a"))
    assert not torch.equal(x, y)
    for before, after in zip(x, y, strict=True):
        kept = after[after != 0]  # what a shift brings in is 0
        assert len(kept) >= 14 * 14
        assert torch.isin(kept, before).all()


def trained(split, seed: int) -> list[dict[str, torch.Tensor]]:
    training = GanTraining(split.images, split.labels, 2, config=GAN, seed=seed)
    training.run(GAN.steps, no_progress)
    return training.snapshots


def test_training_is_a_function_of_the_seed_and_changes_the_generator():
    split = _split()
    first, again, other = (trained(split, s) for s in (0, 0, 1))
    assert len(first) == GAN.snapshots
    for a, b in zip(first, again, strict=True):
        assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(first[-1]["paint.weight"], other[-1]["paint.weight"])
    assert not torch.equal(first[0]["paint.weight"], first[-1]["paint.weight"])


def test_generated_pool_mixes_snapshots_and_flips_the_asked_share():
    split = _split()
    snapshots = trained(split, 0)
    asked = {"classes": 2, "channels": 1, "size": (16, 16), "per_class": 12, "seed": 0}
    clean = generated_pool(snapshots, GAN, label_noise=0.0, **asked)
    assert np.array_equal(clean["labels"], clean["true_labels"])
    assert np.bincount(clean["labels"]).tolist() == [12, 12]
    assert np.bincount(clean["source"]).tolist() == [8, 8, 8]
    noisy = generated_pool(snapshots, GAN, label_noise=0.5, **asked)
    assert (noisy["labels"] != noisy["true_labels"]).sum() == 12
    assert np.array_equal(noisy["labels"], clean["labels"])
    same = noisy["true_labels"] == clean["true_labels"]
    assert np.array_equal(noisy["images"][same], clean["images"][same])
    assert not np.array_equal(noisy["checksum"], clean["checksum"])


def test_mislabel_is_exact_per_class_and_never_keeps_the_label():
    labels = np.repeat(np.arange(3), 40)
    wrong = mislabel(labels, 3, 0.25, numpy_generator(0, "n"))
    assert [(wrong[labels == c] != c).sum() for c in range(3)] == [10, 10, 10]


def test_real_pool_stays_outside_the_k_shot_set_and_repeats_no_image():
    split = _split()
    pool = real_pool(split, k_shot=5, classes=2, per_class=16, label_noise=0.5, seed=3)
    assert not set(pool["source"]) & set(k_shot_index(split, 5, 3))
    assert len(set(pool["source"])) == 32
    assert np.array_equal(split.labels[pool["source"]], pool["true_labels"])
    assert (pool["labels"] == pool["true_labels"]).mean() == 0.5
    with pytest.raises(ConfigError, match=r"needs 32 training images of class 0 .* got 25"):
        real_pool(split, k_shot=5, classes=2, per_class=32, label_noise=0.0, seed=3)


def test_centroid_distance_against_scikit_learn():
    rng = np.random.default_rng(1)
    real, labels = rng.normal(size=(30, 6)), np.arange(30) % 3
    pool, claimed = rng.normal(size=(12, 6)), np.arange(12) % 3
    centre = NearestCentroid().fit(real, labels).centroids_
    expected = cosine_distances(pool, centre)[np.arange(12), claimed]
    assert np.allclose(feats.centroid_distance(pool, claimed, real, labels, 3), expected)


def test_batches_are_sorted_balanced_and_complete():
    labels = np.repeat([0, 1], 8)
    distance = np.random.default_rng(2).random(16)
    order = feats.batch_order(labels, distance, 4)
    assert order.shape == (4, 4)
    assert sorted(order.flatten()) == list(range(16))
    assert all(np.bincount(labels[batch]).tolist() == [2, 2] for batch in order)
    for label in (0, 1):
        in_order = [i for i in order.flatten() if labels[i] == label]
        assert np.all(np.diff(distance[in_order]) >= 0)
    shuffled = feats.batch_order(labels, distance, 4, shuffle=numpy_generator(0, "o"))
    assert sorted(shuffled.flatten()) == list(range(16))
    assert not np.array_equal(shuffled, order)


def test_keep_auc_against_scikit_learn_with_ties():
    rng = np.random.default_rng(3)
    probability, right = rng.integers(0, 5, 50) / 4, rng.random(50) < 0.5
    assert keep_auc(probability, right) == pytest.approx(roc_auc_score(right, probability))


@pytest.mark.parametrize("sizes", [(16, 16), (9, 4), (1, 30), (7, 7)])
def test_batches_of_any_number_hold_every_candidate_and_each_class_in_equal_parts(sizes):
    labels = np.repeat([0, 1], sizes)
    distance = np.random.default_rng(2).random(len(labels))
    order = feats.batch_order(labels, distance, 4)
    places = feats.first_places(order, len(labels))
    assert np.array_equal(order.reshape(-1)[places], np.arange(len(labels)))
    assert order.size - len(labels) < 2 * 4  # places that repeat a row of their own batch
    own = [np.unique(batch) for batch in order]
    assert sum(map(len, own)) == len(labels)
    for label in (0, 1):
        counts = [int((labels[rows] == label).sum()) for rows in own]
        assert max(counts) - min(counts) <= 1
        for before, after in itertools.pairwise(own):
            near, far = (distance[rows[labels[rows] == label]] for rows in (before, after))
            assert not len(near) or not len(far) or near.max() <= far.min()


def test_an_order_that_lacks_a_row_is_refused():
    with pytest.raises(ValueError, match="must hold each of the 3 rows, it holds 2"):
        feats.first_places(np.array([[0, 1], [1, 0]]), 3)
