"""Precision-recall and calibration of predictions, against scikit-learn and torchmetrics."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, brier_score_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from analysis.calibration import calibration_table, measures
from sweeps.ledger.read import read_ledger


@pytest.mark.parametrize("classes", [2, 4])
def test_measures_are_those_of_the_libraries(classes: int) -> None:
    rng = np.random.default_rng(classes)
    labels = rng.integers(classes, size=300)
    scores = np.round(rng.dirichlet(np.ones(classes), size=300), 2) + 1e-3  # ties among them
    scores /= scores.sum(axis=1, keepdims=True)
    found = measures(labels, scores)
    ones = np.eye(classes)[labels]
    if classes == 2:
        assert found["auprc"] == pytest.approx(average_precision_score(labels, scores[:, 1]))
        assert found["brier"] == pytest.approx(brier_score_loss(labels, scores[:, 1]))
    else:
        assert found["auprc"] == pytest.approx(average_precision_score(ones, scores))
        assert found["brier"] == pytest.approx(((scores - ones) ** 2).sum(axis=1).mean())
    error = multiclass_calibration_error(
        torch.tensor(scores), torch.tensor(labels), num_classes=classes, n_bins=15
    )
    assert found["ece"] == pytest.approx(float(error), abs=1e-6)


def test_the_table_is_made_of_what_is_stored(controller_study: Path) -> None:
    table = calibration_table(read_ledger(str(controller_study)))
    assert table.columns == ("AUPRC", "Brier score", "Calibration error")
    assert len(table.rows) == 6
    assert all(0 <= entry.values["mean"] <= 1 for row in table.rows for entry in row.entries)
    assert table.title.endswith("(exploratory)")
