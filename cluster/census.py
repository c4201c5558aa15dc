"""The cluster's nodes as the driver sees them, without ever waiting for the head.

`ray.nodes()` asks the GCS, Ray's bookkeeper on the head. Where that has died the call hangs for a
minute, and then Ray ends the process that made it, without a word (see `PATIENT`).
"""

import threading
import time
from collections.abc import Mapping
from typing import Any

import ray

from cluster.connect import reachable
from cluster.errors import ClusterLost

EVERY_S = 2.0
REFUSED_S = 4.0
"""A head of our own that refuses connections so long will not come back."""
SILENT_S = 18.0
"""One that is only slow, or that somebody may start again (KubeRay does), has so long."""


class Census:
    """`ray.nodes()` every two seconds, from a thread.

    Args:
        stays: the cluster is not ours: whoever owns it may start its head again.
    """

    def __init__(self, *, stays: bool) -> None:
        self._address = ray.get_runtime_context().gcs_address
        self._stays = stays
        self._fresh: list[Mapping[str, Any]] | None = None
        self._heard = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="census", daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        while not self._over.wait(EVERY_S):
            try:
                nodes = ray.nodes()
            except Exception:
                continue  # asked again; a silence that lasts is what counts
            self._fresh, self._heard = nodes, time.monotonic()

    def news(self) -> list[Mapping[str, Any]] | None:
        """The nodes, where they were asked for since the last call; else None.

        Raises:
            ClusterLost: the head does not answer any more.
        """
        silent_s = time.monotonic() - self._heard
        ours_refuses = (
            not self._stays and silent_s > EVERY_S + REFUSED_S and not reachable(self._address)
        )
        if silent_s > SILENT_S or ours_refuses:
            raise ClusterLost(
                f"Ray's head (its GCS) at {self._address} died: it has not answered for "
                f"{silent_s:.0f} s"
            )
        fresh, self._fresh = self._fresh, None
        return fresh

    def close(self) -> None:
        """Ask no more; waits for the call under way, which must not meet Ray's own end."""
        self._over.set()
        self._thread.join(EVERY_S)
