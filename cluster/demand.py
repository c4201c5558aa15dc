"""What an autoscaler is asked for: no-ops as large as a worker, which wait for a node to run on.

Not `ray.autoscaler.sdk.request_resources`: such a request outlives a driver that was killed, and
the nodes it asked for go on costing. A task that waits ends with the driver that owns it.
"""

from typing import Any

import ray


def _nothing() -> None:
    """Needs a slot, and gives it back at once."""


class Demand:
    """Slots that are wanted beyond those that are there.

    Args:
        cpus, gpus: what one slot needs.
    """

    def __init__(self, *, cpus: float, gpus: float) -> None:
        self._task = ray.remote(_nothing).options(num_cpus=cpus, num_gpus=gpus, max_retries=0)
        self._waiting: list[Any] = []

    def ask(self, slots: int) -> None:
        """Have exactly so many no-ops waiting; 0 or less takes all of them back."""
        slots = max(0, slots)
        if self._waiting:
            _, self._waiting = ray.wait(self._waiting, num_returns=len(self._waiting), timeout=0)
        for surplus in self._waiting[slots:]:
            ray.cancel(surplus)
        self._waiting = self._waiting[:slots]
        self._waiting += [self._task.remote() for _ in range(slots - len(self._waiting))]
