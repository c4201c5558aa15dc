"""What stored predictions say beyond the cells' metrics: precision-recall and calibration."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis.aggregate import data_names
from analysis.comparisons import arms_of
from analysis.decisions import MOST_PREDICTIONS
from analysis.table import MISSING, Entry, Row, Table, mean_std
from sweeps.ledger.predictions import DamagedPredictions
from sweeps.ledger.read import Ledger

BINS = 15
MEASURES = {"auprc": "AUPRC", "brier": "Brier score", "ece": "Calibration error"}


def average_precision(positive: np.ndarray, score: np.ndarray) -> float:
    """Area under the precision-recall curve, by steps: Σ (R_i − R_{i−1}) P_i over thresholds.

    Args:
        positive: (N,) bool.
        score: (N,) higher is more positive; equal scores are one threshold.
    """
    if not positive.any():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    hits, ends = np.cumsum(positive[order]), np.flatnonzero(np.diff(score[order], append=np.nan))
    found = hits[ends]
    precision, recall = found / (ends + 1), found / found[-1]
    return float(np.sum(np.diff(recall, prepend=0) * precision))


def brier_score(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean squared error of the probabilities: of class 1 where there are two classes, in [0, 1];
    else summed over the classes, in [0, 2].
    """
    if scores.shape[1] == 2:
        return float(np.mean((scores[:, 1] - labels) ** 2))
    return float(np.mean(np.sum((scores - np.eye(scores.shape[1])[labels]) ** 2, axis=1)))


def calibration_error(labels: np.ndarray, scores: np.ndarray) -> float:
    """|share right − mean confidence| over BINS equal bins of confidence, weighted by size."""
    confidence, right = scores.max(axis=1), scores.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))


def measures(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """MEASURES of one test set; AUPRC of more than two classes is their mean, one against the rest.

    Args:
        labels: (N,) int.
        scores: (N, classes) probabilities.
    """
    classes = range(scores.shape[1]) if scores.shape[1] > 2 else (1,)
    areas = [average_precision(labels == c, scores[:, c]) for c in classes]
    return {
        "auprc": float(np.mean(areas)),
        "brier": brier_score(labels, scores),
        "ece": calibration_error(labels, scores),
    }


def cell_measures(predictions: pd.DataFrame, split: str = "test") -> dict[str, float]:
    """`measures` of a cell, averaged over the draws of its method; empty without predictions."""
    part = predictions[predictions["split"] == split]
    found = [
        measures(draw["label"].to_numpy(), np.stack(draw["probabilities"].to_list()).astype(float))
        for _, draw in part.groupby(part.groupby("id").cumcount())
    ]
    return {name: float(np.mean([one[name] for one in found])) for name in MEASURES if found}


def _entry(values: list[float], keys: tuple[str, ...]) -> Entry:
    if not values:
        return Entry(text=MISSING)
    mean = float(np.mean(values))
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    said: Mapping[str, float] = {"mean": mean} | ({} if std is None else {"std": std})
    return Entry(text=mean_std(mean, std, 3), values=said, order=mean, keys=keys)


def calibration_table(ledger: Ledger) -> Table | None:
    """AUPRC, Brier score and calibration error per arm, from the stored test predictions.

    None where no cell has any, or where there are too many to read.
    """
    there = ledger.cells[ledger.cells["status"] == "ok"]
    if there.empty or len(there) > MOST_PREDICTIONS:
        return None
    arms, reader, rows, read = arms_of(ledger), ledger.predictions(), [], 0
    for arm, label in enumerate(arms.labels):
        cells = ledger.cells[arms.row == arm]
        keys = tuple(cells.loc[cells["status"] == "ok", "key"])
        found: dict[str, list[float]] = {name: [] for name in MEASURES}
        for key in keys:
            try:
                values = cell_measures(reader.read(key))
            except (FileNotFoundError, DamagedPredictions):
                continue  # none; the table of variances names what is damaged
            read += bool(values)
            for name, value in values.items():
                found[name].append(value)
        rows.append(Row(label=label, entries=tuple(_entry(found[n], keys) for n in MEASURES)))
    if not read:
        return None
    return Table(
        name="calibration",
        title=f"Precision-recall and calibration on test, {', '.join(data_names(ledger.manifest))} "
        "(exploratory)",
        stub="arm",
        columns=tuple(MEASURES.values()),
        rows=tuple(rows),
        notes=(
            "from the stored predictions, without training; mean ± std over seeds (ddof = 1).",
            "AUPRC: area under the precision-recall curve by steps, higher is better (more than "
            "two classes: their mean, one against the rest). Brier score: mean squared error of "
            f"probabilities, lower is better. Calibration error: over {BINS} bins of "
            "confidence, lower is better.",
        ),
    )
