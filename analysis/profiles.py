"""Several tasks at once: how often a method's run beats the baseline's, and performance profiles.

Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice": the
probability of improvement (section 4.3) and run-score distributions (section 4.2). Seeds are
resampled with their runs on every task, as for the IQM.
"""

import numpy as np
import pandas as pd

from analysis.aggregate import Metric
from analysis.comparisons import MOST_ROWS, arms_of, present_metrics, values_of
from analysis.generic import headline_metric
from analysis.resampling import RESAMPLES, Interval, normalised, seed_counts, spread
from analysis.table import MISSING, Entry, Row, Table
from analysis.tasks import Method, entry_of, tasks_of
from sweeps.ledger.declared import TASK_FACTORS
from sweeps.ledger.read import Ledger

THRESHOLDS = np.linspace(-0.5, 1.5, 81)
"""Of a run's score, 0 being the mean of a task's worst method and 1 that of its best."""


def improvement(ours: np.ndarray, baseline: np.ndarray) -> Interval:
    """P(a run of ours is above one of the baseline's), the mean over tasks; ties count half.

    Args:
        ours, baseline: (tasks, seeds), no NaN, more being better.
    """
    left, right = ours[:, :, None], baseline[:, None, :]
    wins = ((left > right) + 0.5 * (left == right)).mean(axis=0)  # (seeds, seeds)
    counts = seed_counts(ours.shape[1])
    drawn = np.einsum("bi,ij,bj->b", counts, wins, counts) / ours.shape[1] ** 2
    return spread(float(wins.mean()), drawn)


def profile(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of runs above each of THRESHOLDS, and its 95 % interval: three of (thresholds,).

    Args:
        scores: (tasks, seeds) on comparable scales (`resampling.normalised`), no NaN.
    """
    above = (scores[:, :, None] > THRESHOLDS).mean(axis=0)  # (seeds, thresholds)
    drawn = seed_counts(scores.shape[1]) @ above / scores.shape[1]
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    return above.mean(axis=0), low, high


def improvement_table(ledger: Ledger) -> Table | None:
    """The probability of improvement over the baseline of each method, per metric that has a better
    way; None where the study has one task, or no baseline among its methods.
    """
    arms = arms_of(ledger)
    tasks = tasks_of(arms)
    metrics = [m for m in present_metrics(ledger) if m.higher_is_better is not None]
    baseline = _baseline(ledger)
    if tasks is None or baseline not in tasks.methods or not metrics:
        return None
    others = [method for method in tasks.methods if method != baseline]
    if not others or len(arms.labels) > MOST_ROWS:
        return None
    entries: dict[Method, list[Entry]] = {method: [] for method in others}
    for metric in metrics:
        methods, cube = tasks.cube(values_of(ledger, arms, metric.name))
        places = {method: place for place, method in enumerate(methods)}
        sign = -1 if metric.higher_is_better is False else 1
        for method in others:
            found = Entry(text=MISSING)
            if {method, baseline} <= places.keys() and cube.shape[2] > 1:
                behind = np.isin(arms.row, [*tasks.methods[method], *tasks.methods[baseline]])
                found = entry_of(
                    improvement(sign * cube[places[method]], sign * cube[places[baseline]]),
                    "probability",
                    tuple(ledger.cells["key"].to_numpy()[behind]),
                )
            entries[method].append(found)
    return Table(
        name="improvement",
        title=f"Probability of improvement over {', '.join(baseline)}, {tasks.count} tasks",
        stub="method",
        columns=tuple(m.label for m in metrics),
        rows=tuple(Row(label=", ".join(m), entries=tuple(e)) for m, e in entries.items()),
        notes=(
            "The chance that a run of the method is better than a run of the baseline on a task "
            "drawn at random (.50: neither is); ties count half. It says nothing of by how much.",
            f"tasks: the levels of {', '.join(tasks.names)}; seeds that every task and method has.",
            f"95 % interval: bootstrap of seeds, each with its runs on every task ({RESAMPLES} "
            "resamples). Exploratory: decides nothing.",
        ),
    )


def _baseline(ledger: Ledger) -> Method:
    levels = ledger.manifest.baseline
    return tuple(level for name, level in levels.items() if name not in TASK_FACTORS)


def profiles(ledger: Ledger) -> tuple[Metric, pd.DataFrame] | None:
    """The primary metric, and a row for each method and threshold: `arm`, `threshold`, `share`,
    `low`, `high`; None where there is one task, one method, or fewer than two common seeds.
    """
    metric, arms = headline_metric(ledger), arms_of(ledger)
    tasks = tasks_of(arms)
    if metric is None or tasks is None or len(tasks.methods) < 2:
        return None
    methods, cube = tasks.cube(values_of(ledger, arms, metric.name))
    if len(methods) < 2 or cube.shape[2] < 2:
        return None
    scaled = normalised(-cube if metric.higher_is_better is False else cube)
    if not scaled.shape[1]:
        return None
    found = []
    for method, scores in zip(methods, scaled, strict=True):
        share, low, high = profile(scores)
        found.append(
            pd.DataFrame(
                {"arm": ", ".join(method), "threshold": THRESHOLDS, "share": share,
                 "low": low, "high": high, "runs": scores.size}
            )
        )  # fmt: skip
    return metric, pd.concat(found, ignore_index=True)
