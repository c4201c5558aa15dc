"""A study's arms as Optuna trials in a database for optuna-dashboard, written in batches.

Optuna's own storage takes 6 ms of processor a trial and 0.7 a step (and a commit for each), so that
a study of a thousand arms waited minutes for its view. Here Optuna makes the database and names its
study; the rows of many trials then go into its tables in one transaction.
"""

import contextlib
import datetime
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from sweeps.search.storage import LOCKED_S, Warn, fresh_database, unwritable

MOST_LEVELS = 100
"""Each trial repeats the levels of each factor; a factor of more numbers is shown as a range."""


def space_of(levels: Mapping[str, Sequence[Any]]) -> dict[str, BaseDistribution]:
    """Factor → its levels, as Optuna has them."""
    return {name: _distribution(list(values)) for name, values in levels.items()}


def _distribution(levels: list[Any]) -> BaseDistribution:
    if len(levels) > MOST_LEVELS:
        kinds = {type(level) for level in levels}
        if kinds == {int}:
            return IntDistribution(min(levels), max(levels))
        if kinds <= {int, float}:
            return FloatDistribution(min(levels), max(levels))
    return CategoricalDistribution(levels)


@dataclass(kw_only=True)
class _Arm:
    """What is known of an arm, and how much of it the database has."""

    levels: Mapping[str, Any]
    values: dict[int, float]
    over: bool
    heard: bool
    written: int = 0
    state: str = ""

    @property
    def now(self) -> str:
        """Optuna's word for how far it is."""
        if self.over:
            return "COMPLETE" if self.values else "FAIL"
        return "RUNNING" if self.heard else "WAITING"


@dataclass(kw_only=True)
class _Rows:
    """What one transaction writes, by table."""

    trials: list[tuple[Any, ...]] = field(default_factory=list)
    params: list[tuple[Any, ...]] = field(default_factory=list)
    steps: list[tuple[Any, ...]] = field(default_factory=list)
    values: list[tuple[Any, ...]] = field(default_factory=list)


class ArmsView:
    """The arms of a study: trial k is the k-th arm, its step n the mean over its first n seeds.

    Another process may hold the database, its folder may have no locks, its disk be full: at the
    first error it is left as it is, and `warn` hears of it once.

    Args:
        path: of the sqlite database; one that is there is replaced.
        levels: factor → all its levels.
        arms: (name, levels, seed → objective of the cells that are there) of each, in order.
        missing: names of those that miss cells; the others are over.
    """

    def __init__(
        self,
        path: Path,
        *,
        study_name: str,
        levels: Mapping[str, Sequence[Any]],
        arms: Sequence[tuple[str, Mapping[str, Any], Mapping[int, float]]],
        missing: Collection[str],
        warn: Warn,
    ) -> None:
        self._path, self._warn, self._lost = path, warn, False
        self._space = space_of(levels)
        self._texts = {name: distribution_to_json(d) for name, d in self._space.items()}
        self._arms = {
            name: _Arm(
                levels=point, values=dict(values), over=name not in missing, heard=bool(values)
            )
            for name, point, values in arms
        }
        with self._giving_up():
            storage = fresh_database(path)
            optuna.create_study(study_name=study_name, storage=storage, direction="maximize")
            storage.engine.dispose()
        self._changed = list(self._arms)
        self.write()

    def hear(self, arm: str, seed: int | None, objective: float | None) -> None:
        """A cell of the arm is there; without an objective it failed."""
        known = self._arms[arm]
        known.heard = True
        if seed is not None and objective is not None:
            known.values[seed] = objective
        self._changed.append(arm)

    def close(self, arm: str) -> None:
        """The arm gets no other cell."""
        self._arms[arm].over = True
        self._changed.append(arm)

    def write(self, *, ended: bool = False) -> None:
        """What has changed, in one transaction; `ended`: arms that were heard of are over."""
        if ended:
            for name, arm in self._arms.items():
                if arm.heard and not arm.over:
                    self.close(name)
        changed, self._changed = dict.fromkeys(self._changed), []
        if self._lost or not changed:
            return
        rows = self._rows(changed)
        with (
            self._giving_up(),
            contextlib.closing(sqlite3.connect(self._path, timeout=LOCKED_S)) as connection,
            connection,
        ):
            connection.executemany(
                "INSERT INTO trials (trial_id, number, study_id, state, datetime_start, "
                "datetime_complete) VALUES (?, ?, 1, ?, ?, ?) ON CONFLICT (trial_id) DO UPDATE SET "
                "state = excluded.state, datetime_complete = excluded.datetime_complete, "
                "datetime_start = coalesce(datetime_start, excluded.datetime_start)",
                rows.trials,
            )
            connection.executemany(
                "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) "
                "VALUES (?, ?, ?, ?)",
                rows.params,
            )
            connection.executemany(
                "INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, "
                "intermediate_value_type) VALUES (?, ?, ?, 'FINITE')",
                rows.steps,
            )
            connection.executemany(
                "INSERT INTO trial_values (trial_id, objective, value, value_type) "
                "VALUES (?, 0, ?, 'FINITE') ON CONFLICT (trial_id, objective) DO UPDATE SET "
                "value = excluded.value",
                rows.values,
            )

    def _rows(self, changed: Mapping[str, None]) -> _Rows:
        """Of the arms that have changed; they count as written."""
        rows, now = _Rows(), datetime.datetime.now().isoformat(" ")
        numbers = {name: number for number, name in enumerate(self._arms)}
        for name in changed:
            arm, number = self._arms[name], numbers[name]
            trial = number + 1
            if not arm.state:
                rows.params += [
                    (trial, factor, space.to_internal_repr(arm.levels[factor]), self._texts[factor])
                    for factor, space in self._space.items()
                ]
            arm.state = arm.now
            begun = None if arm.state == "WAITING" else now
            ended = now if arm.over else None
            rows.trials.append((trial, number, arm.state, begun, ended))
            values = list(arm.values.values())
            total = sum(values[: arm.written])
            for step in range(arm.written + 1, len(values) + 1):
                total += values[step - 1]
                rows.steps.append((trial, step, total / step))
            arm.written = len(values)
            if arm.state == "COMPLETE":
                rows.values.append((trial, sum(values) / len(values)))
        return rows

    @contextlib.contextmanager
    def _giving_up(self) -> Iterator[None]:
        """An error in the block ends the view, not the study."""
        if self._lost:
            yield
            return
        try:
            yield
        except Exception as error:  # of sqlite, SQLAlchemy, Optuna or the file system
            self._lost = True
            self._warn(unwritable(self._path, error))
