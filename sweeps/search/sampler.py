"""Optuna's TPE as a pure function of a study's trials.

Bergstra et al. 2011 ("Algorithms for Hyper-Parameter Optimization", NeurIPS), in the multivariate
form that also models how the axes depend on each other. Optuna's sampler draws from a stream that
starts with its process and sees what its process left in the study. Here each proposal is made by a
sampler of its own, seeded with how many trials there are, on a copy of their outcomes: a study that
lived on and one that was built anew from the ledger propose the same.
"""

import hashlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from sweeps.search.distributions import ask, distributions
from sweeps.search.space import Problem, points

STARTUP = 8  # random proposals before the model; Optuna's 10 is much of a budget of 20
REDRAWS = 50


class SteadyTPE(optuna.samplers.BaseSampler):
    """The sampler of one group's study; see the module. Each of the study's trials is a proposal.

    In rounds (`Problem.round`) a trial knows how the earlier rounds ended, and of its own round
    only where the others are, whatever has come of them by now.
    """

    def __init__(self, problem: Problem, group: str) -> None:
        self._problem, self._group = problem, group

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, optuna.distributions.BaseDistribution]:
        return distributions(self._problem.space)

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, optuna.distributions.BaseDistribution],
    ) -> dict[str, Any]:
        """The whole point: a trial asks for an axis of it only where the condition is met."""
        trials = study.get_trials(deepcopy=False)
        earlier = [other for other in trials if other.number < trial.number]
        start = self._problem.round_start(len(earlier))
        seen = [_outcome(other, known=k < start) for k, other in enumerate(earlier)]
        return propose(self._problem, self._group, seen)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: optuna.distributions.BaseDistribution,
    ) -> Any:
        """Refuses: only a trial that was enqueued with a part of a point gets here."""
        raise ValueError(
            f"a trial needs every axis that its point has, trial {trial.number} of "
            f"{study.study_name} lacks {param_name}; enqueue whole points"
        )


def _outcome(trial: FrozenTrial, *, known: bool) -> FrozenTrial:
    """What came of a trial, or only where it is; nothing that its process left beside that."""
    state = trial.state if known else TrialState.RUNNING
    over = state.is_finished()
    return optuna.trial.create_trial(
        state=state,
        value=trial.value if state == TrialState.COMPLETE else None,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values=trial.intermediate_values if over else None,
    )


def _seed(problem: Problem, group: str, count: int) -> int:
    text = f"{problem.seed}/{group}/{count}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def propose(problem: Problem, group: str, trials: Sequence[FrozenTrial]) -> dict[str, Any]:
    """The next point of `group` by TPE; never one that was proposed before.

    Args:
        trials: the group's proposals so far, in order.

    Raises:
        ValueError: every point of a finite space has been proposed.
    """
    seed = _seed(problem, group, len(trials))
    known = [trial.params for trial in trials]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            multivariate=True,
            group=True,
            constant_liar=True,
            n_startup_trials=STARTUP,
            seed=seed,
        )
    study = optuna.create_study(
        direction="maximize" if problem.maximize else "minimize",
        sampler=sampler,
        storage=optuna.storages.InMemoryStorage(),
    )
    study.add_trials(trials)
    for _ in range(REDRAWS):
        trial = study.ask()
        point = ask(trial, space=problem.space, fixed=problem.groups[group])
        if point not in known:
            return point
        study.tell(trial, state=TrialState.FAIL)
    left = points(problem.space, problem.groups[group])
    rest = [point for point in left or () if point not in known]
    if not rest:
        raise ValueError(
            f"every point of {group or problem.name} has been proposed ({len(trials)}); ask for "
            "fewer --trials or widen the space"
        )
    return rest[int(np.random.default_rng(seed).integers(len(rest)))]
