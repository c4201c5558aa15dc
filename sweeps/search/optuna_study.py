"""A search as Optuna holds it: one study per group, built from the ledger at each start.

The storage is asked and told while the search runs and is not read at the next start, so it may be
lost at any time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from sweeps.search.distributions import ask, distribution
from sweeps.search.sampler import SteadyTPE
from sweeps.search.space import Point, Problem, Space
from sweeps.search.storage import Warn, fresh_storage, to_log
from sweeps.search.trials import COMPLETE, FAILED, OBJECTIVE, OPEN, STOPPED, Trial

STEP = "training_iteration"  # as Tune's results name it; here, how many seeds are there
NUMBER = "proposal"
OVER = {
    COMPLETE: TrialState.COMPLETE,
    STOPPED: TrialState.PRUNED,
    FAILED: TrialState.FAIL,
}


def frozen(space: Space, trial: Trial) -> optuna.trial.FrozenTrial:
    """A proposal that is over as Optuna has it: step k is the mean over the first k seeds."""
    valued = trial.values and trial.state in (COMPLETE, STOPPED)
    return optuna.trial.create_trial(
        state=OVER[trial.state],
        value=trial.mean if valued else None,
        params=dict(trial.params),
        distributions={name: distribution(space[name]) for name in trial.params},
        intermediate_values=dict(enumerate(trial.running_means, start=1)),
        user_attrs={NUMBER: trial.number},
    )


@dataclass(frozen=True, kw_only=True)
class GroupStudy:
    """One group's Optuna study, asked and told by the names that Ray's `OptunaSearch` has for it.

    That one does the same on the same storage where there is Ray; Tune takes 6 s to import.
    `tests/cluster_tests/test_optuna_search.py` holds the two to the same trials.

    Attributes:
        storage: holds the study already, with every proposal on file.
        first: points to evaluate before the sampler is asked: the default, where nothing is on
            file. (Open proposals wait in the study, each in its place.)
        asked: of the trials that run, by the name they were suggested under.
    """

    problem: Problem
    group: str
    storage: optuna.storages.BaseStorage
    first: tuple[Point, ...]
    asked: dict[str, optuna.Trial] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the study in its storage."""
        return f"{self.problem.name}: {self.group}" if self.group else self.problem.name

    @property
    def ask(self) -> Callable[[optuna.Trial], dict[str, Any]]:
        """The space, as a define-by-run function."""
        return partial(ask, space=self.problem.space, fixed=self.problem.groups[self.group])

    @cached_property
    def sampler(self) -> SteadyTPE:
        """TPE for this group."""
        return SteadyTPE(self.problem, self.group)

    @cached_property
    def study(self) -> optuna.Study:
        """Optuna's; made where it is not there."""
        return optuna.create_study(
            study_name=self.name,
            direction="maximize" if self.problem.maximize else "minimize",
            sampler=self.sampler,
            storage=self.storage,
            load_if_exists=True,
        )

    def mark(self, number: int) -> None:
        """Write the number of a new proposal beside the trial that was just asked for."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for trial in running:
            if NUMBER not in trial.user_attrs:
                self.storage.set_trial_user_attr(trial._trial_id, NUMBER, number)

    def begin(self) -> "GroupStudy":
        """Itself, who proposes, with the first points waiting."""
        for point in self.first:
            self.study.enqueue_trial(dict(point))
        return self

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next trial's point."""
        self.asked[trial_id] = self.study.ask()
        return self.ask(self.asked[trial_id])

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """One more step."""
        self.asked[trial_id].report(result[OBJECTIVE], result[STEP])

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """COMPLETE with a result; without one FAIL after an error, else PRUNED."""
        value = result[OBJECTIVE] if result else None
        without = TrialState.FAIL if error else TrialState.PRUNED
        state = TrialState.COMPLETE if result else without
        self.study.tell(self.asked.pop(trial_id), value, state=state)


def build(
    problem: Problem, trials: Sequence[Trial], path: Path | None, warn: Warn = to_log
) -> dict[str, GroupStudy]:
    """Group → its study, in a fresh storage; an open proposal waits there to be asked for again.

    Args:
        path: of the sqlite database, for optuna-dashboard; None keeps the studies in memory.
        warn: hears of it, once, where the database cannot be written.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = fresh_storage(path, warn)
    found = {}
    for group in problem.groups:
        ours = [p for p in trials if p.group == group]
        first = () if ours else (problem.defaults[group],)
        found[group] = GroupStudy(problem=problem, group=group, storage=storage, first=first)
        study = found[group].study
        for trial in ours:
            if trial.state == OPEN:
                study.enqueue_trial(dict(trial.params), user_attrs={NUMBER: trial.number})
            else:
                study.add_trial(frozen(problem.space, trial))
    return found


def importances(problem: Problem, trials: Sequence[Trial]) -> dict[str, dict[str, float]]:
    """Group → axis → share of the objective's variance that it explains (fANOVA, Hutter 2014).

    A group is left out where fewer than three proposals are complete or all are equally good.
    """
    complete = [p for p in trials if p.state == COMPLETE]
    found = {}
    for group, study in build(problem, complete, None).items():
        means = [p.mean for p in complete if p.group == group]
        if len(means) >= 3 and len(set(means)) > 1:
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=problem.seed)
            found[group] = optuna.importance.get_param_importances(study.study, evaluator=evaluator)
    return found
