"""Classification metrics of one split, from labels and probabilities."""

import numpy as np
from torch import Tensor

from imaging_core.datasets.base import Split
from imaging_core.metric_table import METRICS

__all__ = ["METRICS", "classification_metrics"]


def classification_metrics(
    labels: np.ndarray | Tensor, probabilities: np.ndarray | Tensor
) -> dict[str, float]:
    """accuracy, auc, sensitivity, specificity, balanced_accuracy, as `METRICS` defines them.

    Two classes: the positive class is 1 and the decision is p > 0.5. More classes: accuracy is the
    micro average, the others are macro one-vs-rest. Every value is a ratio of counts, in float64:
    arms that err equally often have equal numbers, which the exact paired tests rely on.

    Args:
        labels: (N,), 0 … classes − 1.
        probabilities: (N, classes), rows sum to 1.

    Raises:
        ValueError: shapes that do not fit, values that are no probabilities, or a class without
            an example (its AUC is undefined).
    """
    y, p = _checked(labels, probabilities)
    classes = p.shape[1]
    decided = (p[:, 1] > 0.5).astype(int) if classes == 2 else p.argmax(axis=1)
    counts = confusion(y, decided, classes)
    own = counts.sum(axis=1)  # (classes,) examples of each class
    right = counts.diagonal()
    claimed = counts.sum(axis=0)  # how often each class was the answer
    recall = right / own
    if classes == 2:
        sensitivity, specificity = recall[1], recall[0]
        auc = area_under_roc(y == 1, p[:, 1])
    else:
        rejected = len(y) - own - (claimed - right)  # (classes,) of the rest, answered otherwise
        sensitivity, specificity = recall.mean(), (rejected / (len(y) - own)).mean()
        auc = float(np.mean([area_under_roc(y == c, p[:, c]) for c in range(classes)]))
    return {
        "accuracy": float(right.sum() / len(y)),
        "auc": auc,
        "sensitivity": float(sensitivity),
        "specificity": float(specificity),
        "balanced_accuracy": float(recall.mean()),
    }


def study_metrics(
    labels: np.ndarray | Tensor, probabilities: np.ndarray | Tensor, studies: np.ndarray
) -> dict[str, float]:
    """study_accuracy and kappa: every study decided once, by the mean probability of its images.

    As MURA is scored (Rajpurkar et al. 2018, sections 3 and 4): Cohen's κ = (p_o − p_e) / (1 − p_e)
    with p_o the share of studies on which decision and label agree, and p_e what two that know
    nothing of each other would agree on by their shares of the classes.

    Args:
        labels: (N,), 0 … classes − 1; one label a study.
        probabilities: (N, classes).
        studies: (N,) the study of each image.

    Raises:
        ValueError: as `classification_metrics`, or a study with two labels.
    """
    y, p = _checked(labels, probabilities)
    names, of = np.unique(studies, return_inverse=True)
    images = np.bincount(of)
    mean = np.stack([np.bincount(of, column) / images for column in p.T.astype(float)], axis=1)
    label = np.zeros(len(names), dtype=np.int64)
    label[of] = y
    if len(mixed := names[np.unique(of[label[of] != y])]):
        raise ValueError(f"a study has one label, {', '.join(map(str, mixed[:3]))} has several")
    classes = p.shape[1]
    decided = (mean[:, 1] > 0.5).astype(int) if classes == 2 else mean.argmax(axis=1)
    counts = confusion(label, decided, classes)
    total, right = len(names), int(counts.trace())
    by_chance = int(counts.sum(axis=0) @ counts.sum(axis=1))  # p_e · total²
    certain = total * total == by_chance  # all of one class, in both
    kappa = 1.0 if certain else (right * total - by_chance) / (total * total - by_chance)
    return {"study_accuracy": right / total, "kappa": kappa}


def metrics_of(part: Split, probabilities: np.ndarray) -> dict[str, float]:
    """`classification_metrics` of one part of a dataset, and `study_metrics` where it has studies.

    Args:
        probabilities: (N, classes), in the order of the part.
    """
    found = classification_metrics(part.labels, probabilities)
    if part.studies is not None:
        found |= study_metrics(part.labels, probabilities, part.studies)
    return found


def confusion(labels: np.ndarray, decided: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes) int64: how many examples of class i were answered j."""
    return np.bincount(labels * classes + decided, minlength=classes * classes).reshape(
        classes, classes
    )


def area_under_roc(positive: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve from Mann-Whitney's U, ties worth one half.

    U is a whole number of halves and is divided once, so that equal areas are equal numbers.

    Args:
        positive: (N,) bool, with at least one of each kind.
        scores: (N,), higher for the positive ones.
    """
    from scipy.stats import rankdata  # takes a while to import, and who only trains needs it not

    of_positive = int(positive.sum())
    doubled = int((2 * rankdata(scores)[positive]).sum()) - of_positive * (of_positive + 1)
    return doubled / (2 * of_positive * (len(positive) - of_positive))


def _checked(
    labels: np.ndarray | Tensor, probabilities: np.ndarray | Tensor
) -> tuple[np.ndarray, np.ndarray]:
    labels, probabilities = (
        x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
        for x in (labels, probabilities)
    )
    if probabilities.ndim != 2 or probabilities.shape[1] < 2:
        shape = tuple(probabilities.shape)
        raise ValueError(f"probabilities must be (N, classes) with classes ≥ 2, got {shape}")
    if labels.shape != probabilities.shape[:1]:
        raise ValueError(
            f"labels must be (N,) with N = {len(probabilities)}, got {tuple(labels.shape)}"
        )
    sums = probabilities.sum(axis=1)
    if not ((probabilities >= 0).all() and (np.abs(sums - 1) < 1e-3).all()):
        raise ValueError(
            "probabilities must be at least 0 and sum to 1 in each row, got rows that sum to "
            f"{sums.min():.4g} … {sums.max():.4g}; pass softmax outputs, not logits"
        )
    absent = sorted(set(range(probabilities.shape[1])) - set(labels.tolist()))
    if absent:
        raise ValueError(f"every class must have an example, class {absent} has none")
    return labels.astype(np.int64), probabilities
