"""Paired differences over common seeds: interval, effect size, exact and t p-values, power.

scipy and statsmodels do the statistics; the tests that decide are `sweeps.search.paired`'s, which a
race asks too. Ours are Holm's step and the bookkeeping of families.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import optimize, stats
from statsmodels.stats.power import TTestPower

from sweeps.search.paired import EXACT_LIMIT, difference_p, moments, sign_flip_p, widening

ALPHA = 0.05
POWER = 0.80
MOST_SEEDS = 1000
"""Seeds needed beyond this are reported as "more than 1000"."""
SIMULATED = 2000  # draws behind the exact test's power: ± 0.02 at 80 %


@dataclass(frozen=True, kw_only=True)
class Paired:
    """One arm minus another over their common seeds.

    Attributes:
        n: common seeds (or partitions).
        mean, std: of the differences (ddof = 1); std is NaN below two.
        low, high: 95 % t-interval of the mean difference, Nadeau and Bengio's for partitions.
        d_z: Cohen's d of paired samples, mean / std.
        p_exact: two-sided sign-flip p over all 2^n signs; NaN above EXACT_LIMIT, and for
            partitions.
        p_t: two-sided paired t-test.
        p: exact where there is one, else the t-test's.
        p_holm: `p` adjusted over the family.
        family: number of comparisons in the family.
        detectable: smallest true difference that the deciding test finds with 80 % power at this n
            and the spread seen, at α / family (Holm's first step); infinite where no effect can
            be found.
        seeds_needed: n for 80 % power of the deciding test at the effect seen; None where it is
            above MOST_SEEDS.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float
    d_z: float
    p_exact: float
    p_t: float
    p: float
    p_holm: float
    family: int
    detectable: float
    seeds_needed: int | None


@lru_cache(maxsize=4096)
def detectable_d(n: int, alpha: float = ALPHA) -> float:
    """Smallest d_z that the deciding test finds with 80 % power; infinite where it finds none.

    Up to EXACT_LIMIT pairs that is the sign-flip test, by simulation with normal differences; above
    it the two-sided paired t-test.
    """
    if n < 2 or (n <= EXACT_LIMIT and 2.0 ** (1 - n) > alpha):
        return math.inf
    if n <= EXACT_LIMIT:
        effects, p = _exact_p(n)
        power = np.mean(p <= alpha, axis=1)
        first = int(np.argmax(power >= POWER))
        if power[first] < POWER:
            return math.inf
        return float(np.interp(POWER, power[first - 1 : first + 1], effects[first - 1 : first + 1]))
    return _detectable_by_t(n, alpha)


@lru_cache(maxsize=4096)
def _detectable_by_t(n: int, alpha: float) -> float:
    """`detectable_d` of the two-sided paired t-test."""

    def shortfall(d: float) -> float:
        # One tail at α/2: where power is 80 % the other tail adds less than 1e-4, and scipy's
        # noncentral t gives NaN there for large effects.
        return float(TTestPower().power(d, n, alpha / 2, alternative="larger")) - POWER

    low, high = 0.0, 0.05
    while shortfall(high) < 0:
        low, high = high, high * 1.5
    try:
        return float(optimize.brentq(shortfall, low, high, xtol=1e-6))
    except ValueError:  # few pairs at a tiny α: scipy's noncentral t has no value there
        return math.inf


@lru_cache(maxsize=EXACT_LIMIT)
def _exact_p(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Effects d (E,), and the p that decides SIMULATED samples of N(d, 1)^n at each (E, SIMULATED).

    The samples of one effect are those of the others, moved: power rises with d without noise.
    """
    effects = np.concatenate([np.arange(0.0, 3.0, 0.1), np.geomspace(3.0, 30.0, 12)])
    noise = np.random.default_rng(n).normal(size=(SIMULATED, n))
    return effects, np.stack([difference_p(noise + d) for d in effects])


def seeds_needed(d_z: float, alpha: float = ALPHA) -> int | None:
    """Fewest pairs with which the deciding test finds an effect of `d_z` with 80 % power.

    None above MOST_SEEDS.
    """
    if math.isnan(d_z) or detectable_d(MOST_SEEDS, alpha) > abs(d_z):
        return None
    resolution = math.ceil(1 + math.log2(1 / alpha))
    for exact in range(max(resolution, 2), EXACT_LIMIT + 1):
        # Where the t-test, which knows the normal law, does not find it, no counting does.
        hopeless = _detectable_by_t(exact, alpha) > 1.1 * abs(d_z)
        if not hopeless and detectable_d(exact, alpha) <= abs(d_z):
            return exact
    low, high = EXACT_LIMIT + 1, MOST_SEEDS
    while low < high:  # detectable_d falls with n
        middle = (low + high) // 2
        if detectable_d(middle, alpha) <= abs(d_z):
            high = middle
        else:
            low = middle + 1
    return low


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values; NaN stays NaN and is no member of the family.

    statsmodels' `multipletests` gives the same (the tests hold it to that) and collects garbage
    at every call, 50 ms in a process of this size; a study has hundreds of families.
    """
    values = np.asarray(p, dtype=float)
    adjusted = np.full(values.shape, np.nan)
    there = np.flatnonzero(~np.isnan(values))
    order = there[np.argsort(values[there], kind="stable")]
    steps = values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def _moments(differences: np.ndarray, overlap: float) -> dict[str, np.ndarray]:
    """Everything of `Paired` that needs no family, for the rows of (m, n) without NaN, n ≥ 2."""
    n = differences.shape[1]
    mean, std, _ = moments(differences)
    wider = widening(n, overlap)
    half = stats.t.ppf(0.975, n - 1) * std / math.sqrt(n) * wider
    with np.errstate(divide="ignore", invalid="ignore"):
        d_z = np.where((std == 0) & (mean == 0), 0.0, mean / std)
    counted = n <= EXACT_LIMIT and not overlap
    exact = sign_flip_p(differences) if counted else np.full(len(mean), np.nan)
    p_t = 2 * stats.t.sf(np.abs(d_z) * math.sqrt(n) / wider, n - 1)
    values = {"mean": mean, "std": std, "low": mean - half, "high": mean + half}
    return values | {"d_z": d_z, "p_exact": exact, "p_t": p_t}


def paired_family(differences: np.ndarray, overlap: float = 0.0) -> list[Paired]:
    """Each row's differences against zero, Holm-adjusted over all rows together.

    Args:
        differences: (m, seeds) arm minus baseline, NaN where either cell is missing.
        overlap: 0 for seeds; of partitions, test images for each one that is learned from.

    Returns:
        one `Paired` a row. Rows with fewer than two common seeds have NaN and are no members of
        the family.
    """
    differences = np.asarray(differences, dtype=float)
    counts = np.sum(~np.isnan(differences), axis=1)
    columns = {
        name: np.full(len(differences), np.nan)
        for name in ("mean", "std", "low", "high", "d_z", "p_exact", "p_t")
    }
    for n in np.unique(counts):
        rows = np.flatnonzero(counts == n)
        if n == 1:
            columns["mean"][rows] = np.nansum(differences[rows], axis=1)
        if n < 2:
            continue
        block = differences[rows]
        for name, values in _moments(
            block[~np.isnan(block)].reshape(len(rows), n), overlap
        ).items():
            columns[name][rows] = values
    p = np.where(np.isnan(columns["p_exact"]), columns["p_t"], columns["p_exact"])
    adjusted = holm(p)
    family = int(np.sum(~np.isnan(p)))
    alpha = ALPHA / max(family, 1)
    return [
        Paired(
            n=int(n),
            **{name: float(values[i]) for name, values in columns.items()},
            p=float(p[i]),
            p_holm=float(adjusted[i]),
            family=family,
            detectable=_times(_detectable(int(n), alpha, overlap), float(columns["std"][i])),
            seeds_needed=None if overlap else seeds_needed(float(columns["d_z"][i]), alpha),
        )
        for i, n in enumerate(counts)
    ]


def _detectable(n: int, alpha: float, overlap: float) -> float:
    if not overlap:
        return detectable_d(n, alpha)
    return widening(n, overlap) * _detectable_by_t(n, alpha) if n > 1 else math.inf


def _times(effect: float, std: float) -> float:
    """In units of the metric; what cannot be found stays infinite, whatever the spread."""
    return math.inf if math.isinf(effect) else effect * std


def exact_limit_sentence(n: int, family: int) -> str:
    """What the exact test cannot say at this n; empty where it can reach 5 %."""
    smallest = 2.0 ** (1 - n)
    if n > EXACT_LIMIT or smallest * max(family, 1) <= ALPHA:
        return ""
    if smallest > ALPHA:
        return (
            f"With n = {n} no exact paired test can reach 0.05: its smallest p is {smallest:.4g}."
        )
    return (
        f"With n = {n} the smallest exact p is {smallest:.4g}; with 5 % over {family} comparisons "
        "it decides none."
    )
