"""What Tune runs: one trial is one arm.

Apart from the searches, which need Optuna: each trial process imports this module anew.
"""

from typing import Any

import ray
import ray.tune

from cluster.broker import point_key
from cluster.connect import NAMESPACE
from sweeps.search.proposals import OBJECTIVE

BROKER_FIELD = "__broker__"
PROPOSAL_FIELD = "proposal"
SEEDS_FIELD = "seeds"
TRIAL_CPU = 0.001
"""What a trial takes of the node that the fleet fills: it only waits."""


class _Reused(ray.tune.Trainable):
    """An actor that goes from arm to arm (a fresh one costs 1.7 s) and keeps nothing of its own."""

    def setup(self, config: dict[str, Any]) -> None:
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        """Take up the arm of `config`."""
        raise NotImplementedError

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial's state is the ledger."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load."""


class ArmTrial(_Reused):
    """One arm: a step is one seed's result."""

    def _begin(self, config: dict[str, Any]) -> None:
        point = {name: value for name, value in config.items() if name != BROKER_FIELD}
        self.broker = ray.get_actor(config[BROKER_FIELD], namespace=NAMESPACE)
        self.key = point_key(point)
        self.expected = ray.get(self.broker.start_arm.remote(self.key))
        self.received = 0
        self.values: list[float] = []

    def step(self) -> dict[str, Any]:
        """The next result. The objective is the mean over the seeds that have finished so far.

        Raises:
            RuntimeError: every seed of the arm failed, so there is no objective to report.
        """
        while self.received < self.expected:
            result = ray.get(self.broker.result_of_arm.remote(self.key, self.received))
            self.received += 1
            if result["status"] == "finished":
                self.values += result.get("objectives") or [float(result[OBJECTIVE])]
                break
        if not self.values:
            raise RuntimeError(f"all {self.expected} cells of {self.key} failed")
        return {
            OBJECTIVE: sum(self.values) / len(self.values),
            "seeds_finished": len(self.values),
            "done": self.received >= self.expected,
        }


def key_of(number: int) -> str:
    """The broker's name for a proposal."""
    return f"proposal {number}"


class ProposalTrial(_Reused):
    """One proposed arm: a step computes one seed."""

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
