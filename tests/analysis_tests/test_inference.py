"""Statistics against scipy, statsmodels, literals and simulation."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from analysis.inference import (
    EXACT_LIMIT,
    Paired,
    decided_best,
    detectable_d,
    exact_limit_sentence,
    holm,
    paired_family,
    seeds_needed,
    sign_flip_p,
)


@pytest.mark.parametrize("n", [2, 5, 8, 11])
def test_sign_flip_equals_scipys_exact_permutation_test(n: int) -> None:
    rng = np.random.default_rng(n)
    differences = rng.normal(0.4, 1, size=(6, n))
    expected = [
        stats.permutation_test(
            (row,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=False
        ).pvalue
        for row in differences
    ]
    np.testing.assert_allclose(sign_flip_p(differences), expected, atol=1e-12)


def test_sign_flip_literals() -> None:
    same_sign = np.array([[1.0, 2.0, 3.0, 4.0, 5.0]])
    assert sign_flip_p(same_sign)[0] == 0.0625  # 2 of 2^5: the smallest that five pairs can reach
    assert sign_flip_p(np.array([[1.0, -1.0]]))[0] == 1.0
    assert sign_flip_p(np.zeros((1, 4)))[0] == 1.0
    # 0.1 + 0.2 and 0.3 differ in the last bit and must count as the tie they are.
    assert sign_flip_p(np.array([[0.1, 0.2, -0.3]]))[0] == 1.0


def test_more_comparisons_than_one_block_give_the_same_p() -> None:
    differences = np.random.default_rng(0).normal(size=(5000, 12))
    whole = sign_flip_p(differences)
    np.testing.assert_array_equal(whole[4000:], sign_flip_p(differences[4000:]))


def test_paired_values_equal_scipy() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.8, 0.1, 10), rng.normal(0.7, 0.1, 10)
    (found,) = paired_family((a - b)[None])
    expected = stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    assert found.p_t == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.d_z == pytest.approx((a - b).mean() / (a - b).std(ddof=1))
    assert found.p == found.p_exact == found.p_holm


def test_five_seeds_interval_is_124_percent_of_the_std() -> None:
    (found,) = paired_family(np.array([[0.1, 0.2, 0.3, 0.4, 0.5]]))
    assert (found.high - found.mean) / found.std == pytest.approx(1.2416, abs=1e-4)


def test_only_common_seeds_count_and_a_single_one_decides_nothing() -> None:
    nan = math.nan
    full, four, one, none = paired_family(
        np.array([[1.0, 2, 3, 4, 6], [nan, 2, 3, 4, 6], [nan, nan, nan, nan, 6], [nan] * 5])
    )
    assert (full.n, four.n, one.n, none.n) == (5, 4, 1, 0)
    assert four.mean == 3.75
    assert one.mean == 6
    assert math.isnan(one.p)
    assert math.isnan(none.mean)
    assert full.family == 2
    assert not one.decided


def test_equal_differences_have_no_spread() -> None:
    (found,) = paired_family(np.array([[0.3, 0.1 + 0.2, 0.3]]))
    assert found.std == 0
    assert found.d_z == math.inf
    assert found.p == 0.25
    (none,) = paired_family(np.zeros((1, 5)))
    assert (none.d_z, none.p, none.p_holm) == (0.0, 1.0, 1.0)


def test_the_paired_t_test_decides_where_flips_are_too_many() -> None:
    differences = np.random.default_rng(1).normal(0.5, 1, size=(1, EXACT_LIMIT + 1))
    (found,) = paired_family(differences)
    assert math.isnan(found.p_exact)
    assert found.p == pytest.approx(stats.ttest_1samp(differences[0], 0).pvalue)


def test_holm_literal_and_statsmodels() -> None:
    # 0.01·4, 0.02·3, 0.03·2 raised to 0.06, 0.5·1
    np.testing.assert_allclose(holm([0.03, 0.01, 0.5, 0.02]), [0.06, 0.04, 0.5, 0.06])
    p = np.random.default_rng(0).random(20) ** 3
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])
    np.testing.assert_allclose(holm([0.03, math.nan, 0.01]), [0.03, math.nan, 0.02])


@pytest.mark.parametrize(("d", "n"), [(0.5, 34), (0.8, 15), (1.0, 10), (1.5, 6)])
def test_seeds_for_80_percent_power(d: float, n: int) -> None:
    assert seeds_needed(d) == seeds_needed(-d) == n
    power = 1 - stats.nct.cdf(stats.t.ppf(0.975, n - 1), n - 1, d * math.sqrt(n))
    less = 1 - stats.nct.cdf(stats.t.ppf(0.975, n - 2), n - 2, d * math.sqrt(n - 1))
    assert less < 0.8 <= power


@pytest.mark.parametrize(
    ("n", "alpha", "d"), [(5, 0.05, 1.68), (10, 0.05, 1.0), (5, 0.01, 2.63), (10, 0.01, 1.33)]
)
def test_detectable_effect(n: int, alpha: float, d: float) -> None:
    assert detectable_d(n, alpha) == pytest.approx(d, abs=0.005)


def test_seeds_needed_never_fall_below_what_the_exact_test_needs() -> None:
    assert seeds_needed(50.0, 0.05) == 6  # 2^(1-6) = 0.031
    assert seeds_needed(math.inf, 0.05 / 6) == 8  # 2^(1-8) = 0.0078
    assert seeds_needed(0.01) is None
    assert seeds_needed(math.nan) is None


def test_the_sentence_about_five_seeds() -> None:
    assert exact_limit_sentence(5, 1) == (
        "With n = 5 no exact paired test can reach 0.05: its smallest p is 0.0625."
    )
    assert "Holm over 6 comparisons" in exact_limit_sentence(6, 6)
    assert exact_limit_sentence(8, 6) == ""
    assert exact_limit_sentence(20, 1000) == ""


def test_best_is_marked_only_when_decided() -> None:
    noise = 0.01 * np.random.default_rng(0).normal(size=10)
    apart = np.stack([noise, noise + 0.1 + 0.01 * np.arange(10), noise - 0.05 * np.arange(1, 11)])
    assert decided_best(apart) == 1
    assert decided_best(-apart, higher_is_better=False) == 1
    assert decided_best(apart[:, :5]) is None  # n = 5 can decide nothing
    close = np.stack([apart[1], apart[1] + noise])
    assert decided_best(close) is None
    assert decided_best(apart[:1]) is None


@pytest.mark.slow
def test_the_95_percent_interval_covers_95_percent() -> None:
    rng = np.random.default_rng(0)
    for n in (5, 10):
        found = paired_family(rng.normal(0.3, 1, size=(6000, n)))
        inside = np.mean([p.low <= 0.3 <= p.high for p in found])
        assert 0.93 <= inside <= 0.97
        assert np.mean([p.low <= 0.9 <= p.high for p in found]) < 0.9


def test_holm_keeps_the_family_wise_error_at_5_percent_on_null_data() -> None:
    # Five arms against one baseline, ten seeds, nothing different; the baseline's own noise makes
    # the comparisons dependent, and every seed has an effect of its own that pairing removes.
    rng = np.random.default_rng(0)
    tables = 3000
    seeds = rng.normal(0, 3, size=(tables, 1, 10))
    cells = seeds + rng.normal(size=(tables, 6, 10))
    p = sign_flip_p((cells[:, 1:] - cells[:, :1]).reshape(-1, 10)).reshape(tables, 5)
    rejected = np.array([holm(row).min() <= 0.05 for row in p])
    assert rejected.mean() <= 0.05
    assert (p <= 0.05).any(axis=1).mean() > 0.10  # without Holm: what the test would catch


def paired(**values: float) -> Paired:
    base = {
        "n": 10, "mean": 0.1, "std": 0.1, "low": 0.0, "high": 0.2, "d_z": 1.0, "p_exact": 0.01,
        "p_t": 0.01, "p": 0.01, "p_holm": 0.01, "family": 1, "detectable": 0.1, "seeds_needed": 10,
    }  # fmt: skip
    return Paired(**{**base, **values})


def test_verdict_rules() -> None:
    from analysis.likeness import Unlike
    from analysis.verdicts import verdict

    def text(**values: float) -> str:
        return verdict(paired(**values), Unlike()).text

    assert text() == "confirmed (n = 10)"
    assert text(mean=-0.1) == "contradicted (n = 10)"
    assert text(p_holm=0.05) == "confirmed (n = 10)"
    assert text(p_holm=0.051, seeds_needed=17) == "undecided (n = 10; about 7 more seeds)"
    assert text(p_holm=0.2, n=5, seeds_needed=6) == "undecided (n = 5; about 1 more seed)"
    assert text(p_holm=0.2, n=10, seeds_needed=8) == "undecided (n = 10; about 1 more seed)"
    assert text(p_holm=1.0, mean=0.0, std=0.0) == "undecided (n = 10; equal on every seed)"
    assert text(p_holm=1.0, seeds_needed=None) == "undecided (n = 10; more than 1000 seeds in all)"
    assert text(p_holm=math.nan, n=1, seeds_needed=None) == (
        "undecided (n = 1; too few common seeds to say how many more)"
    )
    assert text(mean=0.0, p_holm=0.001).startswith("undecided")
    data = verdict(paired(), Unlike(data="ours are a, the printed values are b"))
    assert (data.label, data.text, data.ours) == (
        "different data", "different data", "on ours: confirmed (n = 10)",
    )  # fmt: skip
    setting = verdict(paired(mean=-0.1), Unlike(setting=("protocol held-out (printed: paper)",)))
    assert setting.label == setting.text == "different setting"
    assert setting.ours == "on ours: contradicted (n = 10)"
