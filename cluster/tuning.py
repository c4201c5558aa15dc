"""A search as a Ray Tune experiment: the campaign proposes, one trial is one arm, seed by seed.

Why not `OptunaSearch`: its proposals depend on what its process has seen since it started, it may
propose a point twice, and it has one sampler for all groups. Here Tune asks the campaign, which
builds Optuna's study from the ledger for each proposal.
"""

import math
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import ray.tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher

from cluster.campaign import Campaign, Work
from cluster.connect import NAMESPACE
from cluster.proposals import OPEN, Proposal
from cluster.space import Problem
from cluster.trials import (
    BROKER_FIELD,
    OBJECTIVE,
    PROPOSAL_FIELD,
    SEEDS_FIELD,
    TRIAL_CPU,
    ProposalTrial,
    key_of,
)

NODES_LOST = 100  # under one trial, before its arm counts as failed
MOST_ARMS = 1_000  # at once; Tune reads it once, `_AsFleetGrows` holds back what is too many


class _Asking(Searcher):
    """Tune's side of `Campaign.next`."""

    def __init__(self, campaign: Campaign, broker: Any) -> None:
        super().__init__(metric=OBJECTIVE, mode="max" if campaign.problem.maximize else "min")
        self._campaign, self._broker = campaign, broker

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        proposal = self._campaign.next()
        self._say_what_is_left()
        if proposal is None:
            return None if self._campaign.left else Searcher.FINISHED
        steps = self._campaign.work.steps(proposal)
        ray.get(
            self._broker.register_steps.remote(
                key_of(proposal.number), [items for _, items in steps]
            )
        )
        return {PROPOSAL_FIELD: proposal.number, SEEDS_FIELD: [seed for seed, _ in steps]}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """`_Stopping` has told the campaign already."""
        self._say_what_is_left()

    def _say_what_is_left(self) -> None:
        self._broker.set_arms_left.remote(self._campaign.unfinished)

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


class _Stopping(FIFOScheduler):
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
    errors: list[str] = []
    before: float = math.inf
    while True:
        campaign = Campaign(problem, work, database=database)
        if not campaign.left or campaign.unfinished >= before:
            return errors
        before = campaign.unfinished
        errors = _fit(campaign, broker, broker_name, storage_path)
        if not campaign.unfinished:
            return errors
        # An arm whose node went before its trial had begun: Tune gives it up, the campaign not.


def _fit(campaign: Campaign, broker: Any, broker_name: str, storage_path: str) -> list[str]:
    """The campaign's arms as one Tune experiment; the errors of trials that Tune lost."""
    trainable = ray.tune.with_resources(
        ProposalTrial, ray.tune.PlacementGroupFactory([{"CPU": TRIAL_CPU}])
    )
    tuner = ray.tune.Tuner(
        trainable,
        param_space={BROKER_FIELD: broker_name},
        tune_config=ray.tune.TuneConfig(
            search_alg=_AsFleetGrows(_Asking(campaign, broker), broker),
            scheduler=_Stopping(campaign),
            num_samples=campaign.left,
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
