"""Two sources of variance at once: a difference of two arms over seeds and over test patients.

The seeds of a run share their test patients, and the patients their trained networks: the two are
crossed. With X the (seeds, patients) differences, var(mean) = MS_seed / SP + MS_patient / SP −
MS_rest / SP, the analysis of variance of two crossed random factors (Searle, Casella and McCulloch
1992, "Variance Components", 4.7), with Satterthwaite's degrees of freedom. More seeds shorten the
first part alone.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats


@dataclass(frozen=True, kw_only=True)
class Crossed:
    """A mean difference with both of its sources.

    Attributes:
        mean: over all seeds and patients.
        se: its standard error over both.
        df: of that error.
        low, high: 95 % interval.
        p: two-sided, of "no difference in the population".
        p_equivalent: of "a difference of the margin or more".
        seeds, patients: how many of each.
    """

    mean: float
    se: float
    df: float
    low: float
    high: float
    p: float
    p_equivalent: float
    seeds: int
    patients: int


def crossed(differences: np.ndarray, margin: float) -> Crossed:
    """Of (seeds, patients) differences whose mean is that of the metric; two of each at least.

    Where the parts over seeds and over patients are no larger than what is left, the larger of the
    two alone counts: a variance is not negative.
    """
    s, p = differences.shape
    mean = float(differences.mean())
    rows, columns = differences.mean(axis=1), differences.mean(axis=0)
    rest = differences - rows[:, None] - columns + mean
    a = float(rows.var(ddof=1)) / s
    b = float(columns.var(ddof=1)) / p
    c = float((rest**2).sum()) / ((s - 1) * (p - 1)) / (s * p)
    variance = max(a + b - c, a, b)
    parts = a**2 / (s - 1) + b**2 / (p - 1) + c**2 / ((s - 1) * (p - 1))
    df = min(max(variance**2 / parts, 1.0), s + p - 2.0) if parts > 0 else s + p - 2.0
    se = math.sqrt(variance)
    half = float(stats.t.ppf(0.975, df)) * se
    if se == 0:
        differs, same = float(mean == 0), float(abs(mean) >= margin)
    else:
        differs = float(2 * stats.t.sf(abs(mean) / se, df))
        same = float(stats.t.sf((margin - abs(mean)) / se, df))
    return Crossed(
        mean=mean, se=se, df=df, low=mean - half, high=mean + half, p=differs, p_equivalent=same,
        seeds=s, patients=p,
    )  # fmt: skip


def right_by_patient(predictions: pd.DataFrame, *, split: str = "test") -> pd.DataFrame:
    """patient → `right` (images answered right, over draws of the method) and `images`.

    Args:
        predictions: of one cell: split, id, group, label, probabilities.
        split: which of them.
    """
    part = predictions[predictions["split"] == split]
    scores = np.stack(part["probabilities"].to_list()) if len(part) else np.zeros((0, 2))
    right = scores.argmax(axis=1) == part["label"].to_numpy()
    frame = pd.DataFrame({"group": part["group"].to_numpy(), "right": right, "images": 1.0})
    draws = max(1, len(part) // max(1, part["id"].nunique()))
    return frame.groupby("group")[["right", "images"]].sum() / draws


def accuracy_differences(arm: list[pd.DataFrame], baseline: list[pd.DataFrame]) -> np.ndarray:
    """(seeds, patients) contributions to the difference in accuracy: their mean is that difference.

    A patient with many images weighs as much in accuracy as they do; accuracy being a ratio, each
    contribution is the linear one: the patient's difference less his share of the seed's.

    Args:
        arm, baseline: of each common seed `right_by_patient`, of the same patients.

    Raises:
        ValueError: the cells were tested on different patients.
    """
    patients = arm[0].index
    if any(not frame.index.equals(patients) for frame in (*arm, *baseline)):
        raise ValueError("the cells were tested on different patients")
    images = arm[0]["images"].to_numpy()
    lines = []
    for ours, theirs in zip(arm, baseline, strict=True):
        found = ours["right"].to_numpy() - theirs["right"].to_numpy()
        difference = found.sum() / images.sum()
        lines.append((found - difference * images) / images.mean() + difference)
    return np.array(lines)
