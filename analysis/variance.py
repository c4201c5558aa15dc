"""Where the uncertainty comes from: seeds against test patients, and task × seed together."""

from collections.abc import Sequence

import numpy as np

from analysis.aggregate import metric_table
from analysis.comparisons import (
    MOST_ROWS,
    arms_of,
    present_metrics,
    values_of,
)
from analysis.resampling import RESAMPLES, Interval, case_bootstrap, normalised, paired_iqm
from analysis.table import MISSING, Entry, Row, Table, number
from analysis.tasks import Method, entry_of, tasks_of
from sweeps.ledger.predictions import DamagedPredictions
from sweeps.ledger.read import Ledger, PredictionReader

MOST_PREDICTIONS = 2000
"""Cells whose predictions are read for the intervals over test cases."""


def _case_spread(
    reader: PredictionReader, keys: Sequence[str], metric: str, damaged: list[str]
) -> tuple[float, int]:
    """Mean over cells of the bootstrap std over test patients, and how many cells have it.

    Args:
        damaged: receives what is wrong with predictions that are left out.
    """
    spreads = []
    for key in keys:
        try:
            predictions = reader.read(key)
        except FileNotFoundError:
            continue
        except DamagedPredictions as error:
            damaged.append(str(error))
            continue
        found = case_bootstrap(predictions, split="test")
        if metric in found:
            spreads.append(found[metric].std)
    return (float(np.mean(spreads)) if spreads else np.nan), len(spreads)


def variance_table(ledger: Ledger, metric_name: str = "accuracy") -> Table | None:
    """How much of the uncertainty is training, and how much is the choice of test patients.

    None where no cell has predictions, or where there are too many to read.
    """
    metric = metric_table(ledger.manifest).get(metric_name)
    there = ledger.cells[ledger.cells["status"] == "ok"]
    if metric is None or there.empty or len(there) > MOST_PREDICTIONS:
        return None
    arms = arms_of(ledger)
    values = values_of(ledger, arms, metric_name)
    damaged: list[str] = []
    rows, read, reader = [], 0, ledger.predictions()
    reader.fetch(there["key"])
    for arm, label in enumerate(arms.labels):
        cells = ledger.cells[arms.row == arm]
        keys = tuple(cells.loc[cells["status"] == "ok", "key"])
        cases, n = _case_spread(reader, keys, metric_name, damaged)
        read += n
        seen = values[arm][~np.isnan(values[arm])]
        seeds = float(np.std(seen, ddof=1)) if len(seen) > 1 else np.nan
        entries = [
            Entry(
                text=number(value, metric.digits) if np.isfinite(value) else MISSING,
                values={"value": value} if np.isfinite(value) else {},
                order=value if np.isfinite(value) else None,
                keys=keys,
            )
            for value in (seeds, cases)
        ]
        rows.append(Row(label=label, entries=(*entries, Entry(text=str(n)))))
    if not read and not damaged:
        return None
    return Table(
        name="variance",
        title=f"{metric.label}: two sources of variance, kept apart",
        stub="arm",
        columns=("std over seeds", "std over test patients", "cells"),
        rows=tuple(rows),
        notes=(
            "over seeds: training anew on the same split and test set (ddof = 1).",
            f"over test patients: bootstrap of whole groups over the stored test predictions of "
            f"each cell ({RESAMPLES} resamples), averaged over cells; the classifier is fixed.",
            "Differences between arms are paired on both: the same seeds, the same test patients.",
            *(f"left out: {why}" for why in damaged),
        ),
    )


def _iqms(scores: np.ndarray) -> list[Interval]:
    """Of each method over its normalised tasks; nothing where too few seeds or tasks are whole.

    Args:
        scores: (methods, tasks, seeds), no NaN.
    """
    if len(scores) < 2 or scores.shape[2] < 2:
        return []
    scaled = normalised(scores)
    return [paired_iqm(method) for method in scaled] if scaled.shape[1] else []


def iqm_table(ledger: Ledger) -> Table | None:
    """Interquartile mean per method over task × seed, where there are several tasks."""
    arms = arms_of(ledger)
    tasks, metrics = tasks_of(arms), present_metrics(ledger)
    if tasks is None or not metrics or len(arms.labels) > MOST_ROWS:
        return None
    entries: dict[Method, list[Entry]] = {method: [] for method in tasks.methods}
    for metric in metrics:
        there, cube = tasks.cube(values_of(ledger, arms, metric.name))
        ours = dict(zip(there, _iqms(cube), strict=False))
        for method, members in tasks.methods.items():
            keys = tuple(ledger.cells["key"].to_numpy()[np.isin(arms.row, members)])
            shown = entry_of(ours[method], "iqm", keys) if method in ours else Entry(text=MISSING)
            entries[method].append(shown)
    rows = [Row(label=", ".join(m), entries=tuple(found)) for m, found in entries.items()]
    return Table(
        name="iqm",
        title=f"Interquartile mean over {tasks.count} tasks × seeds",
        stub="method",
        columns=tuple(m.label for m in metrics),
        rows=tuple(rows),
        notes=(
            f"tasks: the levels of {', '.join(tasks.names)}; seeds that every task and method has.",
            "Each task on its own scale: 0 is the mean of its worst method, 1 that of its best.",
            f"95 % interval: bootstrap of seeds, each with its runs on every task ({RESAMPLES} "
            "resamples).",
        ),
    )
