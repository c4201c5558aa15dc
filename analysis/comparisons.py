"""The study's own tables: every arm, and paired differences against its baseline."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.aggregate import Metric, aggregate, data_names, entry, level_names, metric_table
from analysis.inference import EXACT_LIMIT, Paired, exact_limit_sentence, paired_family
from analysis.model import MISSING, Entry, Row, Table, interval, number
from analysis.verdicts import more_seeds
from sweeps.ledger.read import Ledger

MOST_ROWS = 200
"""Arms in one table; of a larger study the best by the first metric are shown, and it is said."""
TASK_FACTORS = ("data", "body_part", "view", "k_shot", "pool", "pool_kind", "pool_label_noise")
"""Factors that change the task and not the method: an arm is compared within its own task."""


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
NO_COMMON_SEEDS = (
    "No arm has a finished seed in common with {}, so nothing can be compared; give them the same "
    "--seeds."
)


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
    """The arms in plan order."""
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
        largest = float(cells[column].abs().max())
        digits = 3 if metric.fraction or largest < 10 else (2 if largest < 100 else 1)
        found.append(replace(metric, digits=digits))
    return found


def _shown(values: np.ndarray, metric: Metric) -> tuple[list[int], tuple[str, ...]]:
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
        shown, more = _shown(values_of(ledger, arms, metrics[0].name), metrics[0])
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


def reference_rows(arms: Arms, baseline: Mapping[str, str]) -> np.ndarray:
    """For each arm, the row of the baseline arm within the same task; −1 where there is none."""
    identity = {tuple(sorted(levels.items())): row for row, levels in enumerate(arms.levels)}
    method = {name: level for name, level in baseline.items() if name not in TASK_FACTORS}
    rows = []
    for levels in arms.levels:
        own = {name: level for name, level in method.items() if name in levels}
        rows.append(identity.get(tuple(sorted({**levels, **own}.items())), -1))
    return np.array(rows)


def probability(p: float) -> str:
    """A p-value as printed; what cannot be computed is shown as missing."""
    if np.isnan(p):
        return MISSING
    return "<.0001" if p < 1e-4 else number(p, 4)


def _outcome(found: Paired, higher_is_better: bool | None) -> str:
    if not found.decided:
        return f"undecided; {more_seeds(found)}"
    return "better" if (found.mean > 0) == higher_is_better else "worse"


def _paired_entries(found: Paired, metric: Metric, keys: tuple[str, ...]) -> list[Entry]:
    if found.n < 2:
        count = Entry(text=str(found.n), keys=keys, values={"value": found.n})
        return [count, *(Entry(text=MISSING) for _ in range(7))]

    def shown(value: float) -> Entry:
        text = number(value, metric.digits) if np.isfinite(value) else MISSING
        return Entry(text=text, values={"value": value}, order=value, keys=keys)

    bounds = interval(found.low, found.high, metric.digits)
    return [
        Entry(text=str(found.n), values={"value": found.n}, order=found.n, keys=keys),
        shown(found.mean),
        Entry(text=bounds, values={"low": found.low, "high": found.high}, keys=keys),
        Entry(
            text=number(found.d_z, 2) if np.isfinite(found.d_z) else MISSING,
            values={"value": found.d_z},
            order=found.d_z,
            keys=keys,
        ),
        Entry(text=probability(found.p), values={"value": found.p}, order=found.p, keys=keys),
        Entry(text=probability(found.p_holm), values={"value": found.p_holm}, order=found.p_holm),
        Entry(
            text=number(found.detectable, metric.digits)
            if 0 < found.detectable < np.inf
            else MISSING,
            values={"value": found.detectable} if np.isfinite(found.detectable) else {},
            keys=keys,
        ),
        Entry(text=_outcome(found, metric.higher_is_better)),
    ]


def paired_against_baseline(
    ledger: Ledger, arms: Arms, metric: Metric
) -> tuple[list[int], list[Paired]]:
    """Every arm minus the baseline of its task, over common seeds; the baseline itself left out."""
    values = values_of(ledger, arms, metric.name)
    reference = reference_rows(arms, ledger.manifest.baseline)
    rows = [i for i, r in enumerate(reference) if r >= 0 and r != i]
    return rows, paired_family(values[rows] - values[reference[rows]]) if rows else []


def _both_sides(values: np.ndarray, rows: list[int], reference: np.ndarray) -> bool:
    """Whether some arm and its baseline both have values, on common seeds or not."""
    there = ~np.isnan(values).all(axis=1)
    return any(there[row] and there[reference[row]] for row in rows)


def paired_tables(ledger: Ledger) -> list[Table]:
    """A table of paired differences per metric that has a better way; the family is the table."""
    arms, tables = arms_of(ledger), []
    metrics, keys = present_metrics(ledger), ledger.cells["key"].to_numpy()
    directed = [metric for metric in metrics if metric.higher_is_better is not None]
    for metric in directed[:1] if len(arms.labels) > MOST_ROWS else directed:
        rows, found = paired_against_baseline(ledger, arms, metric)
        reference = reference_rows(arms, ledger.manifest.baseline)
        if not rows or not _both_sides(values_of(ledger, arms, metric.name), rows, reference):
            continue  # one arm alone, or a quantity that the baseline does not have
        shown, more = _shown(values_of(ledger, arms, metric.name)[rows], metric)
        body = []
        for i in shown:
            behind = tuple(keys[np.isin(arms.row, (rows[i], reference[rows[i]]))])
            entries = _paired_entries(found[i], metric, behind)
            body.append(Row(label=arms.labels[rows[i]], entries=tuple(entries)))
        most = max(p.n for p in found)
        family = max(p.family for p in found)
        exact = f"exact sign-flip up to {EXACT_LIMIT} common seeds, paired t above"
        limit = exact_limit_sentence(most, family)
        method = [name for name in arms.levels[0] if name not in TASK_FACTORS]
        baseline = baseline_name(ledger)
        notes = (
            f"Difference: arm minus {baseline}, over common seeds"
            + (", within the same task" if len(method) < len(arms.levels[0]) else "")
            + "; interval: 95 % t-interval of its mean over seeds (training variance only).",
            f"p: {exact}. Holm family: the {family} comparisons with {baseline} on {metric.label}.",
            "detectable: the smallest true difference that this test finds with 80 % power at this "
            f"n and the spread seen, at 5 % / {family} ({MISSING}: it can find none); outcome: "
            "decided by Holm's p at 5 %.",
            *((limit,) if limit else ()),
            *(() if any(pair.n for pair in found) else (NO_COMMON_SEEDS.format(baseline),)),
            *more,
        )
        tables.append(
            Table(
                name=f"paired_{metric.name}",
                title=f"{metric.label}: paired differences against {baseline}",
                stub="arm",
                columns=(
                    "n",
                    "difference",
                    "95 % interval",
                    "d_z",
                    "p",
                    "p (Holm)",
                    "detectable",
                    "outcome",
                ),
                rows=tuple(body),
                notes=notes,
                prose=("outcome",),
            )
        )
    return tables
