"""Do all nodes run the same python, ray and torch? A cell's numbers depend on the last."""

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.connect import ClusterError

PACKAGES = ("ray", "torch")
ANSWER_TIMEOUT_S = 60.0


def versions_here() -> dict[str, str]:
    """Python and PACKAGES of this process, without importing any; "none" where one is missing."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found


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


def collect() -> list[dict[str, str]]:
    """The versions on every alive node, this process's first.

    A node that leaves meanwhile is not in it. A cluster of one node starts no task.

    Raises:
        ClusterError: a node does not answer within ANSWER_TIMEOUT_S.
    """
    here = ray.get_runtime_context().get_node_id()
    names = {
        node["NodeID"]: f"node {node['NodeManagerAddress']} ({node['NodeID'][:6]})"
        for node in ray.nodes()
        if node["Alive"]
    }
    task = ray.remote(versions_here)
    asked = {
        task.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(): name
        for node, name in names.items()
        if node != here
    }
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


def check_versions() -> None:
    """Refuse a cluster whose nodes differ.

    Raises:
        ClusterError: names each node, the package and both versions.
    """
    differences = compare(collect())
    if differences:
        raise ClusterError(
            "every node must run the same python, ray and torch, but "
            f"{'; '.join(differences)}. Install constraints.txt on every node, or stop those nodes"
        )
