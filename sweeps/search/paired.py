"""p-values of paired differences, many comparisons at once: exact sign flips, t, and t made safe
for skewed differences.

What they hold. The sign-flip test is exact where an arm and its baseline are exchangeable under the
null, whatever the law of a seed: the difference is then symmetric. Differences that are lopsided
(only one of two arms has bad seeds) fool it, and the t-test as much: with differences of an
exponential law and mean 0 both reject too often. Hall's transformation of t takes the skewness that
is seen into account; here it counts SKEW times, because a small sample shows too little of it, and
takes away about half of t at most, so that few seeds still find a large effect.

Differences over several partitions of the same images share most of their training images: they
are correlated, and no sign of one may be flipped alone. Their mean has the variance (1/n + o) s²,
o being test images for each one that is learned from, and t is divided by √(1 + n o): Nadeau and
Bengio 2003, "Inference for the generalization error". It is a rule of thumb, as any variance of
overlapping partitions is: no unbiased estimate of it exists.
"""

import math

import numpy as np
from scipy import stats

EXACT_LIMIT = 12
"""Largest n for which all 2^n sign flips are counted; above it the paired t-test decides."""
ROUNDING = 2.0**-23
"""Values that differ by less, relative to the larger of them and 1, are equal: metrics are ratios
of counts, and ledgers of version 0.1 hold them rounded to float32."""
SKEW = 2.0
SHRINKS = -2.0  # of g u: there the transformation is .48 of t, and below it stays so


def sign_flip_p(differences: np.ndarray) -> np.ndarray:
    """Exact two-sided p of "the differences are symmetric about 0", by counting all sign flips.

    p = share of the 2^n sign vectors s with |Σ s_i d_i| ≥ |Σ d_i|. The smallest p is 2^(1-n).

    Args:
        differences: (m, n) one comparison a row, n ≤ EXACT_LIMIT, no NaN.

    Returns:
        (m,) p-values.
    """
    m, n = differences.shape
    # s and −s give the same |sum|: half of the signs are enough, the first one being fixed.
    half = np.array(np.meshgrid(*[[1.0, -1.0]] * (n - 1), indexing="ij")).reshape(n - 1, -1)
    signs = np.vstack([np.ones((1, half.shape[1] if n > 1 else 1)), half])  # (n, 2^(n-1))
    p = np.empty(m)
    step = max(1, 4_000_000 // signs.shape[1])
    for start in range(0, m, step):
        part = differences[start : start + step]
        observed = np.abs(part.sum(axis=1, keepdims=True))
        # Sums that are equal in exact arithmetic differ in the last bits; they count as equal.
        slack = ROUNDING * n * np.maximum(1.0, np.abs(part).max(axis=1, keepdims=True))
        p[start : start + step] = np.mean(np.abs(part @ signs) >= observed - slack, axis=1)
    return p


def moments(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, std (ddof = 1) and skewness (of Fisher's G1) of each row of (m, n), n ≥ 2.

    What is a few ulp is 0, and the skewness of equal differences, or of two, is 0.
    """
    n = differences.shape[1]
    largest = np.maximum(1.0, np.abs(differences).max(axis=1))
    mean, std = differences.mean(axis=1), differences.std(axis=1, ddof=1)
    std = np.where(std <= ROUNDING * largest, 0.0, std)
    mean = np.where(np.abs(mean) <= ROUNDING * largest, 0.0, mean)
    skew = np.zeros(len(mean))
    spread = std > 0
    if n > 2 and spread.any():
        skew[spread] = stats.skew(differences[spread], axis=1, bias=False)
    return mean, std, skew


def skewed_t(mean: np.ndarray, std: np.ndarray, skew: np.ndarray, n: int) -> np.ndarray:
    """Hall's transformation of √n · mean / std: with u = mean / std and g the skewness,
    √n (u + g u² / 3 + g² u³ / 27 + g / 6n), g u no less than SHRINKS. Hall 1992, "On the removal of
    skewness by transformation", JRSS B 54; it grows with u, as t does.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        u = np.where((std == 0) & (mean == 0), 0.0, mean / std)
        g = SKEW * skew
        v = np.maximum(g * u, SHRINKS)
        found = math.sqrt(n) * (u * (1 + v / 3 + v**2 / 27) + g / (6 * n))
    return np.where(np.isfinite(u), found, u)


def widening(n: int, overlap: float) -> float:
    """By how much the standard error of n differences is wider than that of n independent ones."""
    return math.sqrt(1 + n * overlap)


def difference_p(differences: np.ndarray, overlap: float = 0.0) -> np.ndarray:
    """Two-sided p of "the mean difference is 0": (m,) of (m, n), n ≥ 2, no NaN.

    The larger of the exact sign-flip p (up to EXACT_LIMIT pairs; above it, and with an overlap, the
    t-test's) and that of `skewed_t`.

    Args:
        overlap: of partitions, test images for each image that is learned from; 0: independent
            differences.
    """
    n = differences.shape[1]
    mean, std, skew = moments(differences)
    wider = widening(n, overlap)
    safe = 2 * stats.t.sf(np.abs(skewed_t(mean, std, skew, n)) / wider, n - 1)
    if n <= EXACT_LIMIT and not overlap:
        return np.asarray(np.maximum(sign_flip_p(differences), safe))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where((std == 0) & (mean == 0), 0.0, mean / std) * math.sqrt(n)
    return np.asarray(np.maximum(2 * stats.t.sf(np.abs(t) / wider, n - 1), safe))


def equivalence_p(differences: np.ndarray, margin: float, overlap: float = 0.0) -> np.ndarray:
    """p of "the mean difference is at least `margin` either way", by two one-sided tests (TOST).

    Each is the larger p of the t-test and of `skewed_t`, and none is below 2^-n, the smallest that
    a test which counts can reach: n equal differences are no proof beyond that.

    Args:
        differences: (m, n), n ≥ 2, no NaN.
        margin: > 0, in their unit.
        overlap: as in `difference_p`.

    Returns:
        (m,) p-values.
    """
    n = differences.shape[1]
    mean, std, skew = moments(differences)
    found = []
    for off, lopsided in ((margin - mean, -skew), (margin + mean, skew)):
        with np.errstate(divide="ignore", invalid="ignore"):
            t = off / std * math.sqrt(n)
        safe = skewed_t(off, std, lopsided, n)
        t, safe = (np.where(np.isnan(value), -np.inf, value) for value in (t, safe))
        found.append(stats.t.sf(np.minimum(t, safe) / widening(n, overlap), n - 1))
    return np.asarray(np.maximum(np.maximum(*found), 2.0**-n))
