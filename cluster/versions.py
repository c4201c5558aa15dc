"""Do all nodes run the same python, ray and torch? A cell's numbers depend on the last."""

from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.connect import ClusterError
from sweeps.process import versions_of

PACKAGES = ("ray", "torch")
ANSWER_TIMEOUT_S = 60.0


def versions_here() -> dict[str, str]:
    """Python and PACKAGES of this process, without importing any; "none" where one is missing."""
    return dict.fromkeys(("python", *PACKAGES), "none") | versions_of(PACKAGES)


def significant(package: str, version: str) -> str:
    """What must agree: python's major.minor ("3.11"), a package without its build ("+cu128")."""
    if package == "python":
        return ".".join(version.split(".")[:2])
    return version.partition("+")[0]


def compare(nodes: Sequence[Mapping[str, str]]) -> list[str]:
    """How the nodes differ from the first of them, one line per node and package.

    Args:
        nodes: `{"node": its name, "python": version, "ray": …, "torch": …}`, the driver's first.
    """
    differences = []
    for node in nodes[1:]:
        for package, ours in nodes[0].items():
            if package == "node":
                continue
            theirs = node.get(package, "none")
            if significant(package, theirs) != significant(package, ours):
                differences.append(
                    f"{node['node']} has {package} {theirs}, {nodes[0]['node']} has {ours}"
                )
    return differences


def name_of(node: Mapping[str, Any]) -> str:
    """A node as messages name it.

    Args:
        node: as `ray.nodes()` lists it.
    """
    return f"node {node['NodeManagerAddress']} ({node['NodeID'][:6]})"


def ask(node_id: str) -> Any:
    """The future of `versions_here` on that node."""
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(versions_here).options(num_cpus=0, scheduling_strategy=there).remote()


def collect(nodes: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The versions on every alive node, this process's first.

    Args:
        nodes: as `ray.nodes()` lists them.

    A node that leaves meanwhile is not in it. A cluster of one node starts no task.

    Raises:
        ClusterError: a node does not answer within ANSWER_TIMEOUT_S.
    """
    here = ray.get_runtime_context().get_node_id()
    names = {node["NodeID"]: name_of(node) for node in nodes if node["Alive"]}
    asked = {ask(node): name for node, name in names.items() if node != here}
    found = [{"node": names[here], **versions_here()}]
    if not asked:
        return found
    _, late = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_TIMEOUT_S)
    if late:
        raise ClusterError(
            f"{', '.join(asked[answer] for answer in late)} did not start a process within "
            f"{ANSWER_TIMEOUT_S:.0f} s; see `ray status` and that node's logs, or remove it"
        )
    for answer, name in asked.items():
        try:
            found.append({"node": name, **ray.get(answer)})
        except (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError):
            continue
    return found


def check_versions() -> frozenset[str]:
    """Refuse a cluster whose nodes differ; returns the ids of those that were asked.

    Raises:
        ClusterError: names each node, the package and both versions.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    differences = compare(collect(nodes))
    if differences:
        raise ClusterError(
            "every node must run the same python, ray and torch, but "
            f"{'; '.join(differences)}. Install constraints.txt on every node, or stop those nodes"
        )
    return frozenset(node["NodeID"] for node in nodes)
