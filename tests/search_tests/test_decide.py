"""Decisions at looks: the boundaries of Lan and DeMets, and the errors that are promised.

The simulations ask the code that decides. Long ones: `tests/benchmarks/decisions.py`.
"""

import itertools

import numpy as np
import pytest
from scipy import stats

from sweeps.search.decide import Rule, decide
from sweeps.search.looks import boundaries, levels, schedule
from sweeps.search.paired import difference_p, equivalence_p, skewed_t

RACE = (12, 16, 24, 32, 40)


def test_boundaries_are_those_of_lan_and_demets() -> None:
    times, alpha = np.arange(1, 6) / 5, 0.025
    fleming = 2 * stats.norm.sf(stats.norm.isf(alpha / 2) / np.sqrt(times))
    pocock = alpha * np.log(1 + (np.e - 1) * times)
    # Reboussin, DeMets, Kim and Lan 2000, Controlled Clinical Trials 21: five looks, 2.5 %.
    assert boundaries(times, np.diff(fleming, prepend=0), sides=1) == pytest.approx(
        [4.877, 3.357, 2.680, 2.290, 2.031], abs=2e-3
    )
    assert boundaries(times, np.diff(pocock, prepend=0), sides=1) == pytest.approx(
        [2.438, 2.427, 2.410, 2.397, 2.386], abs=2e-3
    )


def test_one_look_has_the_whole_error_and_more_spend_it_step_by_step() -> None:
    assert levels((8,), 0.05, sides=2) == (0.05,)
    found = levels(RACE, 0.01, sides=2)
    assert found[0] == pytest.approx(0.01 * (12 / 40) ** 2)
    assert found[-1] < 0.01 < sum(found)
    with pytest.raises(ValueError, match="ascending numbers of seeds from 2 on, got \\(8, 8\\)"):
        levels((8, 8), 0.05, sides=2)
    with pytest.raises(ValueError, match="from 2 on, got \\(1, 8\\)"):
        levels((1, 8), 0.05, sides=2)
    assert schedule(40) == RACE
    assert schedule(24) == (12, 16, 24)
    assert schedule(8) == (8,)
    assert schedule(80) == (*RACE, 56, 72, 80)


def test_a_study_of_one_seed_decides_nothing() -> None:
    (found,) = decide(np.array([[0.5]]), Rule(looks=(1,), margin=0.01, error=0.05, family=1))
    assert (found.answer, found.seeds) == ("undecided", 0)


def test_two_one_sided_tests_are_those_of_statsmodels() -> None:
    from statsmodels.stats.weightstats import DescrStatsW

    rng = np.random.default_rng(0)
    for n in (9, 30):
        values = rng.normal(0.002, 0.01, size=n)
        values = np.concatenate([values, 2 * values.mean() - values])  # no skewness: Hall's is t
        p, _, _ = DescrStatsW(values).ttost_mean(-0.01, 0.01)
        expected = max(p, 2.0 ** -len(values))
        assert equivalence_p(values[None], 0.01)[0] == pytest.approx(expected, rel=1e-6)
        t = stats.ttest_1samp(values, 0)
        if len(values) > 12:
            assert difference_p(values[None])[0] == pytest.approx(t.pvalue, rel=1e-6)


def test_the_t_for_skewed_differences_is_monotone_and_turns_with_the_data() -> None:
    u = np.linspace(-3, 3, 200)
    for skew in (-2.0, 0.0, 1.5):
        found = skewed_t(u, np.ones(200), np.full(200, skew), 12)
        assert (np.diff(found) >= 0).all()
        np.testing.assert_allclose(
            skewed_t(-u, np.ones(200), np.full(200, -skew), 12), -found, atol=1e-12
        )


def test_equal_differences_are_equivalent_only_as_far_as_counting_goes() -> None:
    assert equivalence_p(np.zeros((1, 6)), 0.01) == pytest.approx([2.0**-6])
    assert equivalence_p(np.full((1, 6), 0.01), 0.01) == pytest.approx([1.0])
    assert difference_p(np.zeros((1, 20))) == pytest.approx([1.0])


def rule(**values: object) -> Rule:
    return Rule(**{"looks": RACE, "margin": 0.01, "error": 0.05, "family": 3, **values})


def test_three_answers_and_the_look_that_gave_them() -> None:
    noise = np.random.default_rng(1).normal(0, 0.004, size=(4, 40))
    means = np.array([[0.03], [-0.03], [0.0], [0.0085]])
    found = decide(means + noise, rule())
    assert [one.answer for one in found] == ["better", "worse", "equivalent", "better"]
    assert [one.seeds for one in found[:2]] == [12, 12]
    lower = decide(means + noise, rule(higher_is_better=False))
    assert [one.answer for one in lower] == ["worse", "better", "equivalent", "worse"]


def test_what_comes_after_an_answer_changes_nothing() -> None:
    # A race stops the arm; the cells of a later look, were they there, must not be asked again.
    rng = np.random.default_rng(2)
    differences = rng.normal(0.004, 0.008, size=(16, 40))
    whole = decide(differences, rule(family=16))
    assert len({one.seeds for one in whole}) > 2
    for one, line in zip(whole, differences, strict=True):
        later = line.copy()
        later[one.seeds :] = rng.normal(-1, 1, size=40 - one.seeds)
        assert decide(later[None], rule(family=16))[0] == one


def test_a_look_waits_for_its_cells_and_a_failed_one_is_left_out() -> None:
    differences = np.full((1, 12), 0.03) + np.random.default_rng(3).normal(0, 0.004, size=12)
    differences[0, 5] = np.nan
    settled = np.ones((1, 12), dtype=bool)
    settled[0, 5] = False
    waiting = decide(differences, rule(family=1), settled=settled)
    assert (waiting[0].answer, waiting[0].seeds) == ("undecided", 0)
    failed = decide(differences, rule(family=1))
    assert (failed[0].answer, failed[0].n, failed[0].seeds) == ("better", 11, 12)


def exchangeable(kind: str, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A seed's value in an arm: std 1, "collapsing" ones 10 std lower in one of ten."""
    if kind == "normal":
        return rng.normal(size=shape)
    if kind == "skewed":
        return rng.exponential(size=shape)
    return rng.normal(size=shape) - 10 * (rng.random(shape) < 0.1)


def wrong(kind: str, shift: float, margin: float, studies: int, arms: int = 3) -> float:
    """Share of races with a wrong answer or more: `arms` against one baseline, all `shift` off."""
    rng = np.random.default_rng(len(kind))
    cells = exchangeable(kind, rng, (studies, arms + 1, 24))
    differences = cells[:, 1:] - cells[:, :1] + shift
    found = decide(
        differences.reshape(-1, 24),
        Rule(looks=(12, 16, 24), margin=margin, error=0.05, family=arms),
    )
    bad = ("better", "worse") if shift == 0 else ("worse", "equivalent")
    answers = np.array([one.answer in bad for one in found]).reshape(studies, arms)
    return float(answers.any(axis=1).mean())


@pytest.mark.parametrize("kind", ["normal", "skewed", "collapsing"])
def test_family_wise_error_of_a_race_is_at_most_5_percent(kind: str) -> None:
    assert wrong(kind, 0.0, 2.0, 600) <= 0.05 + 1.65 * 0.009
    assert wrong(kind, 2.0, 2.0, 600) <= 0.05 + 1.65 * 0.009


def test_without_spending_the_looks_would_err_twice_as_often() -> None:
    # The simulation can fail: every look at the full level.
    rng = np.random.default_rng(0)
    differences = rng.normal(size=(3000, 40))
    naive = np.zeros(3000, dtype=bool)
    for look in RACE:
        naive |= difference_p(differences[:, :look]) <= 0.05
    spent = decide(differences, Rule(looks=RACE, margin=1e-9, error=0.05, family=1))
    assert naive.mean() > 0.08
    assert np.mean([one.answer != "undecided" for one in spent]) <= 0.055


def test_holms_step_down_would_err_too_often_with_equivalence_in_the_same_error() -> None:
    # One arm at the margin's edge, one equal to the baseline; known std, to see the rule alone.
    z = np.random.default_rng(0).normal(size=(40_000, 2))
    edge = 4.2
    z[:, 0] += edge
    differs = 2 * stats.norm.sf(np.abs(z))
    same = stats.norm.sf(edge - np.abs(z))

    def errs(step_down: bool) -> float:
        wrongly = np.zeros(len(z), dtype=bool)
        for first, second in itertools.permutations((0, 1)):
            decided = np.minimum(differs[:, first], same[:, first]) <= 0.025
            said_equal = (differs[:, first] > 0.025) & (same[:, first] <= 0.025)
            wrongly |= said_equal if first == 0 else differs[:, 1] <= 0.025
            if step_down:
                said_equal = (differs[:, second] > 0.05) & (same[:, second] <= 0.05)
                again = said_equal if second == 0 else differs[:, 1] <= 0.05
                wrongly |= decided & again
        return float(wrongly.mean())

    assert errs(step_down=False) <= 0.051
    assert errs(step_down=True) == pytest.approx(0.074, abs=0.004)
