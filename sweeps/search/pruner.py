"""When is an arm hopeless? A paired test against the best arm, after each seed. No Ray, no Optuna.

All arms share their seeds (common random numbers), so the differences per seed have far less
spread than the values. The test is Wilcoxon's signed-rank test, exact and one-sided: with k seeds
its smallest p is 2^-k, so alpha = 1/8 can stop an arm after three seeds if it lost on each.
`tests/search_tests/test_pruner.py` simulates how often the truly best arm is stopped.
"""

from collections.abc import Mapping, Sequence

ALPHA = 0.125


def signed_rank_p(differences: Sequence[float]) -> float:
    """P(W ≥ w) under symmetry about 0: small where the differences are mostly above 0.

    Exact (Wilcoxon 1945), by counting the 2^k sign patterns; zeros are left out and ties share
    their ranks. 1.0 where nothing is left.
    """
    kept = sorted((d for d in differences if d != 0), key=abs)
    if not kept:
        return 1.0
    doubled: list[int] = []  # twice the rank, so that shared ranks stay whole
    for d in kept:
        below = sum(abs(other) < abs(d) for other in kept)
        equal = sum(abs(other) == abs(d) for other in kept)
        doubled.append(2 * below + equal + 1)
    observed = sum(rank for rank, d in zip(doubled, kept, strict=True) if d > 0)
    counts = {0: 1}  # statistic → how many sign patterns give it
    for rank in doubled:
        after = dict(counts)
        for value, count in counts.items():
            after[value + rank] = after.get(value + rank, 0) + count
        counts = after
    return float(sum(c for value, c in counts.items() if value >= observed) / 2 ** len(kept))


def should_prune(
    values: Mapping[int, float], best: Mapping[int, float], *, alpha: float, maximize: bool
) -> bool:
    """Whether the arm loses to the best one on the seeds that both have, at level `alpha`.

    Args:
        values, best: seed → objective.
    """
    sign = 1.0 if maximize else -1.0
    lost_by = [sign * (best[seed] - value) for seed, value in values.items() if seed in best]
    return signed_rank_p(lost_by) <= alpha
