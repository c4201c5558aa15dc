"""Seeds and test patients together: the parts of the variance, and the error over both."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.anova import anova_lm

from analysis.patients import accuracy_differences, crossed, right_by_patient


def predictions(right: np.ndarray, groups: np.ndarray, draws: int = 1) -> pd.DataFrame:
    """Of one cell: label 1 everywhere, answered right where `right`."""
    probabilities = [[0.2, 0.8] if ok else [0.8, 0.2] for ok in right]
    one = pd.DataFrame({
        "split": "test", "id": [f"i{n}" for n in range(len(right))], "group": groups, "label": 1,
        "probabilities": probabilities,
    })  # fmt: skip
    other = one.assign(split="validation")
    return pd.concat([*[one] * draws, other])


def test_contributions_have_the_difference_in_accuracy_as_their_mean() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(["a", "b", "c", "d"], [1, 9, 2, 4])
    ours, theirs = (rng.random((3, 16)) < share for share in (0.9, 0.6))
    arm, baseline = (
        [right_by_patient(predictions(line, groups, draws)) for line in lines]
        for lines, draws in ((ours, 2), (theirs, 1))
    )
    found = accuracy_differences(arm, baseline)
    assert found.shape == (3, 4)
    np.testing.assert_allclose(found.mean(axis=1), ours.mean(axis=1) - theirs.mean(axis=1))
    others = right_by_patient(predictions(ours[0], np.char.add(groups, "2")))
    with pytest.raises(ValueError, match="tested on different patients"):
        accuracy_differences(arm, [others] * 3)


def test_the_standard_error_is_that_of_a_two_way_analysis_of_variance() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1, (6, 1)) + rng.normal(0, 2, 9) + rng.normal(0, 1, (6, 9))
    seed, patient = np.indices(x.shape)
    frame = pd.DataFrame({"x": x.ravel(), "seed": seed.ravel(), "patient": patient.ravel()})
    table = anova_lm(smf.ols("x ~ C(seed) + C(patient)", frame).fit())
    a, b, c = table["mean_sq"]
    found = crossed(x, 1.0)
    assert found.se**2 == pytest.approx((a + b - c) / x.size)
    assert found.mean == pytest.approx(x.mean())
    assert (found.seeds, found.patients) == (6, 9)
    assert found.low < found.mean < found.high
    constant = crossed(np.zeros((4, 5)), 0.01)
    assert (constant.p, constant.p_equivalent) == (1.0, 0.0)


def test_arms_that_are_equal_in_the_population_are_decided_at_most_5_percent_of_the_time() -> None:
    # As in a real run: what an arm is worth differs from patient to patient, and not with the seed.
    rng = np.random.default_rng(2)
    runs, seeds, patients = 700, 20, 60
    of_patient = rng.normal(0, 0.1, (runs, 1, patients))
    of_seed = rng.normal(0, 0.007, (runs, seeds, 1))
    x = of_patient + of_seed + rng.normal(0, 0.22, (runs, seeds, patients))
    both = [crossed(each, 0.03) for each in x]
    assert np.mean([one.p <= 0.05 for one in both]) <= 0.05 + 1.65 * 0.0083
    over_seeds = stats.ttest_1samp(x.mean(axis=2), 0, axis=1).pvalue
    assert np.mean(over_seeds <= 0.05) > 0.25  # what seeds alone would call decided
    edge = [crossed(each + 0.03, 0.03) for each in x]
    assert np.mean([one.p_equivalent <= 0.05 for one in edge]) <= 0.05 + 1.65 * 0.0083
