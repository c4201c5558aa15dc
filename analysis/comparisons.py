"""The arms of a study, what they are called, and the table of all of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pandas as pd

from analysis.aggregate import Metric, aggregate, data_names, entry, level_names, metric_table
from analysis.reading import Same
from analysis.table import MISSING, Row, Table, number
from sweeps.ledger.declared import TASK_FACTORS
from sweeps.ledger.read import Ledger

MOST_ROWS = 200
"""Arms in one table; of a larger study the best by the first metric are shown, and it is said."""


@dataclass(frozen=True, kw_only=True)
class Arms:
    """The arms of a study and each cell's place among arms × seeds.

    Attributes:
        labels: what tells each arm apart, in plan order.
        levels: of each arm.
        seeds: in ascending order.
        row, column: for each cell of the frame, its arm and its seed.
    """

    labels: tuple[str, ...]
    levels: tuple[Mapping[str, str], ...]
    seeds: tuple[int, ...]
    row: np.ndarray
    column: np.ndarray

    def matrix(self, values: pd.Series) -> np.ndarray:
        """(arms, seeds) of a column of the frame, NaN where there is no cell."""
        filled = np.full((len(self.labels), len(self.seeds)), np.nan)
        filled[self.row, self.column] = values.to_numpy(dtype=float)
        return filled


MANY_FACTORS = 3
TWIN, TWIN_OF = "test_at_best_val", "accuracy"
"""Cells carry the first because a paper prints it; tables show it where it is not the second."""


def arm_names(ledger: Ledger) -> dict[str, str]:
    """arm → what tells it apart: the levels that vary, or, where more than three factors do, what
    differs from the baseline ("target = as-printed", "default").
    """
    levels = {cell.arm: cell.levels for cell in ledger.manifest.cells}
    names = dict.fromkeys(name for each in levels.values() for name in each)
    varied = [n for n in names if len({each.get(n) for each in levels.values()}) > 1]
    if len(varied) <= MANY_FACTORS:
        shown = {
            n: level_names(n, (each[n] for each in levels.values() if n in each)) for n in varied
        }
        return {
            arm: ", ".join(shown[n][each[n]] for n in varied if n in each) or arm
            for arm, each in levels.items()
        }
    baseline = ledger.manifest.baseline
    moves = {
        arm: [f"{n} = {each[n]}" for n in varied if n in each and each[n] != baseline.get(n)]
        for arm, each in levels.items()
    }
    return {arm: ", ".join(moved) or "default" for arm, moved in moves.items()}


def arms_of(ledger: Ledger) -> Arms:
    """The arms in plan order; of one ledger they are found once."""
    return _arms(Same(ledger))


@lru_cache(maxsize=2)
def _arms(same: Same[Ledger]) -> Arms:
    ledger = same.thing
    levels = {cell.arm: cell.levels for cell in ledger.manifest.cells}
    labels = arm_names(ledger)
    seeds = sorted(set(ledger.cells["seed"]))
    return Arms(
        labels=tuple(labels.values()),
        levels=tuple(levels.values()),
        seeds=tuple(seeds),
        row=pd.Index(labels).get_indexer(ledger.cells["arm"]),
        column=pd.Index(seeds).get_indexer(ledger.cells["seed"]),
    )


def baseline_name(ledger: Ledger) -> str:
    """The baseline arm as tables name it, without the task's own levels."""
    levels = {n: v for n, v in ledger.manifest.baseline.items() if n not in TASK_FACTORS}
    return "the default" if len(levels) > MANY_FACTORS else ", ".join(levels.values()) or "baseline"


def values_of(ledger: Ledger, arms: Arms, metric: str) -> np.ndarray:
    """(arms, seeds) of `metric`, NaN where the cell is missing or failed."""
    column = f"metric.{metric}"
    if column not in ledger.cells:
        return np.full((len(arms.labels), len(arms.seeds)), np.nan)
    return arms.matrix(ledger.cells[column].where(ledger.cells["status"] == "ok"))


def present_metrics(ledger: Ledger) -> list[Metric]:
    """The metrics that at least one cell carries, with as many digits as their size asks for."""
    cells, found = ledger.cells, []
    for metric in metric_table(ledger.manifest).values():
        column = f"metric.{metric.name}"
        if column not in cells or not cells[column].notna().any():
            continue
        if metric.name == TWIN and same_as(cells, TWIN_OF):
            continue
        largest = float(cells[column].abs().max())
        digits = 3 if metric.fraction or largest < 10 else (2 if largest < 100 else 1)
        found.append(replace(metric, digits=digits))
    return found


def same_as(cells: pd.DataFrame, other: str) -> bool:
    """Whether TWIN is the metric `other` in every cell."""
    column = f"metric.{other}"
    return column in cells and cells[f"metric.{TWIN}"].equals(cells[column])


def best_first(values: np.ndarray, metric: Metric) -> tuple[list[int], tuple[str, ...]]:
    """Which arms a table shows, in plan order, and the note where these are not all."""
    if len(values) <= MOST_ROWS:
        return list(range(len(values))), ()
    seen = ~np.isnan(values)
    mean = np.where(seen, values, 0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    lower_first = metric.higher_is_better is False
    mean = np.where(seen.any(axis=1), mean, np.inf if lower_first else -np.inf)
    order = np.argsort(mean if lower_first else -mean, kind="stable")[:MOST_ROWS]
    how = "highest" if metric.higher_is_better is None else "best"
    note = f"{MOST_ROWS} of {len(values)} arms are shown, the {how} by mean {metric.label}."
    return sorted(int(i) for i in order), (note,)


def arms_table(ledger: Ledger) -> Table:
    """Every arm × metric, mean ± std over seeds."""
    arms, metrics = arms_of(ledger), present_metrics(ledger)
    notes = ("mean ± std over seeds (ddof = 1); n is shown where it is not the planned number.",)
    shown = list(range(min(len(arms.labels), MOST_ROWS)))
    if metrics:
        shown, more = best_first(values_of(ledger, arms, metrics[0].name), metrics[0])
        notes += more
    wanted = np.flatnonzero(np.isin(arms.row, shown))
    groups = ledger.cells.iloc[wanted].groupby(arms.row[wanted], sort=True)
    rows = []
    for arm, cells in groups:
        entries = [entry(aggregate(cells, m.name), digits=m.digits) for m in metrics]
        rows.append(Row(label=arms.labels[arm], entries=tuple(entries)))
    failures = int((ledger.cells["status"] == "failed").sum())
    missing = int((ledger.cells["status"] == "missing").sum())
    if failures or missing:
        notes += (f"Of {len(ledger.cells)} planned cells {failures} failed, {missing} missing.",)
    return Table(
        name="arms",
        title=f"{ledger.manifest.study}: every arm on {', '.join(data_names(ledger.manifest))}",
        stub="arm",
        columns=tuple(m.label for m in metrics),
        rows=tuple(rows),
        notes=notes,
    )


def probability(p: float) -> str:
    """A p-value as printed; what cannot be computed is shown as missing."""
    if np.isnan(p):
        return MISSING
    return "<.0001" if p < 1e-4 else number(p, 4)
