"""Bootstraps: test cases by patient over the stored predictions, and task × seed matrices."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A point estimate, the std of its bootstrap distribution and the 95 % percentile interval."""

    estimate: float
    std: float
    low: float
    high: float


def spread(estimate: float, draws: np.ndarray) -> Interval:
    """The interval of an estimate from its bootstrap draws, NaN ones left out."""
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return Interval(
        estimate=float(estimate),
        std=float(np.nanstd(draws, ddof=1)),
        low=float(low),
        high=float(high),
    )


def group_weights(groups: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each example is drawn when whole groups are drawn with replacement.

    Args:
        groups: (N,) the patient of each example.
        resamples: number of bootstrap samples B.
        rng: the generator.

    Returns:
        (B, N) counts; examples of one patient share theirs.
    """
    _, index = np.unique(groups, return_inverse=True)
    patients = int(index.max()) + 1
    draws = rng.multinomial(patients, np.full(patients, 1 / patients), size=resamples)
    return draws[:, index].astype(float)


def weighted_accuracy(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Accuracy of argmax under each row of `weights`: (B,). `scores` (N, classes)."""
    right = (scores.argmax(axis=1) == labels).astype(float)
    return weights @ right / weights.sum(axis=1)


def weighted_recall(
    labels: np.ndarray, scores: np.ndarray, weights: np.ndarray, label: int
) -> np.ndarray:
    """Share of class `label` that argmax finds, under each row of `weights`: (B,)."""
    is_class = (labels == label).astype(float)
    found = is_class * (scores.argmax(axis=1) == label)
    with np.errstate(invalid="ignore"):
        return weights @ found / (weights @ is_class)


def weighted_auc(positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve, ties worth one half, under each row of `weights`: (B,).

    Σ_{i+, j−} w_i w_j (1[s_i > s_j] + ½ 1[s_i = s_j]) / (Σ w+ Σ w−).
    """
    order = np.argsort(score, kind="stable")
    w, is_positive = weights[:, order], positive[order].astype(bool)
    _, block = np.unique(score[order], return_inverse=True)
    starts = np.flatnonzero(np.diff(block, prepend=-1))
    plus = np.add.reduceat(np.where(is_positive, w, 0.0), starts, axis=1)
    minus = np.add.reduceat(np.where(is_positive, 0.0, w), starts, axis=1)
    below = np.cumsum(minus, axis=1) - minus
    pairs = plus.sum(axis=1) * minus.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (plus * (below + minus / 2)).sum(axis=1) / pairs


def case_metrics(
    labels: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Accuracy, AUC, sensitivity and specificity under each row of `weights`.

    Two classes: class 1 is the positive one. More: the unweighted mean over classes, one against
    the rest. A resample without one of the classes gives NaN.

    Args:
        labels: (N,) int.
        scores: (N, classes) probabilities.
        weights: (B, N).

    Returns:
        metric → (B,).
    """
    classes = scores.shape[1]
    accuracy = weighted_accuracy(labels, scores, weights)
    if classes == 2:
        return {
            "accuracy": accuracy,
            "auc": weighted_auc(labels == 1, scores[:, 1], weights),
            "sensitivity": weighted_recall(labels, scores, weights, 1),
            "specificity": weighted_recall(labels, scores, weights, 0),
        }
    guess = scores.argmax(axis=1)
    each: dict[str, list[np.ndarray]] = {"auc": [], "sensitivity": [], "specificity": []}
    for c in range(classes):
        each["auc"].append(weighted_auc(labels == c, scores[:, c], weights))
        each["sensitivity"].append(weighted_recall(labels, scores, weights, c))
        rest = (labels != c).astype(float)
        with np.errstate(invalid="ignore"):
            each["specificity"].append(weights @ (rest * (guess != c)) / (weights @ rest))
    return {"accuracy": accuracy} | {k: np.mean(v, axis=0) for k, v in each.items()}


def case_bootstrap(
    predictions: pd.DataFrame, *, split: str, resamples: int = RESAMPLES, seed: int = 0
) -> Mapping[str, Interval]:
    """How far a metric would move with other test patients, the trained classifier being fixed.

    Args:
        predictions: of one cell: split, id, group, label, probabilities. An id that comes once
            per draw of the method gives means over the draws, as in the cell's metrics.
        split: which split ("test").
        resamples: bootstrap samples.
        seed: of the resampling; equal groups give equal resamples, so that cells of one test set
            are resampled alike.

    Returns:
        metric → interval; empty where the split has no predictions.
    """
    part = predictions[predictions["split"] == split]
    if part.empty:
        return {}
    draws_of = [draw for _, draw in part.groupby(part.groupby("id").cumcount())]
    rng = np.random.default_rng(seed)
    weights = group_weights(draws_of[0]["group"].to_numpy(), resamples, rng)
    whole = _mean_metrics(draws_of, np.ones((1, weights.shape[1])))
    drawn = _mean_metrics(draws_of, weights)
    return {
        name: spread(float(whole[name][0]), draws)
        for name, draws in drawn.items()
        if np.isfinite(whole[name][0]) and np.isfinite(draws).sum() > 1
    }


def _mean_metrics(draws: list[pd.DataFrame], weights: np.ndarray) -> dict[str, np.ndarray]:
    """`case_metrics` of each draw (the same cases in the same order), averaged."""
    each = [
        case_metrics(
            draw["label"].to_numpy(),
            np.stack(draw["probabilities"].to_list()).astype(float),
            weights,
        )
        for draw in draws
    ]
    return {name: np.mean([found[name] for found in each], axis=0) for name in each[0]}


def seed_counts(seeds: int, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """(resamples, seeds) how often each seed is drawn when seeds are drawn with replacement."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples).astype(float)


def iqm(scores: np.ndarray) -> float:
    """Interquartile mean of all runs pooled: the mean of the middle half."""
    return float(stats.trim_mean(np.asarray(scores, dtype=float), 0.25, axis=None))


def normalised(scores: np.ndarray) -> np.ndarray:
    """Each task on its own scale: 0 is the mean of its worst method, 1 that of its best.

    Without it a hard task lies below the middle half of all runs whatever a method does there.

    Args:
        scores: (methods, tasks, seeds), no NaN.

    Returns:
        (methods, tasks, seeds), no NaN, without the tasks whose methods all have one mean.
    """
    means = scores.mean(axis=2, keepdims=True)
    worst, best = means.min(axis=0), means.max(axis=0)  # (tasks, 1)
    differ = (best > worst)[:, 0]
    return (scores[:, differ] - worst[differ]) / (best - worst)[differ]


def paired_iqm(scores: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """IQM over a task × seed matrix; seeds are resampled, each with its runs on every task.

    A seed's runs share their split, subset and initial weights over the tasks, so that they are one
    draw and not one for each task: resampled apart, an interval would be too short.

    Args:
        scores: (tasks, seeds), no NaN, on comparable scales (`normalised`).
        resamples: bootstrap samples.
        seed: of the resampling.
    """
    seeds = scores.shape[1]
    index = np.random.default_rng(seed).integers(seeds, size=(resamples, seeds))
    drawn = scores[:, index].transpose(1, 0, 2).reshape(resamples, -1)
    return spread(iqm(scores), stats.trim_mean(drawn, 0.25, axis=1))
