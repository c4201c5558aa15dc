"""What tests of whole runs share."""

import pytest
from small_disks import mounted
from studies import study_environment


@pytest.fixture
def cluster(monkeypatch):
    """Nodes on this machine: a head without a CPU, to which the tests add nodes of one."""
    from own_disks import nodes

    monkeypatch.setenv("PYTHONPATH", study_environment()["PYTHONPATH"])  # the nodes' toy core
    with nodes() as cluster:
        yield cluster


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 MiB of its own."""
    with mounted(tmp_path / "disk") as disk:
        yield disk
