"""The course of one search: which arm next, which one goes on, which one is over. No Ray.

The same object drives a search in this process and one on a cluster (`cluster.tune`). It decides
whose turn it is and when an arm is over; the points come from the groups' searches, which are told
what came of them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sweeps.search.optuna_study import STEP, GroupStudy, build
from sweeps.search.pruner import should_prune
from sweeps.search.space import Problem
from sweeps.search.storage import Warn, to_log
from sweeps.search.trials import COMPLETE, FAILED, OBJECTIVE, OPEN, STOPPED, Trial, best_of


class Campaign:
    """Proposes until every group has its trials; resumes what an earlier run left open.

    Args:
        trials: every proposal on file, in order, with what the ledger holds of it.
        record: writes a new proposal down, for good, before its first cell; returns seed →
            objective of the cells that are there already.
        record_stop: writes down that an arm was stopped, and to which one it lost.
        database: where Optuna's studies go; None keeps them in memory.
        search: makes who proposes for a group: Ray's `OptunaSearch`, or the study itself.
        warn: hears of it, once, where the database cannot be written.
    """

    def __init__(
        self,
        problem: Problem,
        trials: list[Trial],
        *,
        record: Callable[[Trial], dict[int, float]],
        record_stop: Callable[[Trial, Trial], None],
        database: Path | None,
        search: Callable[[GroupStudy], Any] = GroupStudy.begin,
        warn: Warn = to_log,
    ) -> None:
        self.problem, self.trials = problem, trials
        self._record, self._record_stop = record, record_stop
        self._studies = build(problem, trials, database, warn)
        self._searches = {group: search(study) for group, study in self._studies.items()}
        self._told: dict[int, int] = {}  # proposal → steps that its search has heard of
        self._resume = [p for p in trials if p.state == OPEN]

    @property
    def left(self) -> int:
        """Arms that are still to be computed, in part or as a whole."""
        return len(self._resume) + sum(
            max(0, self.problem.trials - self._count(group)) for group in self.problem.groups
        )

    @property
    def unfinished(self) -> int:
        """Arms that are not over: those that run now, and those that are to come."""
        asked = self.problem.trials * len(self.problem.groups)
        return asked - sum(p.state != OPEN for p in self.trials)

    def _count(self, group: str) -> int:
        return sum(p.group == group for p in self.trials)

    def next(self) -> Trial | None:
        """The next arm to compute, recorded already; None where there is none now.

        That is, once every group has its trials (then `left` is 0), or while every group waits for
        its round to end. The groups take turns. An arm that a killed run left open is judged on the
        seeds it has, as that run would have done, and goes on where it stopped.
        """
        while (trial := self._resumed() or self._new()) is not None:
            over = self._over(trial)
            self.tell(trial)
            if not over:
                return trial
        return None

    def _resumed(self) -> Trial | None:
        if not self._resume:
            return None
        trial = self._resume.pop(0)
        self._suggest(trial.group, trial.number)  # it waits in the study, in this order
        return trial

    def _new(self) -> Trial | None:
        ready = [group for group in self.problem.groups if self._ready(group)]
        if not ready:
            return None
        group, number = min(ready, key=self._count), len(self.trials)
        point = self._suggest(group, number)
        self._studies[group].mark(number)
        trial = Trial(number=number, group=group, params=point)
        trial.values = self._record(trial)
        self.trials.append(trial)
        return trial

    def _suggest(self, group: str, number: int) -> dict[str, Any]:
        self._told[number] = 0
        return dict(self._searches[group].suggest(str(number)))

    def _ready(self, group: str) -> bool:
        count = self._count(group)
        if count >= self.problem.trials:
            return False
        earlier = self._known_to(group, count)
        return not self.problem.round or all(p.state != OPEN for p in earlier)

    def _known_to(self, group: str, position: int) -> Sequence[Trial]:
        """The group's proposals whose end the one at `position` among them may know.

        In rounds, those of earlier rounds (the sampler keeps to the same rule).
        """
        ours = [p for p in self.trials if p.group == group]
        return ours[: self.problem.round_start(position)] if self.problem.round else ours

    def report(self, trial: Trial, seed: int, value: float | None) -> bool:
        """A seed has finished, or failed (None), which ends the arm without an objective.

        Returns:
            whether the arm goes on to its next seed.
        """
        if value is None:
            trial.state = FAILED
            return False
        trial.values[seed] = value
        return not self._over(trial)

    def end(self, trial: Trial, seed: int) -> None:
        """A pruner ended the arm's cell on `seed` while it ran: the arm is stopped."""
        trial.state, trial.ended_in = STOPPED, seed

    def close(self, trial: Trial) -> None:
        """Tune has ended the arm's trial; an arm that is open (its node went) waits for another."""
        self.tell(trial)

    def tell(self, trial: Trial) -> None:
        """Tell its search what is new of the arm since it was last told; where nothing is, nothing.

        A step is one more seed, its value the mean so far; a complete arm ends with its mean.
        """
        if (told := self._told.get(trial.number)) is None:
            return  # the search knows how it ended
        search, name = self._searches[trial.group], str(trial.number)
        means = trial.running_means
        for step, mean in enumerate(means[told:], start=told + 1):
            search.on_trial_result(name, {OBJECTIVE: mean, STEP: step})
        self._told[trial.number] = len(means)
        if trial.state == OPEN:
            return
        ended = {OBJECTIVE: trial.mean} if trial.state == COMPLETE else None
        search.on_trial_complete(name, ended, error=trial.state == FAILED)
        del self._told[trial.number]

    def _over(self, trial: Trial) -> bool:
        if len(trial.values) == len(self.problem.seeds):
            trial.state = COMPLETE
            return True
        position = sum(p.group == trial.group and p.number < trial.number for p in self.trials)
        known = self._known_to(trial.group, position)
        best = best_of(self.problem, trial.group, known)
        if best is None or not should_prune(
            trial.values,
            best.values,
            alpha=self.problem.alpha,
            maximize=self.problem.maximize,
        ):
            return False
        self._record_stop(trial, best)
        trial.state = STOPPED
        return True
