"""A study's arms as a Ray Tune experiment: one trial is one arm, and Ray's `OptunaSearch` has it.

There are arms of two kinds. `Followed` are those of a study: the driver queues their cells, and
Tune and Optuna hear of each result. `Searched` are those that Optuna proposes, and their seeds are
computed one by one, until the arm is not worth the rest.
"""

import math
import os
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import optuna
import ray
import ray.tune
from optuna.trial import TrialState
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.tune.search.optuna import OptunaSearch

from cluster.broker import warner
from cluster.connect import NAMESPACE
from cluster.queue import WorkItem
from cluster.trials import ARM_FIELD, BROKER_FIELD, TRIAL_CPU, ArmTrial
from sweeps.search.campaign import Campaign, Work
from sweeps.search.optuna_study import STEP, GroupStudy
from sweeps.search.space import Problem
from sweeps.search.storage import Warn
from sweeps.search.trials import ENDED, OBJECTIVE, OPEN, Trial
from sweeps.search.view import space_of

NODES_LOST = 100  # under one trial, before its arm counts as failed
MOST_ARMS = 1_000  # at once; Tune reads it once, `_AtOnce` holds back what is too many
FOLLOWED_AT_ONCE = 1  # no slot waits for one (see the broker), and each is a process
# Tune's own records are thrown away: no log files per trial, no snapshots of the experiment.
TUNE_SETTINGS = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_GLOBAL_CHECKPOINT_S": "86400"}


class Arms(Protocol):
    """Whose trials they are; an arm goes by its name at the broker."""

    @property
    def left(self) -> int:
        """How many may still be taken up."""

    def next(self) -> str | None:
        """The next arm to take up, None where there is none now."""

    def hear(self, arm: str, result: Mapping[str, Any]) -> bool:
        """A result of the arm (of `ArmTrial.step`) has come; returns whether the arm goes on."""

    def tell(self, arm: str) -> None:
        """Tell Optuna what has been heard of the arm, also that it is over."""

    def lose(self, arm: str) -> None:
        """Tune has given the arm's trial up."""


class Followed:
    """The arms of a study, whose cells are queued already or will be.

    Args:
        levels: factor → all its levels.
        arms: (name, levels, seed → objective of the cells that are there) of each, in order.
        missing: names of those that miss cells.

    Attributes:
        study: Optuna's, in memory (`sweeps.search.view` writes the one that is looked at).
    """

    def __init__(
        self,
        *,
        study_name: str,
        levels: Mapping[str, Sequence[Any]],
        arms: Sequence[tuple[str, Mapping[str, Any], Mapping[int, float]]],
        missing: Collection[str],
    ) -> None:
        space, storage = space_of(levels), optuna.storages.InMemoryStorage()
        self.study = study = optuna.create_study(
            study_name=study_name, storage=storage, direction="maximize"
        )
        for name, point, values in arms:
            if name not in missing and values:
                study.add_trial(
                    optuna.trial.create_trial(
                        params=dict(point),
                        distributions=space,
                        value=sum(values.values()) / len(values),
                        state=TrialState.COMPLETE,
                    )
                )
        waiting = [arm for arm in arms if arm[0] in missing]
        self._search = OptunaSearch(
            space=space,
            points_to_evaluate=[dict(point) for _, point, _ in waiting],
            metric=OBJECTIVE,
            mode="max",
            seed=0,
            study_name=study_name,
            storage=storage,
        )
        self._waiting = [name for name, _, _ in reversed(waiting)]
        # By seed: a trial that starts again repeats itself.
        self._values = {name: dict(values) for name, _, values in waiting}
        self._told: dict[str, int] = {}
        self._over: set[str] = set()

    @property
    def left(self) -> int:
        return len(self._waiting)

    def next(self) -> str | None:
        if not self._waiting:
            return None
        arm = self._waiting.pop()
        self._search.suggest(arm)  # the points come in their order
        self._told[arm] = 0
        return arm

    def hear(self, arm: str, result: Mapping[str, Any]) -> bool:
        if result["ok"]:
            self._values[arm][result["seed"]] = float(result[OBJECTIVE])
        if result["done"]:
            self._over.add(arm)
        return True

    def tell(self, arm: str) -> None:
        """The objective is the mean over the seeds that have finished; without one it failed."""
        values = list(self._values[arm].values())
        for step in range(self._told[arm] + 1, len(values) + 1):
            mean = sum(values[:step]) / step
            self._search.on_trial_result(arm, {OBJECTIVE: mean, STEP: step})
        self._told[arm] = len(values)
        if arm in self._over:
            ended = {OBJECTIVE: sum(values) / len(values)} if values else None
            self._search.on_trial_complete(arm, ended, error=not values)

    def lose(self, arm: str) -> None:
        self._over.add(arm)


def optuna_search(study: GroupStudy) -> OptunaSearch:
    """Ray's search algorithm on the group's study."""
    return OptunaSearch(
        space=study.axes,
        metric=OBJECTIVE,
        mode="max" if study.problem.maximize else "min",
        points_to_evaluate=[dict(point) for point in study.first],
        sampler=study.sampler,
        study_name=study.name,
        storage=study.storage,
    )


class Searched:
    """The arms of a search. Each of its groups has an `OptunaSearch` of its own.

    The campaign says whose turn it is and when an arm is over, and has a proposal on record before
    its first cell.

    Args:
        database: where Optuna's studies go; None keeps them in memory.
        announce: told of each arm before it is suggested, with its missing seeds' stages and cells.
        say_left: told how many arms are not over, when that may have changed.
        warn: hears of it, once, where the database cannot be written.
    """

    def __init__(
        self,
        problem: Problem,
        work: Work,
        database: Path | None,
        announce: Callable[[str, list[list[WorkItem]]], None],
        say_left: Callable[[int], None],
        warn: Warn,
    ) -> None:
        self.campaign = Campaign(problem, work, database=database, search=optuna_search, warn=warn)
        self._announce, self._say_left = announce, say_left
        self._trials: dict[str, Trial] = {}

    @property
    def left(self) -> int:
        return self.campaign.left

    def next(self) -> str | None:
        trial = self.campaign.next()
        self._say_left(self.campaign.unfinished)
        if trial is None:
            return None
        arm = f"proposal {trial.number}"
        self._trials[arm] = trial
        self._announce(arm, [items for _, items in self.campaign.work.steps(trial)])
        return arm

    def hear(self, arm: str, result: Mapping[str, Any]) -> bool:
        """A hopeless arm, or one with a failed cell or one that was ended, is stopped."""
        trial = self._trials[arm]
        if trial.state != OPEN:  # Tune hands a stopped trial's last result over once more
            return False
        if not result["ok"]:
            self.campaign.fail(trial)
            return False
        if result.get(ENDED):
            self.campaign.end(trial, result["seed"])
            return False
        return self.campaign.report(trial, result["seed"], float(result[OBJECTIVE]))

    def tell(self, arm: str) -> None:
        """An arm that is not over (its node went before it had begun) stays open."""
        self.campaign.tell(self._trials[arm])
        self._say_left(self.campaign.unfinished)

    def lose(self, arm: str) -> None:
        if self._trials[arm].state == OPEN:
            self.campaign.fail(self._trials[arm])


class ArmSearch(Searcher):
    """Tune's search algorithm: which arm each trial is, and what Optuna hears of it."""

    def __init__(self, arms: Arms) -> None:
        super().__init__(metric=OBJECTIVE, mode="max")
        self._arms = arms
        self._of_trial: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        arm = self._arms.next()
        if arm is None:
            return None if self._arms.left else Searcher.FINISHED
        self._of_trial[trial_id] = arm
        return {ARM_FIELD: arm}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """`ArmScheduler`, whom Tune tells first, has handed the result to the arms."""
        self._arms.tell(self._of_trial[trial_id])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self._arms.tell(self._of_trial[trial_id])

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the search's state is the ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles the searcher into tuner.pkl, which nobody reads


class ArmScheduler(FIFOScheduler):
    """Tune's scheduler: hands each result to the arms, which say whether the trial goes on."""

    def __init__(self, arms: Arms) -> None:
        super().__init__()
        self._arms = arms

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        goes_on = self._arms.hear(trial.config[ARM_FIELD], result)
        return self.CONTINUE if goes_on else self.STOP

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self._arms.hear(trial.config[ARM_FIELD], result)  # Tune hands the last one here alone

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        # Tune says so too of a trial that went with its node and starts again.
        if not trial.should_recover():
            self._arms.lose(trial.config[ARM_FIELD])

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _AtOnce(ConcurrencyLimiter):
    """So many trials at once, which may change while they run."""

    def __init__(self, searcher: Searcher, at_once: Callable[[], int]) -> None:
        super().__init__(searcher, max_concurrent=MOST_ARMS)
        self._at_once = at_once

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        self.max_concurrent = self._at_once()
        return super().suggest(trial_id)

    def get_state(self) -> dict[str, Any]:
        return {}


def follow(*, broker_name: str, storage_path: str, **study: Any) -> None:
    """The arms of a study as trials, beside whoever computes them; `study` as in `Followed`."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _fit(Followed(**study), lambda: FOLLOWED_AT_ONCE, broker_name, storage_path)


def search(
    *, problem: Problem, work: Work, database: Path | None, broker_name: str, storage_path: str
) -> None:
    """Every arm that `problem` still lacks, as trials; blocks until done."""
    broker = ray.get_actor(broker_name, namespace=NAMESPACE)

    def announce(arm: str, steps: list[list[WorkItem]]) -> None:
        ray.get(broker.hold.remote(arm, steps))

    def as_the_fleet_grows() -> int:
        # Seed by seed, an arm keeps one slot busy; one more bridges the gap between two seeds.
        return ray.get(broker.slots.remote()) + 1

    before: float = math.inf
    while True:
        arms = Searched(
            problem, work, database, announce, broker.set_arms_left.remote, warner(broker_name)
        )
        if not arms.left or arms.campaign.unfinished >= before:
            return
        before = arms.campaign.unfinished
        _fit(arms, as_the_fleet_grows, broker_name, storage_path)
        # An arm whose node went before its trial had begun: Tune gives it up, the campaign not.
        if not arms.campaign.unfinished:
            return


def _fit(arms: Arms, at_once: Callable[[], int], broker_name: str, storage_path: str) -> None:
    """The arms as one Tune experiment."""
    os.environ.update(TUNE_SETTINGS)
    tuner = ray.tune.Tuner(
        ray.tune.with_resources(ArmTrial, ray.tune.PlacementGroupFactory([{"CPU": TRIAL_CPU}])),
        param_space={BROKER_FIELD: broker_name},
        tune_config=ray.tune.TuneConfig(
            search_alg=_AtOnce(ArmSearch(arms), at_once),
            scheduler=ArmScheduler(arms),
            num_samples=arms.left,
            reuse_actors=True,
        ),
        run_config=ray.tune.RunConfig(
            name=f"arms-{uuid.uuid4().hex[:8]}",
            storage_path=storage_path,
            verbose=0,
            # A trial that went with its node starts again and hears what its arm has so far.
            failure_config=ray.tune.FailureConfig(max_failures=NODES_LOST),
        ),
    )
    tuner.fit()
