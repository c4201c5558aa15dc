"""What tests of whole runs share."""

import pytest
from small_disks import mounted
from studies import study_environment


@pytest.fixture
def cluster(monkeypatch):
    """Nodes on this machine: a head without a CPU, to which the tests add nodes of one."""
    from own_disks import nodes

    from cluster.connect import read_environment_anew

    monkeypatch.setenv("PYTHONPATH", study_environment()["PYTHONPATH"])  # the nodes' toy core
    # Whether this cluster asks for a token must not hang on what the tests before have left.
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    read_environment_anew()
    with nodes() as cluster:
        yield cluster


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 MiB of its own."""
    with mounted(tmp_path / "disk") as disk:
        yield disk
