"""What a trained policy keeps: which iteration's policy is read, and by which rule."""

from collections.abc import Callable

import numpy as np

from selection_core import rivals

READOUTS = {"last": "probability", "best_smoothed_reward": "probability_best"}
"""`policy_readout` → the array of the selection stage that holds that policy."""

FinalRule = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def _threshold(probability: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return probability > 0.5


def _expected_count(
    probability: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    expected = np.bincount(labels, weights=probability).round().astype(int)
    return rivals.lowest(-probability, labels, expected)


def _drawn(probability: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.random(len(probability)) < probability


FINAL_RULES: dict[str, FinalRule] = {
    "threshold": _threshold,
    "expected_count": _expected_count,
    "drawn": _drawn,
}


def final_mask(
    probability: np.ndarray,  # (N,) of keeping each candidate
    labels: np.ndarray,  # (N,) claimed
    rule: str,  # a key of FINAL_RULES
    rng: np.random.Generator,
) -> np.ndarray:
    """(N,) bool: what a trained policy keeps, see `SelectionConfig.final_selection`."""
    return FINAL_RULES[rule](probability, labels, rng)
