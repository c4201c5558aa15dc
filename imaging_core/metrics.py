"""Classification metrics of one split, from labels and probabilities."""

import numpy as np
import torch
from torch import Tensor

from imaging_core.metric_table import METRICS

__all__ = ["METRICS", "classification_metrics"]


def classification_metrics(
    labels: np.ndarray | Tensor, probabilities: np.ndarray | Tensor
) -> dict[str, float]:
    """accuracy, auc, sensitivity, specificity, balanced_accuracy, as `METRICS` defines them.

    Two classes: the positive class is 1 and the decision is p > 0.5. More classes: accuracy is the
    micro average, the others are macro one-vs-rest.

    Args:
        labels: (N,), 0 … classes − 1.
        probabilities: (N, classes), rows sum to 1.

    Raises:
        ValueError: shapes that do not fit, values that are no probabilities, or a class without
            an example (its AUC is undefined, and torchmetrics would call it 0).
    """
    # Imported here: it takes seconds, and whoever only trains needs none of it.
    from torchmetrics.functional import classification as tm

    y = torch.as_tensor(labels).cpu().long()
    p = torch.as_tensor(probabilities).detach().cpu().float()
    _check(y, p)
    classes = p.shape[1]
    if classes == 2:
        # The Multiclass* functions default to the macro average, where sensitivity equals
        # specificity by construction.
        positive = p[:, 1]
        sensitivity, specificity = tm.binary_recall(positive, y), tm.binary_specificity(positive, y)
        result = {
            "accuracy": tm.binary_accuracy(positive, y),
            "auc": tm.binary_auroc(positive, y),
            "sensitivity": sensitivity,
            "specificity": specificity,
            "balanced_accuracy": (sensitivity + specificity) / 2,
        }
    else:
        macro = {"num_classes": classes, "average": "macro"}
        sensitivity = tm.multiclass_recall(p, y, **macro)
        result = {
            "accuracy": tm.multiclass_accuracy(p, y, num_classes=classes, average="micro"),
            "auc": tm.multiclass_auroc(p, y, **macro),
            "sensitivity": sensitivity,
            "specificity": tm.multiclass_specificity(p, y, **macro),
            "balanced_accuracy": sensitivity,
        }
    return {name: float(value) for name, value in result.items()}


def _check(labels: Tensor, probabilities: Tensor) -> None:
    if probabilities.ndim != 2 or probabilities.shape[1] < 2:
        shape = tuple(probabilities.shape)
        raise ValueError(f"probabilities must be (N, classes) with classes ≥ 2, got {shape}")
    if labels.shape != probabilities.shape[:1]:
        raise ValueError(
            f"labels must be (N,) with N = {len(probabilities)}, got {tuple(labels.shape)}"
        )
    sums = probabilities.sum(dim=1)
    if not bool((probabilities >= 0).all() and (torch.abs(sums - 1) < 1e-3).all()):
        raise ValueError(
            "probabilities must be at least 0 and sum to 1 in each row, got rows that sum to "
            f"{float(sums.min()):.4g} … {float(sums.max()):.4g}; pass softmax outputs, not logits"
        )
    absent = sorted(set(range(probabilities.shape[1])) - set(labels.unique().tolist()))
    if absent:
        raise ValueError(f"every class must have an example, class {absent} has none")
