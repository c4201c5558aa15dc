"""Nodes that are processes of this machine, each with a folder of its own as real ones have disks.

Ray lets them share one by default. Then every node that comes deletes and unpacks again the copy of
the code from which the processes of the nodes before it run; a process that asks for its working
directory, or imports a module, in that moment dies.
"""

import functools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import ray._private.parameter
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.cluster_utils import Cluster


class Cloud(FakeMultiNodeProvider):
    """Ray's own cloud of processes; their folders are in RAY_TMPDIR."""

    def _create_node_with_resources_and_labels(self, *arguments: Any) -> None:
        folder = tempfile.mkdtemp(prefix="n", dir=os.environ["RAY_TMPDIR"])
        parameters = functools.partial(ray._private.parameter.RayParams, temp_dir=folder)
        with mock.patch("ray._private.parameter.RayParams", parameters):
            super()._create_node_with_resources_and_labels(*arguments)


class Nodes:
    """A head without a CPU, to which nodes of one are added.

    Attributes:
        address: HOST:PORT of the head.
        head: the head, as `add` returns a node.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.address, self.head = self._cluster.address, self._cluster.head_node

    def add(self, **options: Any) -> Any:
        """One more node, which is up when this returns; options are those of `Cluster.add_node`."""
        folder = tempfile.mkdtemp(prefix="n", dir=self._folder)
        return self._cluster.add_node(**{"num_cpus": 1, "temp_dir": folder, **options})

    def kill(self, node: Any) -> None:
        """Take its processes away at once, as a machine that is switched off."""
        self._cluster.remove_node(node, allow_graceful=False)

    @staticmethod
    def daemons(node: Any) -> list[int]:
        """Ray's daemons of a node; what they started is below them."""
        return [one.process.pid for each in node.all_processes.values() for one in each]

    def shutdown(self) -> None:
        self._cluster.shutdown()


@contextmanager
def nodes() -> Iterator[Nodes]:
    """Nodes for the length of the block.

    The file that says where this machine's cluster is lies in their folder too: Ray's own place for
    it is one for all clusters of the machine, and whoever looks for one would find these nodes.
    """
    with (
        tempfile.TemporaryDirectory(prefix="medrl-", ignore_cleanup_errors=True) as folder,
        mock.patch.dict(os.environ, RAY_TMPDIR=folder),
    ):
        cluster = Nodes(Path(folder))
        try:
            yield cluster
        finally:
            cluster.shutdown()
