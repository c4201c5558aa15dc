"""Does the reward rise while a policy learns? The rise of each arm, and its interval."""

import numpy as np

from analysis.comparisons import arms_of, present_metrics, values_of
from analysis.partitions import family_of, partitioned_in
from analysis.table import Entry, Row, Table, number
from sweeps.ledger.read import Ledger

METRIC = "reward_rise"


def rise_table(ledger: Ledger) -> Table | None:
    """Mean rise of the reward per arm and its 95 % t-interval; None where no cell has a reward."""
    metric = next((m for m in present_metrics(ledger) if m.name == METRIC), None)
    if metric is None:
        return None
    arms, partitioned = arms_of(ledger), partitioned_in(ledger.manifest)
    values = values_of(ledger, arms, METRIC)
    rows = []
    for row in np.flatnonzero((~np.isnan(values)).any(axis=1)):
        (found,) = family_of(values[[row]], partitioned)
        keys = tuple(ledger.cells["key"][arms.row == row])
        text, interval = number(found.mean, 4), Entry(text="—")
        if found.n > 1:
            low, high = number(found.low, 4), number(found.high, 4)
            interval = Entry(
                text=f"[{low}, {high}]", values={"low": found.low, "high": found.high}, keys=keys
            )
        rows.append(
            Row(
                label=arms.labels[row],
                entries=(
                    Entry(text=text, values={"value": found.mean}, order=found.mean, keys=keys),
                    interval,
                    Entry(text=str(found.n), values={"value": found.n}),
                ),
            )
        )
    return Table(
        name="reward_rise",
        title=f"{ledger.manifest.study}: rise of the reward over training",
        stub="arm",
        columns=(metric.label, "95 % interval", "seeds"),
        rows=tuple(rows),
        notes=(
            "rise: mean reward of the last third of the iterations minus that of the first third, "
            "per seed; the t-interval of its mean over seeds, not corrected for how many arms.",
        ),
    )
