"""Bootstraps against scikit-learn, literals and simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.resampling import (
    case_bootstrap,
    case_metrics,
    group_weights,
    iqm,
    normalised,
    paired_iqm,
    weighted_auc,
)


def test_weighted_metrics_equal_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for classes in (2, 4):
        labels = rng.integers(classes, size=200)
        scores = rng.dirichlet(np.ones(classes), size=200).round(2)  # rounding makes ties
        scores[:, 0] += 1 - scores.sum(axis=1)
        weights = rng.integers(0, 4, size=(3, 200)).astype(float)
        found = case_metrics(labels, scores, weights)
        for b, w in enumerate(weights):
            guess = scores.argmax(axis=1)
            accuracy = metrics.accuracy_score(labels, guess, sample_weight=w)
            assert found["accuracy"][b] == pytest.approx(accuracy)
            if classes == 2:
                auc = metrics.roc_auc_score(labels, scores[:, 1], sample_weight=w)
                recall = metrics.recall_score(labels, guess, sample_weight=w)
                specificity = metrics.recall_score(labels, guess, sample_weight=w, pos_label=0)
            else:
                each = [
                    metrics.roc_auc_score(labels == c, scores[:, c], sample_weight=w)
                    for c in range(classes)
                ]
                auc = np.mean(each)
                recall = metrics.recall_score(labels, guess, sample_weight=w, average="macro")
                specificity = np.mean(
                    [
                        metrics.recall_score(labels != c, guess != c, sample_weight=w)
                        for c in range(classes)
                    ]
                )
            assert found["auc"][b] == pytest.approx(auc)
            assert found["sensitivity"][b] == pytest.approx(recall)
            assert found["specificity"][b] == pytest.approx(specificity)


def test_auc_literals() -> None:
    one = np.ones((1, 4))
    positive = np.array([True, True, False, False])
    assert weighted_auc(positive, np.array([0.9, 0.8, 0.2, 0.1]), one)[0] == 1
    assert weighted_auc(positive, np.array([0.1, 0.2, 0.8, 0.9]), one)[0] == 0
    assert weighted_auc(positive, np.full(4, 0.5), one)[0] == 0.5
    assert np.isnan(weighted_auc(np.ones(4, bool), np.arange(4.0), one)[0])


def test_whole_patients_are_drawn() -> None:
    groups = np.array(["a", "a", "b", "c", "c", "c"])
    weights = group_weights(groups, 200, np.random.default_rng(0))
    assert np.all(weights[:, 0] == weights[:, 1])
    assert np.all(weights[:, 3] == weights[:, 5])
    assert np.all(weights[:, 0] + weights[:, 2] + weights[:, 3] == 3)
    assert weights[:, 2].std() > 0


def _predictions(rng: np.random.Generator, patients: int, images: int) -> pd.DataFrame:
    """Images of one patient are right or wrong together more often than not."""
    skill = np.repeat(rng.beta(8, 2, size=patients), images)
    groups = np.repeat(np.arange(patients), images)
    labels = groups % 2
    score = np.where(rng.random(len(groups)) < skill, labels, 1 - labels) * 0.8 + 0.1
    return pd.DataFrame(
        {
            "split": "test",
            "id": [str(i) for i in range(len(groups))],
            "group": groups.astype(str),
            "label": labels,
            "probabilities": list(np.stack([1 - score, score], axis=1)),
        }
    )


@pytest.mark.slow
def test_the_case_interval_covers_the_truth_only_when_drawn_by_patient() -> None:
    rng = np.random.default_rng(0)
    inside = by_image = 0
    trials = 80
    for trial in range(trials):
        frame = _predictions(rng, patients=60, images=20)
        found = case_bootstrap(frame, split="test", resamples=200, seed=trial)["accuracy"]
        inside += found.low <= 0.8 <= found.high  # the mean of Beta(8, 2)
        alone = frame.assign(group=[str(i) for i in range(len(frame))])
        found = case_bootstrap(alone, split="test", resamples=200, seed=trial)["accuracy"]
        by_image += found.low <= 0.8 <= found.high
    assert 0.88 <= inside / trials <= 0.99
    assert by_image / trials < 0.86


def test_case_bootstrap_says_nothing_where_there_is_nothing() -> None:
    frame = _predictions(np.random.default_rng(0), 10, 2)
    assert case_bootstrap(frame, split="validation") == {}
    one_class = frame.assign(label=1)
    assert "auc" not in case_bootstrap(one_class, split="test", resamples=50)


def test_several_draws_of_a_cell_are_averaged_as_its_metrics_are() -> None:
    rng = np.random.default_rng(1)
    first, second = _predictions(rng, 12, 4), _predictions(rng, 12, 4)
    second["group"], second["label"] = first["group"], first["label"]
    found, one, two = (
        case_bootstrap(frame, split="test", resamples=100)
        for frame in (pd.concat([first, second]), first, second)
    )
    assert one != two
    for name in ("accuracy", "auc", "sensitivity", "specificity"):
        mean = (one[name].estimate + two[name].estimate) / 2
        assert found[name].estimate == pytest.approx(mean)
        # The same patients are drawn, so the mean of the draws is what is resampled.
        assert found[name].std <= (one[name].std + two[name].std) / 2 + 1e-9
    doubled = case_bootstrap(pd.concat([first, first]), split="test", resamples=100)
    assert doubled == one


def test_iqm_is_the_mean_of_the_middle_half() -> None:
    assert iqm(np.arange(8.0).reshape(2, 4)) == 3.5
    assert iqm(np.array([[0.0, 1, 2, 100]])) == 1.5
    scores = np.random.default_rng(0).random((7, 10))
    assert iqm(scores) == pytest.approx(stats.trim_mean(scores.ravel(), 0.25))


def shared_luck(rng, tasks: int = 7, seeds: int = 10) -> np.ndarray:
    """(tasks, seeds) runs whose seeds are lucky or not on all tasks alike; the middle is 0.5."""
    return 0.5 + 0.1 * rng.normal(size=(1, seeds)) + 0.03 * rng.normal(size=(tasks, seeds))


def test_the_iqms_interval_holds_where_seeds_are_shared_by_the_tasks() -> None:
    rng, hits, apart = np.random.default_rng(0), 0, 0
    for trial in range(200):
        scores = shared_luck(rng)
        found = paired_iqm(scores, resamples=300, seed=trial)
        hits += found.low <= 0.5 <= found.high
        # What was done until version 0.1: seeds drawn anew for each task.
        index = rng.integers(10, size=(300, 7, 10))
        drawn = scores[np.arange(7)[None, :, None], index].reshape(300, -1)
        low, high = np.percentile(stats.trim_mean(drawn, 0.25, axis=1), [2.5, 97.5])
        apart += low <= 0.5 <= high
    assert 0.87 <= hits / 200 <= 0.97
    assert apart / 200 < 0.7


def test_a_gain_on_the_hardest_task_alone_is_seen() -> None:
    rng = np.random.default_rng(0)
    difficulty = np.array([0.5, 0.7, 0.8, 0.85])[None, :, None]
    scores = difficulty + 0.005 * rng.normal(size=(3, 4, 10))
    better = scores.copy()
    better[1, 0] += 0.10
    assert iqm(better[1]) == pytest.approx(iqm(scores[1]), abs=0.01)  # as they are: nothing
    after = normalised(better)
    assert after.shape == scores.shape
    assert after[1, 0].mean() == pytest.approx(1.0)
    assert after.mean(axis=2).min(axis=0) == pytest.approx(np.zeros(4))
    assert iqm(after[1]) > iqm(after[0]) + 0.1
    flat = np.concatenate([scores, np.ones((3, 1, 10))], axis=1)
    assert np.array_equal(normalised(flat), normalised(scores))  # it tells no method from another
    assert normalised(np.ones((2, 1, 3))).shape == (2, 0, 3)
