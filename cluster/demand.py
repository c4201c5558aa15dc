"""What an autoscaler is asked for: no-ops as large as a worker, which wait for a node to run on.

Not `ray.autoscaler.sdk.request_resources`. Of a request that is larger than the cluster may grow,
Ray's autoscaler (2.60, v2) fulfils nothing, and how far it may grow it tells nobody; the last
program to ask overwrites all others; and the request outlives a driver that was killed, whose nodes
go on costing. A task that waits is fulfilled one by one, adds to what others ask for, and ends with
the driver that owns it. In return it would take a free CPU where it finds one: hence a few at a
time, only where an autoscaler is there, and never on a node that the fleet knows.
"""

import json
from collections.abc import Collection
from typing import Any

import ray
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.autoscaler._private.util import format_readonly_node_type
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply
from ray.experimental.internal_kv import internal_kv_get_gcs_client

MOST_AT_ONCE = 100  # slots; as nodes come, the next are asked for
ASK_TIMEOUT_S = 5.0
LEASES = 10  # so many, or one a node, Ray asks for at once for tasks of one kind


def _nothing() -> None:
    """Needs a slot, and gives it back at once."""


def autoscaler_is_there() -> bool:
    """Whether nodes may come to the cluster by themselves.

    Every head runs a monitor, which reports on a cluster that cannot grow as well: it then makes up
    a type for each node from the node's id (v1), and no node has an id of the cloud's (v2).
    """
    gcs = internal_kv_get_gcs_client()
    reply = GetClusterStatusReply()
    reply.ParseFromString(gcs.get_cluster_status(timeout_s=ASK_TIMEOUT_S))
    if reply.autoscaling_state.autoscaler_state_version:
        return any(node.instance_id for node in reply.cluster_resource_state.node_states)
    status = gcs.internal_kv_get(
        DEBUG_AUTOSCALING_STATUS.encode(), namespace=None, timeout=ASK_TIMEOUT_S
    )
    report = json.loads(status or b"{}").get("autoscaler_report") or {}
    made_up = {format_readonly_node_type(node["NodeID"]) for node in ray.nodes()}
    types = {*(report.get("active_nodes") or {}), *(report.get("node_type_mapping") or {}).values()}
    return not types <= made_up


class Demand:
    """Slots that are wanted beyond those that are there.

    Args:
        cpus, gpus: what one slot needs.
    """

    def __init__(self, *, cpus: float, gpus: float) -> None:
        self._task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_nothing)
        self._waiting: list[Any] = []
        self._grows = False
        self._not_on: frozenset[str] = frozenset()
        self._kind = 0

    def ask(self, slots: int, *, not_on: Collection[str]) -> None:
        """Have so many no-ops waiting, MOST_AT_ONCE at most; 0 or less takes all of them back.

        Of those that wait Ray now and then tells the autoscaler of a part only (about one asking in
        fifty on a busy machine): the first node that comes for them changes `not_on`, and with it
        all are asked for anew.

        Args:
            not_on: ids of the nodes that are there: no no-op runs on one, whether or not the fleet
                has taken its room yet.
        """
        slots = min(max(0, slots), MOST_AT_ONCE)
        self._grows = self._grows or (slots > 0 and autoscaler_is_there())
        if not self._grows:
            return
        if self._waiting:
            _, self._waiting = ray.wait(self._waiting, num_returns=len(self._waiting), timeout=0)
        same = self._not_on == frozenset(not_on)
        # Of one kind of task Ray takes no lease back while a single one waits: for exactly a few,
        # others of another kind.
        exact = slots >= min(len(self._waiting), max(LEASES, len(not_on)))
        keep = slots if same and exact else 0
        self._kind += not (same and exact)
        for surplus in self._waiting[keep:]:
            ray.cancel(surplus)
        self._waiting, self._not_on = self._waiting[:keep], frozenset(not_on)
        nodes = ",".join([*sorted(not_on), f"kind{self._kind}"])  # no node has that id
        task = self._task.options(label_selector={"ray.io/node-id": f"!in({nodes})"})
        self._waiting += [task.remote() for _ in range(slots - len(self._waiting))]
