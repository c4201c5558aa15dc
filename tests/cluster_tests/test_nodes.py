"""Nodes that come and go by themselves, and a cluster of other people's that cannot grow."""

import signal
import subprocess
import sys
import time

import pytest
from heads import Head, ray_head
from studies import ROOT, elsewhere

from sweeps.ledger.read import read_ledger

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]

# Prints how many nodes beside the head are up, once there is none or the time is over, and whether
# an autoscaler is seen.
COUNT = """
import sys, time, ray
from cluster.demand import autoscaler_is_there
ray.init(address=sys.argv[1], log_to_driver=False)
deadline = time.monotonic() + 90
while (up := sum(n["Alive"] for n in ray.nodes()) - 1) and time.monotonic() < deadline:
    time.sleep(0.5)
print(up, autoscaler_is_there())
"""


def nodes_left(head: Head) -> list[str]:
    """What COUNT says, a minute and a half from now at the latest."""
    answer = subprocess.run(
        [sys.executable, "-c", COUNT, head.address],
        cwd=ROOT,
        env=head.environment,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.split()[-2:]


def test_a_cluster_without_nodes_grows_for_a_study_and_shrinks_after_it(tmp_path):
    with ray_head(cpus=0, grows_to=2) as head:
        arguments = ("--results", tmp_path, "--set", "wait_s=3", "--address", head.address)
        answer = elsewhere(*arguments, timeout=200, **head.environment)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        assert nodes_left(head) == ["0", "True"]
    assert "waiting up to 20 min for nodes to come: no node has room" in answer.stdout
    rows = read_ledger(str(tmp_path / "toy")).cells
    assert rows["status"].tolist() == ["ok"] * 12
    assert rows["node"].nunique() == 2


def test_thousands_of_cells_start_at_once_on_a_joined_cluster_that_cannot_grow(start, tmp_path):
    with ray_head(cpus=2) as head:
        process = start(
            *("--results", tmp_path, "--seeds", "1000", "--address", head.address),
            env=head.environment,
            stderr=subprocess.STDOUT,
        )
        line = ""
        while "joined the Ray cluster at" not in line:  # data and plan are there
            line = process.stdout.readline()
            assert process.poll() is None
        deadline = time.monotonic() + 60
        while not list((tmp_path / "toy" / "cells").glob("[!.]*.parquet")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
        assert nodes_left(head) == ["0", "False"]
    assert process.returncode == 143, out
    assert "of 6000 cells are committed" in out
