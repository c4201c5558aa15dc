"""A search as a Ray Tune experiment: `OptunaSearch` proposes, one trial is one arm, seed by seed.

Each group has an `OptunaSearch` of its own: a sampler and a budget per compared level. To Tune they
are one search algorithm, `ByGroup`, which passes on to them what Tune says. The campaign stands in
between: it says whose turn it is and when an arm is over, and has a proposal on record before its
first cell.
"""

import math
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
import ray.tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.tune.search.optuna import OptunaSearch

from cluster.broker import warner
from cluster.connect import NAMESPACE
from cluster.queue import WorkItem
from cluster.trials import (
    BROKER_FIELD,
    PROPOSAL_FIELD,
    SEEDS_FIELD,
    TRIAL_CPU,
    ProposalTrial,
    key_of,
)
from sweeps.search.campaign import Campaign, Work
from sweeps.search.optuna_study import GroupStudy
from sweeps.search.proposals import OBJECTIVE, OPEN, Proposal
from sweeps.search.space import Problem
from sweeps.search.storage import Warn

NODES_LOST = 100  # under one trial, before its arm counts as failed
MOST_ARMS = 1_000  # at once; Tune reads it once, `_AsFleetGrows` holds back what is too many


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


class ByGroup(Searcher):
    """Tune's search algorithm: hands each trial to the `OptunaSearch` of its group.

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
        announce: Callable[[Proposal, list[list[WorkItem]]], None],
        say_left: Callable[[int], None],
        warn: Warn,
    ) -> None:
        super().__init__(metric=OBJECTIVE, mode="max" if problem.maximize else "min")
        self.campaign = Campaign(problem, work, database=database, search=optuna_search, warn=warn)
        self._announce, self._say_left = announce, say_left
        self._proposals: dict[str, Proposal] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """An arm of the group whose turn it is, and which of its seeds are missing."""
        proposal = self.campaign.next()
        self._say_left(self.campaign.unfinished)
        if proposal is None:
            return None if self.campaign.left else Searcher.FINISHED
        steps = self.campaign.work.steps(proposal)
        self._announce(proposal, [items for _, items in steps])
        self._proposals[trial_id] = proposal
        return {PROPOSAL_FIELD: proposal.number, SEEDS_FIELD: [seed for seed, _ in steps]}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """The result is one seed's; the group's search hears the mean so far."""
        self.campaign.tell(self._proposals[trial_id])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """`Stopping`, which Tune tells first, has judged whether the arm is over, and how it ended.

        One that is not (its node went before it had begun) stays open.
        """
        self.campaign.tell(self._proposals[trial_id])
        self._say_left(self.campaign.unfinished)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the search's state is the ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles the searcher into tuner.pkl, which nobody reads


class _AsFleetGrows(ConcurrencyLimiter):
    """As many arms at once as the fleet can feed, while nodes come and go."""

    def __init__(self, searcher: Searcher, broker: Any) -> None:
        super().__init__(searcher, max_concurrent=MOST_ARMS)
        self._broker = broker

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        # Seed by seed, an arm keeps one slot busy; one more bridges the gap between two seeds.
        self.max_concurrent = ray.get(self._broker.slots.remote()) + 1
        return super().suggest(trial_id)

    def get_state(self) -> dict[str, Any]:
        return {}


class Stopping(FIFOScheduler):
    """Tune's side of `Campaign.report`: a hopeless arm, or one with a failed cell, is stopped."""

    def __init__(self, campaign: Campaign) -> None:
        super().__init__()
        self._campaign = campaign

    def _proposal(self, trial: Any) -> Proposal:
        return self._campaign.proposals[trial.config[PROPOSAL_FIELD]]

    def _hear(self, trial: Any, result: Mapping[str, Any]) -> str:
        proposal = self._proposal(trial)
        if proposal.state != OPEN:  # Tune hands a stopped trial's last result over once more
            return self.STOP
        if not result["ok"]:
            self._campaign.fail(proposal)
            return self.STOP
        goes_on = self._campaign.report(proposal, result["seed"], float(result[OBJECTIVE]))
        return self.CONTINUE if goes_on else self.STOP

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return self._hear(trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self._hear(trial, result)  # Tune hands the last result here alone

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        # Tune says so too of a trial that went with its node and starts again.
        if self._proposal(trial).state == OPEN and not trial.should_recover():
            self._campaign.fail(self._proposal(trial))

    def __getstate__(self) -> dict[str, Any]:
        return {}


def run_search(
    *,
    problem: Problem,
    work: Work,
    broker_name: str,
    storage_path: str,
    database: Path | None,
) -> list[str]:
    """Every arm that `problem` still lacks, as trials of a Tune experiment; blocks until done.

    Returns:
        The errors of trials that Tune lost, one line each.
    """
    broker = ray.get_actor(broker_name, namespace=NAMESPACE)

    def announce(proposal: Proposal, steps: list[list[WorkItem]]) -> None:
        ray.get(broker.register_steps.remote(key_of(proposal.number), steps))

    errors: list[str] = []
    before: float = math.inf
    while True:
        search = ByGroup(
            problem, work, database, announce, broker.set_arms_left.remote, warner(broker_name)
        )
        campaign = search.campaign
        if not campaign.left or campaign.unfinished >= before:
            return errors
        before = campaign.unfinished
        errors = _fit(search, broker, broker_name, storage_path)
        if not campaign.unfinished:
            return errors
        # An arm whose node went before its trial had begun: Tune gives it up, the campaign not.


def _fit(search: ByGroup, broker: Any, broker_name: str, storage_path: str) -> list[str]:
    """The campaign's arms as one Tune experiment; the errors of trials that Tune lost."""
    trainable = ray.tune.with_resources(
        ProposalTrial, ray.tune.PlacementGroupFactory([{"CPU": TRIAL_CPU}])
    )
    tuner = ray.tune.Tuner(
        trainable,
        param_space={BROKER_FIELD: broker_name},
        tune_config=ray.tune.TuneConfig(
            search_alg=_AsFleetGrows(search, broker),
            scheduler=Stopping(search.campaign),
            num_samples=search.campaign.left,
            reuse_actors=True,
        ),
        run_config=ray.tune.RunConfig(
            name=f"search-{uuid.uuid4().hex[:8]}",
            storage_path=storage_path,
            verbose=0,
            # A trial that went with its node starts again and hears what its arm has so far.
            failure_config=ray.tune.FailureConfig(max_failures=NODES_LOST),
        ),
    )
    results = tuner.fit()
    return [str(error).strip().splitlines()[-1] for error in results.errors]
