"""A search's trials: what was proposed, and what came of it. No Ray, no Optuna."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from sweeps.search.space import Point, Problem

OBJECTIVE = "objective"
ENDED = "ended"  # of a result: its cell was ended by a pruner while it ran
OPEN, COMPLETE, STOPPED, FAILED = "open", "complete", "stopped", "failed"


@dataclass(kw_only=True)
class Trial:
    """One proposed arm and what is known of it; its cells are the arm on each tuning seed.

    Attributes:
        number: over all groups, from 0, in the order of proposing.
        state: "open", "complete" (every seed), "stopped" (not worth its other seeds; Optuna's
            PRUNED) or "failed" (a cell failed).
        params: as Optuna's.
        values: tuning seed → objective.
        ended_in: the tuning seed whose cell a pruner ended while it ran, which stopped the arm;
            None: no cell was.
    """

    number: int
    group: str
    params: Point
    state: str = OPEN
    values: dict[int, float] = field(default_factory=dict)
    ended_in: int | None = None

    @property
    def mean(self) -> float:
        """Mean objective over the seeds that are there."""
        return self.running_means[-1]

    @property
    def running_means(self) -> list[float]:
        """Mean objective over the first seed that is there, the first two, and so on."""
        values = [self.values[seed] for seed in sorted(self.values)]
        return [float(np.mean(values[: k + 1])) for k in range(len(values))]


def best_of(problem: Problem, group: str, trials: Iterable[Trial]) -> Trial | None:
    """The complete trial of `group` with the best mean, the earliest of equals; None so far."""
    complete = [p for p in trials if p.group == group and p.state == COMPLETE]
    sign = 1 if problem.maximize else -1
    return max(complete, key=lambda p: (sign * p.mean, -p.number), default=None)


def counts(trials: Iterable[Trial]) -> Mapping[str, int]:
    """State → how many."""
    found = dict.fromkeys((COMPLETE, STOPPED, FAILED, OPEN), 0)
    for trial in trials:
        found[trial.state] += 1
    return found
