"""A study's arms as a Ray Tune experiment: one trial is one arm, and Ray's `OptunaSearch` has it.

There are arms of two kinds. `Followed` are those of a study: the driver queues their cells, and
Tune and Optuna hear of each result. Those of a search are proposed by Optuna, and their seeds are
computed one by one, until the arm is not worth the rest (`sweeps.search.campaign`).
"""

import math
import os
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import ray
import ray.tune
from optuna.trial import TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from cluster.broker import warner
from cluster.connect import NAMESPACE
from cluster.trials import ARM_FIELD, BROKER_FIELD, TRIAL_CPU, ArmTrial
from sweeps.search.campaign import Campaign
from sweeps.search.optuna_study import STEP, GroupStudy
from sweeps.search.storage import Warn
from sweeps.search.trials import ENDED, OBJECTIVE, Trial
from sweeps.search.view import space_of

NODES_LOST = 100  # under one trial, before Tune gives it up
FOLLOWED_AT_ONCE = 1  # no slot waits for one (see the broker), and each is a process
# Tune's own records are thrown away: no log files per trial, no snapshots of the experiment.
TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",  # at once; `ArmSearch` holds back what is too many
}


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
        self._waiting = [
            Trial(number=number, group=name, params=point, values=dict(values))
            for number, (name, point, values) in enumerate(arms)
            if name in missing
        ]
        self._search = OptunaSearch(
            space=space,
            points_to_evaluate=[dict(trial.params) for trial in self._waiting],
            metric=OBJECTIVE,
            mode="max",
            seed=0,
            study_name=study_name,
            storage=storage,
        )
        self._told: dict[int, int] = {}

    @property
    def left(self) -> int:
        """Arms that have no trial yet."""
        return len(self._waiting)

    def next(self) -> Trial | None:
        """The next arm; its group is the arm's name."""
        if not self._waiting:
            return None
        trial = self._waiting.pop(0)
        self._search.suggest(trial.group)  # the points come in their order
        self._told[trial.number] = 0
        return trial

    def report(self, trial: Trial, seed: int, value: float | None) -> bool:
        """A seed has finished, or failed (None); the arm goes on to the others."""
        if value is not None:
            trial.values[seed] = value  # by seed: a trial that starts again repeats itself
        return True

    def tell(self, trial: Trial) -> None:
        """Tell Optuna of each seed that is new; the objective is the mean so far."""
        values = list(trial.values.values())
        for step in range(self._told[trial.number] + 1, len(values) + 1):
            mean = sum(values[:step]) / step
            self._search.on_trial_result(trial.group, {OBJECTIVE: mean, STEP: step})
        self._told[trial.number] = len(values)

    def close(self, trial: Trial) -> None:
        """The arm's trial is over; without a value it has failed."""
        self.tell(trial)
        values = list(trial.values.values())
        ended = {OBJECTIVE: sum(values) / len(values)} if values else None
        self._search.on_trial_complete(trial.group, ended, error=not values)


def optuna_search(study: GroupStudy) -> OptunaSearch:
    """Ray's search algorithm on the group's study."""
    return OptunaSearch(
        space=study.ask,
        metric=OBJECTIVE,
        mode="max" if study.problem.maximize else "min",
        points_to_evaluate=[dict(point) for point in study.first],
        sampler=study.sampler,
        study_name=study.name,
        storage=study.storage,
    )


class ArmSearch(Searcher):
    """Tune's search algorithm: which arm each trial is, and when it is over.

    Args:
        arms: of a search (`Campaign`) or of a study.
        take_up: makes the broker ready for an arm that is next; returns its name there.
        at_once: how many trials may run; it may change while they do.
        changed: called after whatever may have changed how many arms are left.
        may_start: whether another arm may be taken up.
    """

    def __init__(
        self,
        arms: Campaign | Followed,
        *,
        take_up: Callable[[Trial], str],
        at_once: Callable[[], int],
        changed: Callable[[], None] = lambda: None,
        may_start: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(metric=OBJECTIVE, mode="max")
        self._may_start = may_start
        self._arms, self._take_up, self._at_once, self._changed = arms, take_up, at_once, changed
        self._running: dict[str, Trial] = {}  # Tune's id → the arm

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if len(self._running) >= self._at_once():
            return None
        if not self._may_start():
            return Searcher.FINISHED
        trial = self._arms.next()
        self._changed()
        if trial is None:
            # What is left may wait for an arm that Tune has given up: see `search`.
            return None if self._arms.left and self._running else Searcher.FINISHED
        self._running[trial_id] = trial
        return {ARM_FIELD: self._take_up(trial)}

    def stops(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Hear a result of `ArmTrial.step`; whether it ends the trial (Tune's `stop`, asked first).

        A hopeless arm of a search, or one with a failed cell or one that was ended, is stopped.
        """
        if result["ok"] is None:  # it had no other: of a search, because its budget is spent
            return False
        trial, seed = self._running[trial_id], result.get("seed")
        if result["ok"] and result.get(ENDED):
            self._arms.end(trial, seed)
            return True
        return not self._arms.report(
            trial, seed, float(result[OBJECTIVE]) if result["ok"] else None
        )

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._arms.tell(self._running[trial_id])
        self._changed()

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if (trial := self._running.pop(trial_id, None)) is not None:
            self._arms.close(trial)
            self._changed()

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the search's state is the ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles the searcher into tuner.pkl, which nobody reads


def follow(*, broker_name: str, storage_path: str, **study: Any) -> None:
    """The arms of a study as trials, beside whoever computes them; `study` as in `Followed`."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    arms = Followed(**study)
    search = ArmSearch(arms, take_up=lambda trial: trial.group, at_once=lambda: FOLLOWED_AT_ONCE)
    _fit(search, arms.left, broker_name, storage_path)


def search(*, tuning: Any, database: Path | None, broker_name: str, storage_path: str) -> None:
    """Every arm that a search still lacks, as trials; blocks until done.

    Args:
        tuning: what the engine has of the search: `problem`, `known`, `record`, `record_stop`, and
            `steps`, which are the stages and cells of each missing seed.
    """
    broker = ray.get_actor(broker_name, namespace=NAMESPACE)

    def take_up(trial: Trial) -> str:
        arm = f"proposal {trial.number}"
        ray.get(broker.hold.remote(arm, tuning.steps(trial)))
        return arm

    def as_the_fleet_grows() -> int:
        # Seed by seed, an arm keeps one slot busy; one more bridges the gap between two seeds.
        return ray.get(broker.slots.remote()) + 1

    def may_start() -> bool:
        return ray.get(broker.may_start.remote())

    before: float = math.inf
    while may_start():
        campaign = campaign_of(tuning, database, warner(broker_name))
        if not campaign.left or campaign.unfinished >= before:
            return
        before = campaign.unfinished
        arms = ArmSearch(
            campaign,
            take_up=take_up,
            at_once=as_the_fleet_grows,
            changed=lambda campaign=campaign: broker.set_arms_left.remote(campaign.unfinished),
            may_start=may_start,
        )
        _fit(arms, campaign.left, broker_name, storage_path)
        # An arm whose node went before its trial had begun: Tune gives it up, the search does not.
        if not campaign.unfinished:
            return


def campaign_of(tuning: Any, database: Path | None, warn: Warn) -> Campaign:
    """The search's course, its proposals by Ray's `OptunaSearch`; arguments as in `search`."""
    return Campaign(
        tuning.problem,
        tuning.known(),
        record=tuning.record,
        record_stop=tuning.record_stop,
        database=database,
        search=optuna_search,
        warn=warn,
    )


def _fit(search: ArmSearch, arms: int, broker_name: str, storage_path: str) -> None:
    """So many arms as one Tune experiment."""
    os.environ.update(TUNE_SETTINGS)
    tuner = ray.tune.Tuner(
        ray.tune.with_resources(ArmTrial, ray.tune.PlacementGroupFactory([{"CPU": TRIAL_CPU}])),
        param_space={BROKER_FIELD: broker_name},
        tune_config=ray.tune.TuneConfig(search_alg=search, num_samples=arms, reuse_actors=True),
        run_config=ray.tune.RunConfig(
            name=f"arms-{uuid.uuid4().hex[:8]}",
            storage_path=storage_path,
            stop=search.stops,
            verbose=0,
            # A trial that went with its node starts again and hears what its arm has so far.
            failure_config=ray.tune.FailureConfig(max_failures=NODES_LOST),
        ),
    )
    tuner.fit()
