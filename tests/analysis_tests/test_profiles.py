"""Probability of improvement and performance profiles over several tasks."""

import numpy as np
import pytest
from scipy import stats
from toy_ledgers import make_ledger

from analysis.figures import plt, profile_figures
from analysis.profiles import THRESHOLDS, improvement, improvement_table, profile, profiles
from sweeps.ledger.read import read_ledger

TASKS = ("10", "25", "50")


def study(root, value, **more):
    return read_ledger(
        str(
            make_ledger(
                root,
                factors={"k_shot": TASKS, "method": ("none", "ours")},
                tables=(),
                metrics=("accuracy",),
                value=value,
                **more,
            )
        )
    )


def test_it_is_mann_and_whitneys_u_averaged_over_tasks() -> None:
    rng = np.random.default_rng(2)
    ours, theirs = np.round(rng.normal(0.3, 1, (2, 3, 7)), 1)  # rounded: there are ties
    each = [
        stats.mannwhitneyu(a, b).statistic / (len(a) * len(b))
        for a, b in zip(ours, theirs, strict=True)
    ]
    found, turned = improvement(ours, theirs), improvement(theirs, ours)
    assert found.estimate == pytest.approx(np.mean(each))
    assert turned.estimate == pytest.approx(1 - found.estimate)
    assert turned.low == pytest.approx(1 - found.high)
    assert found.low < found.estimate < found.high


def test_its_interval_holds_where_seeds_are_shared_by_the_tasks() -> None:
    rng = np.random.default_rng(4)
    effect, covered, trials = 0.8, [], 100
    truth = stats.norm.cdf(effect / np.sqrt(2 * (1 + 0.5**2)))
    for _ in range(trials):
        luck = rng.normal(size=(2, 1, 20))  # of a seed, on every task
        ours, theirs = luck + 0.5 * rng.normal(size=(2, 4, 20))
        found = improvement(ours + effect, theirs)
        covered.append(found.low <= truth <= found.high)
    assert np.mean(covered) >= 0.9


def test_a_profile_is_the_share_of_runs_above_each_score() -> None:
    scores = np.array([[0.0, 0.5, 1.0, 0.25], [0.1, 0.9, 0.9, 0.2]])
    share, low, high = profile(scores)
    for tau, found in zip(THRESHOLDS, share, strict=True):
        assert found == np.mean(scores > tau)
    assert ((low <= share) & (share <= high)).all()
    assert (np.diff(share) <= 0).all()


def test_the_table_has_a_row_for_each_rival_and_the_figure_a_line(tmp_path) -> None:
    def value(levels, seed, _metric):
        return 0.5 + int(levels["k_shot"]) / 200 + 0.05 * (levels["method"] == "ours") + seed / 100

    ledger = study(tmp_path, value)
    table = improvement_table(ledger)
    (row,) = table.rows
    assert row.label == "ours"
    assert row.entries[0].values["probability"] == 1.0  # .05 ahead, seeds differ by .04
    assert len(row.entries[0].keys) == 30
    metric, frame = profiles(ledger)
    assert metric.name == "accuracy"
    ((_, figure),) = profile_figures(ledger)
    (ax,) = figure.axes
    lines = {line.get_label().split(" ")[0]: line.get_ydata() for line in ax.lines}
    assert set(lines) == {"none", "ours"}
    assert (lines["ours"] >= lines["none"]).all()
    assert frame["runs"].unique().tolist() == [15]
    plt.close(figure)


def test_the_twin_with_other_signs_loses(tmp_path) -> None:
    ledger = study(tmp_path, lambda levels, seed, _: 0.7 - 0.05 * (levels["method"] == "ours"))
    (row,) = improvement_table(ledger).rows
    assert row.entries[0].values["probability"] == 0.0


def test_one_task_has_neither(tmp_path) -> None:
    ledger = read_ledger(str(make_ledger(tmp_path)))
    assert improvement_table(ledger) is None
    assert profiles(ledger) is None
    assert list(profile_figures(ledger)) == []


def test_too_few_common_seeds_are_shown_as_missing(tmp_path) -> None:
    ledger = study(tmp_path, None, seeds=(0, 1), missing=(0,))
    (row,) = improvement_table(ledger).rows
    assert row.entries[0].text == "—"
    assert profiles(ledger) is None
