"""Ray Train's trainer without the actors that a fleet has no use for.

Apart from the fleet, because the driver imports that and needs none of Train.
"""

from typing import Any

from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

WITHOUT = (DatasetsCallback, PlacementGroupCleanerCallback)
"""Each starts a process beside the workers, just when these import what they need. A fleet reads no
Ray dataset. The cleaner gives back the room of a controller that was killed, but asks the State
API, which a cluster without a dashboard has not: `cluster.fleet.Supervisor` does it instead."""


class FleetTrainer(DataParallelTrainer):
    """Data-parallel training of workers that share nothing.

    Not Train's `TorchTrainer`: that one joins the workers in a process group, which none of them
    uses, and has this process and Train's controller import torch, one after the other.
    """

    def _create_default_callbacks(self) -> list[Any]:
        return [c for c in super()._create_default_callbacks() if not isinstance(c, WITHOUT)]
