"""The stopping rule: its p-values against literals and scipy, its error rate by simulation."""

import numpy as np
import pytest
from scipy import stats

from sweeps.search.pruner import ALPHA, should_prune, signed_rank_p


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1.0], 1 / 2),
        ([1.0, 2.0, 3.0], 1 / 8),
        ([-1.0, 2.0, 3.0], 2 / 8),
        ([1.0, 2.0, -3.0], 5 / 8),
        ([-1.0, -2.0, -3.0], 1.0),
        ([0.0, 1.0, 2.0, 3.0], 1 / 8),  # a seed on which both are equal says nothing
        ([0.0, 0.0], 1.0),
        ([1.0, 1.0, -1.0], 4 / 8),  # ties share rank 2: sums 0, 2, 2, 2, 4, 4, 4, 6
        ([], 1.0),
    ],
)
def test_the_exact_p_value_of_small_samples(differences, p):
    assert signed_rank_p(differences) == p


def test_without_ties_it_is_scipys_exact_test():
    generator = np.random.default_rng(0)
    for k in (4, 7, 10):
        d = generator.normal(0.3, 1, k)
        theirs = stats.wilcoxon(d, alternative="greater", method="exact").pvalue
        assert signed_rank_p(list(d)) == pytest.approx(theirs, abs=1e-12)


def test_only_seeds_that_both_have_count_and_the_direction_of_the_metric_too():
    best = {0: 0.9, 1: 0.9, 2: 0.9, 3: 0.9}
    assert should_prune({0: 0.8, 1: 0.7, 2: 0.6}, best, alpha=0.125, maximize=True)
    assert not should_prune({0: 0.8, 1: 0.7, 9: 0.1}, best, alpha=0.125, maximize=True)
    assert not should_prune({0: 0.8, 1: 0.7, 2: 0.6}, best, alpha=0.125, maximize=False)
    assert should_prune({0: 1.0, 1: 1.1, 2: 1.2}, best, alpha=0.125, maximize=False)


def simulate(gap: float, *, arms: int = 20, seeds: int = 5, runs: int):
    """(rate at which the truly best arm is stopped, share of cells that are never computed).

    Args:
        gap: of the best arm's mean to all others', in standard deviations of a paired difference.
    """
    generator = np.random.default_rng(7)
    stopped = saved = 0
    for _ in range(runs):
        values = generator.normal(0, np.sqrt(0.5), (arms, seeds))
        best = generator.integers(arms)
        values[best] += gap
        complete: list[int] = []
        for arm in range(arms):
            for k in range(1, seeds):
                rival = max(complete, key=lambda a: values[a].mean(), default=None)
                if rival is not None and should_prune(
                    dict(enumerate(values[arm, :k])),
                    dict(enumerate(values[rival])),
                    alpha=ALPHA,
                    maximize=True,
                ):
                    stopped += arm == best
                    saved += seeds - k
                    break
            else:
                complete.append(arm)
    return stopped / runs, saved / (runs * arms * seeds)


@pytest.mark.long
@pytest.mark.parametrize(
    ("gap", "most_stopped", "least_saved"),
    [(0.5, 0.17, 0.12), (1.0, 0.04, 0.15), (2.0, 0.005, 0.20)],
)
def test_how_often_the_truly_best_of_twenty_arms_is_stopped(gap, most_stopped, least_saved):
    """Over 1000 runs 12 %, 1.8 % and 0 % were, and 14 %, 18 % and 24 % of the cells were saved."""
    stopped, saved = simulate(gap, runs=200)
    assert stopped <= most_stopped
    assert saved >= least_saved
