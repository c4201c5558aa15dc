"""What Tune runs: one trial is one arm, and a step of it the next result of the arm.

Apart from the search algorithm, which needs Optuna: each trial process imports this module anew.
"""

from typing import Any

import ray
import ray.tune

from cluster.connect import NAMESPACE
from sweeps.search.trials import ENDED, OBJECTIVE

BROKER_FIELD = "__broker__"
ARM_FIELD = "arm"
TRIAL_CPU = 0.001
"""What a trial takes of the node that the fleet fills: it only waits."""


class ArmTrial(ray.tune.Trainable):
    """An actor that goes from arm to arm (a fresh one costs 1.7 s) and keeps nothing of its own."""

    def setup(self, config: dict[str, Any]) -> None:
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self.broker = ray.get_actor(config[BROKER_FIELD], namespace=NAMESPACE)
        self.arm = config[ARM_FIELD]
        self.position = 0

    def step(self) -> dict[str, Any]:
        """The next result: its seed and objective, and whether a pruner ended the cell while it
        ran; `ok` is None where the arm had no other.
        """
        result = ray.get(self.broker.result_of_arm.remote(self.arm, self.position))
        self.position += 1
        if result is None:
            return {"ok": None, OBJECTIVE: None, "done": True}
        return {
            "ok": result["ok"],
            "seed": result.get("seed"),
            OBJECTIVE: result.get(OBJECTIVE),
            ENDED: result.get(ENDED, False),
            "done": result["last"],
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial's state is the ledger."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load."""
