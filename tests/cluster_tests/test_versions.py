"""Nodes with other versions are named before any cell runs on them."""

import os

import pytest

from cluster import versions
from cluster.connect import ClusterError
from cluster.versions import check_versions, compare, significant, versions_here

HEAD = {"node": "node 10.0.0.1 (aaaaaa)", "python": "3.11.9", "ray": "2.60.0", "torch": "2.15.0"}
OTHER = {**HEAD, "node": "node 10.0.0.2 (bbbbbb)"}


def test_equal_nodes_give_no_lines():
    assert compare([HEAD]) == []
    assert compare([HEAD, OTHER, {**OTHER, "node": "c"}]) == []


def test_a_mismatch_names_the_node_the_package_and_both_versions():
    assert compare([HEAD, OTHER, {**OTHER, "node": "c", "torch": "2.14.1"}]) == [
        "c has torch 2.14.1, node 10.0.0.1 (aaaaaa) has 2.15.0"
    ]
    both = compare([HEAD, {**OTHER, "python": "3.12.1", "ray": "2.59.0"}])
    assert both == [
        "node 10.0.0.2 (bbbbbb) has python 3.12.1, node 10.0.0.1 (aaaaaa) has 3.11.9",
        "node 10.0.0.2 (bbbbbb) has ray 2.59.0, node 10.0.0.1 (aaaaaa) has 2.60.0",
    ]


def test_a_missing_package_is_a_mismatch():
    without = {name: version for name, version in OTHER.items() if name != "torch"}
    assert compare([HEAD, without]) == [
        "node 10.0.0.2 (bbbbbb) has torch none, node 10.0.0.1 (aaaaaa) has 2.15.0"
    ]


@pytest.mark.parametrize(
    ("package", "ours", "theirs", "same"),
    [
        ("python", "3.11.9", "3.11.2", True),  # a patch release changes no number
        ("python", "3.11.9", "3.1.9", False),
        ("torch", "2.15.0+cu128", "2.15.0+cpu", True),  # the device is in the row's own column
        ("torch", "2.15.0", "2.15.1", False),
        ("ray", "2.60.0", "2.60.1", False),
    ],
)
def test_what_must_agree(package, ours, theirs, same):
    assert (significant(package, ours) == significant(package, theirs)) is same


def test_this_process_knows_its_own():
    import ray
    import torch

    found = versions_here()
    assert found["ray"] == ray.__version__
    assert significant("torch", found["torch"]) == significant("torch", torch.__version__)
    assert found["python"].startswith("3.")


@pytest.mark.ray
def test_every_node_of_a_cluster_is_asked(monkeypatch):
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    driver = os.getpid()
    try:
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        found = versions.collect(ray.nodes())
        assert len({node["node"] for node in found}) == 2
        assert [node["torch"] for node in found] == [versions_here()["torch"]] * 2
        check_versions()
        monkeypatch.setattr(
            versions, "versions_here", lambda: {"torch": "2" if os.getpid() == driver else "1"}
        )
        with pytest.raises(ClusterError, match=r"node .* has torch 1, node .* has 2\. Install"):
            check_versions()
    finally:
        ray.shutdown()
        cluster.shutdown()
