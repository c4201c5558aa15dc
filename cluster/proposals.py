"""Proposals by Optuna's TPE, as a pure function of what is known.

Bergstra et al. 2011 ("Algorithms for Hyper-Parameter Optimization", NeurIPS), in the multivariate
form that also models how the axes depend on each other. Nothing is kept between two proposals: the
Optuna study is built from the history each time and the sampler is seeded with the number of the
proposal, so a search that was killed goes on exactly as the undisturbed one would have.
"""

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from cluster.space import Point, Problem, Range, Space, active, points

STARTUP = 8  # random proposals before the model; Optuna's 10 is much of a budget of 20
REDRAWS = 50
OPEN, COMPLETE, STOPPED, FAILED = "open", "complete", "stopped", "failed"
STATES = {
    OPEN: TrialState.RUNNING,
    COMPLETE: TrialState.COMPLETE,
    STOPPED: TrialState.PRUNED,
    FAILED: TrialState.FAIL,
}


@dataclass(kw_only=True)
class Proposal:
    """One proposed arm and what is known of it.

    Attributes:
        number: over all groups, from 0, in the order of proposing.
        state: "open", "complete" (every seed), "stopped" (hopeless) or "failed" (a cell failed).
        values: tuning seed → objective.
    """

    number: int
    group: str
    point: Point
    state: str = OPEN
    values: dict[int, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Mean objective over the seeds that are there."""
        return float(np.mean([self.values[seed] for seed in sorted(self.values)]))


def distribution(axis: Any) -> optuna.distributions.BaseDistribution:
    """The axis as Optuna names it."""
    if not isinstance(axis, Range):
        return optuna.distributions.CategoricalDistribution(list(axis.levels))
    if axis.whole:
        return optuna.distributions.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return optuna.distributions.FloatDistribution(axis.low, axis.high, log=axis.log)


def frozen(space: Space, proposal: Proposal) -> optuna.trial.FrozenTrial:
    """The proposal as an Optuna trial; reported seeds are its steps."""
    complete = proposal.state == COMPLETE
    trial = optuna.trial.create_trial(
        state=STATES[proposal.state],
        value=proposal.mean if complete else None,
        params=dict(proposal.point),
        distributions={name: distribution(space[name]) for name in proposal.point},
        intermediate_values=dict(enumerate(_running_means(proposal))),
        user_attrs={"proposal": proposal.number},
    )
    return trial


def _running_means(proposal: Proposal) -> list[float]:
    values = [proposal.values[seed] for seed in sorted(proposal.values)]
    return [float(np.mean(values[: k + 1])) for k in range(len(values))]


def study_of(
    problem: Problem,
    group: str,
    proposals: Iterable[Proposal],
    *,
    sampler: optuna.samplers.BaseSampler | None = None,
    storage: optuna.storages.BaseStorage | None = None,
) -> optuna.Study:
    """The proposals of one group as an Optuna study (in memory by default)."""
    study = optuna.create_study(
        study_name=f"{problem.name}: {group}" if group else problem.name,
        direction="maximize" if problem.maximize else "minimize",
        sampler=sampler,
        storage=storage or optuna.storages.InMemoryStorage(),
    )
    for proposal in proposals:
        if proposal.group == group:
            study.add_trial(frozen(problem.space, proposal))
    return study


def _seed(problem: Problem, group: str, count: int) -> int:
    text = f"{problem.seed}/{group}/{count}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def propose(problem: Problem, group: str, proposals: Sequence[Proposal]) -> dict[str, Any]:
    """The next point of `group`: its default first, then TPE; never one that was proposed before.

    Args:
        proposals: all proposals so far; those of other groups do not matter.

    Raises:
        ValueError: every point of a finite space has been proposed.
    """
    ours = [p for p in proposals if p.group == group]
    if not ours:
        return dict(problem.defaults[group])
    known = [dict(p.point) for p in ours]
    seed = _seed(problem, group, len(ours))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            multivariate=True,
            group=True,
            constant_liar=True,
            n_startup_trials=STARTUP,
            seed=seed,
        )
        study = study_of(problem, group, ours, sampler=sampler)
        for _ in range(REDRAWS):
            trial = study.ask()
            point = _suggest(trial, problem.space, problem.groups[group])
            if point not in known:
                return point
            study.tell(trial, state=TrialState.FAIL)
    left = points(problem.space, problem.groups[group])
    rest = [point for point in left or () if point not in known]
    if not rest:
        raise ValueError(
            f"every point of {group or problem.name} has been proposed ({len(ours)}); ask for "
            "fewer --trials or widen the space"
        )
    return rest[int(np.random.default_rng(seed).integers(len(rest)))]


def _suggest(trial: optuna.Trial, space: Space, group: Point) -> dict[str, Any]:
    point: dict[str, Any] = {}
    for name, axis in space.items():
        if not active(axis, {**group, **point}):
            continue
        if not isinstance(axis, Range):
            point[name] = trial.suggest_categorical(name, list(axis.levels))
        elif axis.whole:
            point[name] = trial.suggest_int(name, int(axis.low), int(axis.high), log=axis.log)
        else:
            point[name] = trial.suggest_float(name, axis.low, axis.high, log=axis.log)
    return point


def importances(problem: Problem, proposals: Sequence[Proposal]) -> dict[str, dict[str, float]]:
    """Group → axis → share of the objective's variance that it explains (fANOVA, Hutter 2014).

    A group is left out where fewer than three proposals are complete or all are equally good.
    """
    found = {}
    for group in problem.groups:
        complete = [p for p in proposals if p.group == group and p.state == COMPLETE]
        if len(complete) < 3 or len({p.mean for p in complete}) == 1:
            continue
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=problem.seed)
        study = study_of(problem, group, complete)
        found[group] = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return found


class View:
    """The search as optuna-dashboard sees it: a database that is rebuilt at each start.

    It is written to and never read from, so it may be lost at any time.
    """

    def __init__(self, problem: Problem, proposals: Sequence[Proposal], path: Path | None) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage: optuna.storages.BaseStorage = optuna.storages.InMemoryStorage()
        if path is not None:
            for leaf in (path, *(path.with_name(path.name + x) for x in ("-journal", "-wal"))):
                leaf.unlink(missing_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        self._space = problem.space
        self._studies = {
            group: study_of(problem, group, proposals, storage=storage) for group in problem.groups
        }
        self._trials = {
            trial.user_attrs["proposal"]: trial._trial_id
            for study in self._studies.values()
            for trial in study.get_trials(deepcopy=False)
        }
        self._storage = storage

    def add(self, proposal: Proposal) -> None:
        """Show a new proposal, running."""
        study = self._studies[proposal.group]
        study.add_trial(frozen(self._space, proposal))
        self._trials[proposal.number] = study.get_trials(deepcopy=False)[-1]._trial_id

    def report(self, proposal: Proposal) -> None:
        """Show the mean over the seeds so far."""
        self._storage.set_trial_intermediate_value(
            self._trials[proposal.number], len(proposal.values) - 1, proposal.mean
        )

    def close(self, proposal: Proposal) -> None:
        """Show how it ended."""
        values = [proposal.mean] if proposal.state == COMPLETE else None
        self._storage.set_trial_state_values(
            self._trials[proposal.number], STATES[proposal.state], values
        )


def best_of(problem: Problem, group: str, proposals: Iterable[Proposal]) -> Proposal | None:
    """The complete proposal of `group` with the best mean, the earliest of equals; None so far."""
    complete = [p for p in proposals if p.group == group and p.state == COMPLETE]
    sign = 1 if problem.maximize else -1
    return max(complete, key=lambda p: (sign * p.mean, -p.number), default=None)


def counts(proposals: Iterable[Proposal]) -> Mapping[str, int]:
    """State → how many."""
    found = dict.fromkeys((COMPLETE, STOPPED, FAILED, OPEN), 0)
    for proposal in proposals:
        found[proposal.state] += 1
    return found
