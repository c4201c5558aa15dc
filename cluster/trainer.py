"""Ray Train's trainer without the actors that a fleet has no use for, its controller on its node.

Apart from the fleet, because the driver imports that and needs none of Train.
"""

from typing import Any

import ray
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
    get_or_create_autoscaling_coordinator,
)
from ray.train import Result
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

WITHOUT = (DatasetsCallback, PlacementGroupCleanerCallback)
"""Each starts a process beside the workers, just when these import what they need. A fleet reads no
Ray dataset. The cleaner gives back the room of a controller that was killed, but asks the State
API, which a cluster without a dashboard has not: `cluster.fleet.Supervisor` does it instead."""


NODE_LABEL = "ray.io/node-id"
Controller = ray.remote(num_cpus=0)(TrainController)  # once: each is sent to the cluster anew


class FleetTrainer(DataParallelTrainer):
    """Data-parallel training of workers that share nothing, all of them on one node.

    Not Train's `TorchTrainer`: that one joins the workers in a process group, which none of them
    uses, and has this process and Train's controller import torch, one after the other.

    Train's own controller, and the actor that it starts for itself, live where `fit` is called:
    223 MiB a run, and so a node, beside the driver. Here they live with the workers.

    Args:
        node_id: where the run is; it ends when that node does.
    """

    def __init__(self, *args: Any, node_id: str, **named: Any) -> None:
        super().__init__(*args, **named)
        self._node_id = node_id
        # One for the whole cluster, kept by whoever asks first: by this process, whose node is the
        # driver's, and not by a controller, whose node may go.
        get_or_create_autoscaling_coordinator()

    def _create_default_callbacks(self) -> list[Any]:
        return [c for c in super()._create_default_callbacks() if not isinstance(c, WITHOUT)]

    def _initialize_and_run_controller(self, **named: Any) -> Result:
        controller = Controller.options(
            label_selector={NODE_LABEL: self._node_id},
            runtime_env={"env_vars": get_env_vars_to_propagate()},
        ).remote(**named)
        ray.get(controller.run.remote())
        return ray.get(controller.get_result.remote())
