"""A search as a Ray Tune experiment: the campaign proposes, one trial is one arm, seed by seed.

Why not `OptunaSearch`: its proposals depend on what its process has seen since it started, it may
propose a point twice, and it has one sampler for all groups. Here Tune asks the campaign, which
builds Optuna's study from the ledger for each proposal.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import ray.tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from cluster.arms import BROKER_FIELD, OBJECTIVE, TRIAL_CPU
from cluster.broker import on_this_node
from cluster.campaign import Campaign, Work
from cluster.connect import NAMESPACE
from cluster.proposals import OPEN, Proposal
from cluster.space import Problem

PROPOSAL_FIELD = "proposal"
SEEDS_FIELD = "seeds"


def key_of(number: int) -> str:
    """The broker's name for a proposal."""
    return f"proposal {number}"


class ProposalTrial(ray.tune.Trainable):
    """One proposed arm: a step computes one seed. Reused from arm to arm."""

    def setup(self, config: dict[str, Any]) -> None:
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self.broker = ray.get_actor(config[BROKER_FIELD], namespace=NAMESPACE)
        self.key = key_of(config[PROPOSAL_FIELD])
        self.seeds = list(config[SEEDS_FIELD])
        self.position = 0

    def step(self) -> dict[str, Any]:
        """Queue the next seed's stages and cell, and wait for the cell."""
        ray.get(self.broker.start_step.remote(self.key, self.position))
        result = ray.get(self.broker.result_of_arm.remote(self.key, self.position))
        seed = self.seeds[self.position]
        self.position += 1
        return {
            "seed": seed,
            "ok": result["status"] == "finished",
            OBJECTIVE: result.get(OBJECTIVE),
            "done": self.position >= len(self.seeds),
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial's state is the ledger."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load."""


class _Asking(Searcher):
    """Tune's side of `Campaign.next`."""

    def __init__(self, campaign: Campaign, broker: Any) -> None:
        super().__init__(metric=OBJECTIVE, mode="max" if campaign.problem.maximize else "min")
        self._campaign, self._broker = campaign, broker

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        proposal = self._campaign.next()
        if proposal is None:
            return Searcher.FINISHED
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
        """Nothing: `_Stopping` has told the campaign."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the search's state is the ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles the searcher into tuner.pkl, which nobody reads


class _Stopping(FIFOScheduler):
    """Tune's side of `Campaign.report`: a hopeless arm, or one with a failed cell, is stopped."""

    def __init__(self, campaign: Campaign) -> None:
        super().__init__()
        self._campaign = campaign

    def _proposal(self, trial: Any) -> Proposal:
        return self._campaign.proposals[trial.config[PROPOSAL_FIELD]]

    def _hear(self, trial: Any, result: Mapping[str, Any]) -> str:
        proposal = self._proposal(trial)
        if not result["ok"]:
            self._campaign.fail(proposal)
            return self.STOP
        goes_on = self._campaign.report(proposal, result["seed"], float(result[OBJECTIVE]))
        return self.CONTINUE if goes_on else self.STOP

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return self._hear(trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        # Tune hands the last result here alone, and a stopped trial's once more.
        if self._proposal(trial).state == OPEN:
            self._hear(trial, result)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        if self._proposal(trial).state == OPEN:
            self._campaign.fail(self._proposal(trial))

    def __getstate__(self) -> dict[str, Any]:
        return {}


def run_search(
    *,
    problem: Problem,
    work: Work,
    broker_name: str,
    max_concurrent: int,
    storage_path: str,
    database: Path | None,
) -> list[str]:
    """Every arm that `problem` still lacks, as trials of one Tune experiment; blocks until done.

    Returns:
        The errors of trials that Tune lost, one line each.
    """
    broker = ray.get_actor(broker_name, namespace=NAMESPACE)
    campaign = Campaign(problem, work, database=database)
    if not campaign.left:
        return []
    trainable = ray.tune.with_resources(
        ProposalTrial, ray.tune.PlacementGroupFactory([{"CPU": TRIAL_CPU}])
    )
    tuner = ray.tune.Tuner(
        trainable,
        param_space={BROKER_FIELD: broker_name},
        tune_config=ray.tune.TuneConfig(
            search_alg=_Asking(campaign, broker),
            scheduler=_Stopping(campaign),
            num_samples=campaign.left,
            max_concurrent_trials=max_concurrent,
            reuse_actors=True,
        ),
        run_config=ray.tune.RunConfig(name="search", storage_path=storage_path, verbose=0),
    )
    results = tuner.fit()
    return [str(error).strip().splitlines()[-1] for error in results.errors]


def start_search(**arguments: Any) -> Any:
    """`run_search` in a process beside the driver; its future."""
    return (
        ray.remote(run_search)
        .options(num_cpus=0, max_retries=0, **on_this_node())
        .remote(**arguments)
    )
