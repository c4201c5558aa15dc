"""Statistics against scipy, statsmodels, literals and simulation."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from analysis.inference import (
    EXACT_LIMIT,
    Paired,
    detectable_d,
    exact_limit_sentence,
    holm,
    paired_family,
    seeds_needed,
)
from sweeps.search.paired import difference_p, sign_flip_p


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
    assert math.isnan(one.p)


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


def power_of(n: int, d: float, alpha: float) -> float:
    """Of the test that decides, by simulation of its own."""
    samples = np.random.default_rng(12345).normal(d, 1, size=(20_000, n))
    if n > EXACT_LIMIT:
        return float(np.mean(stats.ttest_1samp(samples, 0, axis=1).pvalue <= alpha))
    return float(np.mean(difference_p(samples[:4000]) <= alpha))


@pytest.mark.parametrize(
    ("d", "n", "family"),
    [(0.5, 34, 1), (0.8, 15, 1), (1.0, 13, 1), (1.5, 9, 1), (1.5, 13, 5), (0.5, 65, 20)],
)
def test_seeds_for_80_percent_power_of_the_test_that_decides(d: float, n: int, family: int) -> None:
    assert seeds_needed(d, 0.05 / family) == seeds_needed(-d, 0.05 / family) == n
    assert power_of(n - 1, d, 0.05 / family) < 0.82
    assert power_of(n, d, 0.05 / family) > 0.78


@pytest.mark.parametrize(("n", "family"), [(6, 1), (8, 1), (8, 5), (10, 20), (12, 5), (20, 5)])
def test_the_detectable_effect_is_found_with_80_percent_power(n: int, family: int) -> None:
    alpha = 0.05 / family
    d = detectable_d(n, alpha)
    assert power_of(n, d, alpha) == pytest.approx(0.80, abs=0.025)


def test_the_t_tests_effect_would_not_be_found_by_the_exact_test() -> None:
    # What was printed as detectable until version 0.1: the t-test's own.
    assert power_of(8, 1.49, 0.05 / 5) < 0.66
    assert power_of(5, 1.68, 0.05) == 0.0


def test_nothing_is_detectable_below_the_resolution_of_the_test() -> None:
    assert detectable_d(5) == math.inf
    assert detectable_d(7, 0.05 / 5) == math.inf
    assert detectable_d(1) == math.inf
    (found,) = paired_family(np.array([[0.1, 0.2, 0.3, 0.4, 0.5]]))
    assert found.detectable == math.inf


def test_seeds_needed_never_fall_below_what_the_exact_test_needs() -> None:
    assert seeds_needed(50.0, 0.05) == 6  # 2^(1-6) = 0.031
    assert seeds_needed(math.inf, 0.05 / 6) == 8  # 2^(1-8) = 0.0078
    assert seeds_needed(0.01) is None
    assert seeds_needed(math.nan) is None


def exact_p(differences: list[Fraction]) -> float:
    """Sign flips counted in exact arithmetic."""
    observed, sums = abs(sum(differences)), [Fraction(0)]
    for d in differences:
        sums = [total + sign * d for total in sums for sign in (1, -1)]
    return sum(abs(total) >= observed for total in sums) / len(sums)


@pytest.mark.long
@pytest.mark.parametrize("rounded", [np.float64, np.float32])
@pytest.mark.parametrize(("n", "images"), [(5, 100), (8, 100), (8, 768), (11, 100)])
def test_ties_on_a_lattice_are_ties_in_float64_and_in_old_ledgers_float32(
    n: int, images: int, rounded: type
) -> None:
    rng = np.random.default_rng(n)
    right = rng.integers(int(0.8 * images), int(0.9 * images), size=(40, 2, n))
    values = (right / images).astype(rounded).astype(float)
    expected = [
        exact_p([Fraction(int(a - b), images) for a, b in zip(*pair, strict=True)])
        for pair in right
    ]
    assert sign_flip_p(values[:, 0] - values[:, 1]).tolist() == expected


def test_a_constant_gap_of_one_image_has_no_spread() -> None:
    right = np.array([[83, 87, 91, 79, 85, 88, 90, 84]])
    values = np.stack([right, right - 1]).astype(np.float32) / np.float32(100)
    (found,) = paired_family((values[0] - values[1]).astype(float))
    assert (found.std, found.d_z, found.p) == (0.0, math.inf, 2 / 2**8)


def test_the_sentence_about_five_seeds() -> None:
    assert exact_limit_sentence(5, 1) == (
        "With n = 5 no exact paired test can reach 0.05: its smallest p is 0.0625."
    )
    assert "with 5 % over 6 comparisons it decides none" in exact_limit_sentence(6, 6)
    assert exact_limit_sentence(8, 6) == ""
    assert exact_limit_sentence(20, 1000) == ""


def coverage(draw, mean: float, n: int) -> float:
    found = paired_family(draw((4000, n)))
    return float(np.mean([pair.low <= mean <= pair.high for pair in found]))


@pytest.mark.slow
def test_what_the_95_percent_interval_covers_is_what_the_readme_says() -> None:
    rng = np.random.default_rng(0)

    def collapsing(shape):
        return rng.normal(0, 1, shape) - 10 * (rng.random(shape) < 0.1)

    said = {
        "normal": (lambda shape: rng.normal(0.3, 1, shape), 0.3, (0.95, 0.95, 0.95)),
        "skewed": (lambda shape: rng.exponential(1, shape), 1.0, (0.88, 0.91, 0.92)),
        "one in ten collapses": (collapsing, -1.0, (0.78, 0.73, 0.87)),
    }
    for draw, mean, covers in said.values():
        for n, expected in zip((5, 10, 20), covers, strict=True):
            assert coverage(draw, mean, n) == pytest.approx(expected, abs=0.02)
    off = paired_family(rng.normal(0.3, 1, size=(4000, 10)))
    assert np.mean([p.low <= 0.9 <= p.high for p in off]) < 0.9


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

    def text(answer: str | None = "better", price: str = "", **values: float) -> str:
        return verdict(paired(**values), answer, Unlike(), printed=0.15, price=price).text

    assert text() == "confirmed (n = 10)"
    assert text("worse", mean=-0.1) == "contradicted (n = 10)"
    # Ours .002 [.001, .002] is no replication of a printed .046.
    small = {"mean": 0.002, "low": 0.001, "high": 0.002}
    assert text(**small) == "same direction, smaller effect than printed (n = 10)"
    assert text("equivalent") == "no difference that matters (n = 10)"
    assert text("undecided", "about 7 more seeds") == "undecided (n = 10; about 7 more seeds)"
    # What the study did not declare decides nothing, however small its p.
    assert text(None, p_holm=1e-6) == "exploratory (n = 10)"
    data = Unlike(data="ours are a, the printed values are b")
    said = verdict(paired(), "better", data, printed=0.15)
    assert (said.label, said.text, said.ours) == (
        "different data", "different data", "on ours: confirmed (n = 10)",
    )  # fmt: skip
    other = Unlike(setting=("protocol held-out (printed: paper)",))
    setting = verdict(paired(mean=-0.1), "worse", other, printed=0.15)
    assert setting.label == setting.text == "different setting"
    assert setting.ours == "on ours: contradicted (n = 10)"
