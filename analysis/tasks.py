"""A study of several tasks (body parts, k, pools) as methods × tasks × seeds."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis.comparisons import Arms
from analysis.resampling import Interval
from analysis.table import Entry, interval, number
from sweeps.ledger.declared import TASK_FACTORS

Method = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """Which arms are one method on several tasks.

    Attributes:
        names: the factors whose levels are tasks.
        count: tasks.
        methods: the levels of the other factors → rows of the study's arms, one for each task.
    """

    names: tuple[str, ...]
    count: int
    methods: Mapping[Method, tuple[int, ...]]

    def cube(self, values: np.ndarray) -> tuple[list[Method], np.ndarray]:
        """The methods that have every task and any value, and (methods, tasks, seeds) of them, of
        the seeds that all of these have.

        Args:
            values: (arms, seeds), NaN where there is none.
        """
        there = {
            method: rows
            for method, rows in self.methods.items()
            if len(rows) == self.count and not np.isnan(values[list(rows)]).all()
        }
        if not there:
            return [], np.empty((0, self.count, 0))
        cube = np.stack([values[list(rows)] for rows in there.values()])
        return list(there), cube[:, :, ~np.isnan(cube).any(axis=(0, 1))]


def entry_of(found: Interval, name: str, keys: tuple[str, ...]) -> Entry:
    """An estimate over task × seed, its interval below; in the CSV its column ends in `name`."""
    return Entry(
        text=number(found.estimate, 2),
        under=(interval(found.low, found.high, 2),),
        values={name: found.estimate, "low": found.low, "high": found.high},
        order=found.estimate,
        keys=keys,
    )


def tasks_of(arms: Arms) -> Tasks | None:
    """The study's tasks; None where it has one alone."""
    names = tuple(n for n in TASK_FACTORS if n in arms.levels[0])
    tasks = {tuple(levels.get(n) for n in names) for levels in arms.levels}
    if len(tasks) < 2:
        return None
    methods: dict[Method, list[int]] = {}
    for row, levels in enumerate(arms.levels):
        method = tuple(level for n, level in levels.items() if n not in names)
        methods.setdefault(method, []).append(row)
    return Tasks(
        names=names, count=len(tasks), methods={m: tuple(rows) for m, rows in methods.items()}
    )
