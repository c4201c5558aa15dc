"""The cluster's nodes as the driver sees them, without ever waiting for the head.

`ray.nodes()` asks the GCS, Ray's bookkeeper on the head. Where that has died the call hangs for a
minute, and then Ray ends the process that made it, without a word (see `cluster.connect.PATIENT`).
"""

import threading
import time
from collections.abc import Mapping
from typing import Any

import ray

from cluster.connect import reachable
from cluster.errors import ClusterLost

EVERY_S = 2.0
SILENT_S = 18.0
"""A head that is not ours may be slow, or be started again by its owner (KubeRay does)."""
VITAL = {"gcs_server": "head (its GCS)", "raylet": "node on this machine (its raylet)"}
"""Of Ray's processes, those that a cluster of our own cannot do without."""


class Census:
    """`ray.nodes()` every two seconds, from a thread."""

    def __init__(self) -> None:
        self._address = ray.get_runtime_context().gcs_address
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
        """The nodes, where they were heard of since the last call; else None.

        Raises:
            ClusterLost: the head does not answer any more, or Ray's processes here have died.
        """
        if dead := self.dead():
            raise ClusterLost(dead)
        fresh, self._fresh = self._fresh, None
        return fresh

    def dead(self, *, looking: bool = False) -> str | None:
        """What of Ray itself has died, in words.

        Args:
            looking: something did, so a head that refuses connections now is it.
        """
        node = ray._private.worker._global_node
        ended = [kind for kind, _ in node.dead_processes()] if node else []  # of what we started
        for kind, what in VITAL.items():
            if kind in ended:
                return f"Ray's {what} died: its process was ended (killed, or out of memory)"
        silent_s = time.monotonic() - self._heard
        if silent_s > SILENT_S:
            return f"Ray's head (its GCS) died: it has not answered for {silent_s:.0f} s"
        if looking and not reachable(self._address):
            return f"Ray's head (its GCS) died: nothing answers at {self._address}"
        return None

    def close(self) -> None:
        """Ask no more; waits for the call under way, which must not meet Ray's own end."""
        self._over.set()
        self._thread.join(EVERY_S)
