"""The rival selectors against scikit-learn, brute force and literals."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from torch.nn import functional

from imaging_core.classifiers import build_classifier
from imaging_core.fitting import FitConfig
from imaging_core.seeding import torch_generator
from imaging_core.stream import Stream
from selection_core import features as feats
from selection_core import rivals
from selection_core.policy_reading import final_mask
from selection_core.triplet import fit_embedding


@pytest.fixture
def scene():
    """Two overlapping clouds of real features, and candidates of which some are mislabelled."""
    rng = np.random.default_rng(3)
    real_labels = np.arange(40) % 2
    real = rng.normal(size=(40, 6)) + 1.0 * real_labels[:, None]
    labels = np.repeat([0, 1], [30, 20])
    true = np.where(rng.random(50) < 0.3, 1 - labels, labels)
    pool = rng.normal(size=(50, 6)) + 1.0 * true[:, None]
    return real, real_labels, pool, labels


def test_closest_to_the_centroid_agrees_with_scikit_learn(scene):
    """On unit vectors the order of cosine distances to a centroid is that of dot products with it,
    and the class that scikit-learn's NearestCentroid names is where our two distances are ordered.
    """
    real, real_labels, pool, labels = scene
    both = np.stack(
        [feats.centroid_distance(pool, np.full(50, c), real, real_labels, 2) for c in (0, 1)]
    )
    unit = feats.centroids(real, real_labels, 2)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    oracle = NearestCentroid().fit(np.concatenate([1.1 * unit, 0.9 * unit]), [0, 1, 0, 1])
    candidates = pool / np.linalg.norm(pool, axis=1, keepdims=True)
    assert np.array_equal(both.argmin(0), oracle.predict(candidates))

    own = both[labels, np.arange(50)]
    keep = rivals.lowest(own, labels, rivals.counts_of_share(labels, 2, 0.5))
    for label, count in ((0, 15), (1, 10)):
        rows = np.flatnonzero(labels == label)
        similarity = candidates[rows] @ unit[label]
        assert set(rows[np.argsort(-similarity)[:count]]) == set(rows[keep[rows]])


def test_agreement_keeps_what_a_classifier_supports_most(scene):
    real, real_labels, pool, labels = scene
    probability = LogisticRegression().fit(real, real_labels).predict_proba(pool)
    keep = rivals.agreement(probability, labels, np.array([4, 7]))
    for label, count in ((0, 4), (1, 7)):
        rows = labels == label
        worst_kept = probability[rows & keep, label].min()
        assert (rows & keep).sum() == count
        assert worst_kept > probability[rows & ~keep, label].max()


def test_two_steps_drop_the_unconfident_then_the_far():
    probability = np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.6, 0.4], [0.2, 0.8], [0.9, 0.1]])
    labels = np.array([0, 0, 0, 0, 1, 1])
    distance = np.array([0.5, 0.0, 0.3, 0.1, 0.9, 0.0])
    keep = rivals.confident_then_closest(probability, distance, labels, np.array([2, 2]))
    # Candidates 1 and 5 are nearest of all and claimed by the wrong class; class 1 has one left.
    assert keep.tolist() == [False, False, True, True, True, False]
    plain = rivals.lowest(distance, labels, np.array([2, 2]))
    assert plain.tolist() == [False, True, False, True, True, True]


def test_what_a_policy_keeps_by_each_rule():
    """p just below one half: the threshold keeps nothing of what half of the draws would hold."""
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    p = np.array([0.1, 0.49, 0.48, 0.47, 0.9, 0.2, 0.3, 0.1])  # 1.54 of class 0, 1.5 of class 1
    rng = np.random.default_rng(0)
    assert np.flatnonzero(final_mask(p, labels, "threshold", rng)).tolist() == [4]
    assert np.flatnonzero(final_mask(p, labels, "expected_count", rng)).tolist() == [1, 2, 4, 6]
    drawn = np.mean([final_mask(p, labels, "drawn", rng) for _ in range(4000)], axis=0)
    assert np.allclose(drawn, p, atol=0.03)
    sure = np.array([1.0, 0, 0, 1, 0, 0, 1, 0])  # a policy that has made up its mind
    for rule in ("threshold", "expected_count", "drawn"):
        assert np.array_equal(final_mask(sure, labels, rule, rng), sure == 1)


def test_random_subset_is_uniform_and_counted():
    labels = np.repeat([0, 1], [6, 4])
    rng = np.random.default_rng(0)
    masks = np.stack([rivals.random_subset(labels, np.array([3, 1]), rng) for _ in range(2000)])
    assert (masks[:, :6].sum(1) == 3).all()
    assert (masks[:, 6:].sum(1) == 1).all()
    # Standard error 0.011 at p = 1/2.
    assert np.allclose(masks.mean(0), np.repeat([0.5, 0.25], [6, 4]), atol=0.05)


def test_ties_are_broken_by_position_and_too_many_are_refused():
    labels = np.array([0, 1, 0, 1])
    keep = rivals.lowest(np.zeros(4), labels, np.array([1, 2]))
    assert keep.tolist() == [True, True, False, True]
    with pytest.raises(ValueError, match="at most the 2 candidates of class 1, got 3"):
        rivals.lowest(np.zeros(4), labels, np.array([1, 3]))


def test_counts():
    labels = np.repeat([0, 1, 2], [4, 5, 2])
    assert rivals.counts_of_share(labels, 3, 0.5).tolist() == [2, 2, 1]
    keep = np.array([1, 0, 1, 1, 0, 0, 0, 0, 0, 1, 0], dtype=bool)
    assert rivals.counts_of_mask(keep, labels, 3).tolist() == [3, 0, 1]


def test_random_search_keeps_the_first_best_of_what_it_pays_for():
    asked = []

    def reward(keep):
        asked.append(keep)
        return float(keep[:3].sum())

    best, rewards = rivals.random_search(reward, 8, 20, np.random.default_rng(1))
    assert len(asked) == len(rewards) == 20
    assert np.array_equal(best, asked[int(np.argmax(rewards))])
    assert 0.4 < np.mean(asked) < 0.6


def literal_triplet_loss(embedding, labels, margin):
    """The mean over violated triplets, by three loops."""
    unit = embedding / embedding.norm(dim=1, keepdim=True)
    terms = []
    for a in range(len(unit)):
        for p in range(len(unit)):
            for n in range(len(unit)):
                if a == p or labels[a] != labels[p] or labels[a] == labels[n]:
                    continue
                d_ap = (unit[a] - unit[p]).norm()
                d_an = (unit[a] - unit[n]).norm()
                terms.append(torch.relu(d_ap - d_an + margin))
    violated = [t for t in terms if t > 0]
    return torch.stack(violated).mean() if violated else torch.zeros(())


def test_the_library_triplet_loss_is_the_literal_one():
    from pytorch_metric_learning.losses import TripletMarginLoss

    drawn = torch_generator(0, "test/embedding")
    embedding = torch.randn(9, 4, generator=drawn)
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    for margin in (0.05, 0.4):
        ours = TripletMarginLoss(margin=margin)(functional.normalize(embedding), labels)
        assert float(ours) == pytest.approx(
            float(literal_triplet_loss(embedding, labels, margin)), abs=1e-5
        )


FIT = FitConfig(
    epochs=8,
    batch_size=12,
    learning_rate=3e-3,
    optimiser="adamw",
    schedule="constant",
    weight_decay=0.0,
    patience=0,
    min_steps=0,
    augment="none",
)


def test_the_embedding_pulls_classes_apart_and_repeats_bit_for_bit():
    drawn = torch_generator(0, "test/images")
    labels = torch.arange(25) % 2
    images = torch.randn(25, 1, 16, 16, generator=drawn)
    images[labels == 1, :, 4:8, 4:8] += 1.0

    def embedded(steps_of):
        model = build_classifier(
            "tiny-resnet", channels=1, classes=2, size=16, generator=torch_generator(0, "w")
        )
        made = steps_of(model)
        model.eval()
        with torch.no_grad():
            return functional.normalize(model.features(images)), made

    def train(model):
        return fit_embedding(
            model,
            images,
            labels,
            config=FIT,
            stream=Stream(groups=(25,), members=torch.arange(25), steps=16, parts=8),
            margin=0.2,
            generator=torch_generator(0, "b"),
        )

    untrained, _ = embedded(lambda model: 0)
    first, steps = embedded(train)
    again, _ = embedded(train)
    assert steps == 8 * 2
    assert torch.equal(first, again)
    before = float(literal_triplet_loss(untrained, labels, 0.2))
    assert float(literal_triplet_loss(first, labels, 0.2)) < before
    same = labels.unsqueeze(0) == labels.unsqueeze(1)

    def gap(x):
        distance = torch.cdist(x, x)
        return float(distance[~same].mean() - distance[same].mean())

    assert gap(first) > 3 * gap(untrained)
