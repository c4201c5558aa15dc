"""The same search on a real cluster, undisturbed and killed."""

import subprocess
import time
from pathlib import Path

import pytest
from heads import ray_head
from small_disks import fill
from studies import elsewhere
from test_search import SCRIPT, assert_whole, kill_after, proposals, trials

from sweeps.ledger.read import read_ledger

# They start Ray up to five times, beside another test that does.
pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


def test_a_search_on_ray_ends_with_the_trials_asked_for_and_the_winners_rerun(tmp_path):
    answer = elsewhere("--results", tmp_path, "--trials", 3, "--seeds", 1, script=SCRIPT)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "6 of 6 proposals" in answer.stdout
    assert_whole(tmp_path, asked=6)
    rows = trials(tmp_path)
    assert [row["ridge"] for row in rows[:2]] == ["1.0", "1.0"]
    assert (tmp_path / "toy_search" / "study.json").exists()


def committed(results: Path) -> set[tuple]:
    """Arm, seed, node and moment of each committed tuning cell."""
    if not (results / "toy_search_tuning" / "cells").exists():
        return set()
    cells = read_ledger(str(results / "toy_search_tuning")).cells
    cells = cells[cells["status"] == "ok"]
    return set(cells[["arm", "seed", "node", "started"]].itertuples(index=False, name=None))


def nodes_of(results: Path) -> int:
    return len({node for _, _, node, _ in committed(results)})


@pytest.mark.slow
def test_killed_three_times_on_ray_it_proposes_nothing_twice_and_loses_nothing(tmp_path):
    slowly = ("--set", "wait_s=0.4")
    seen: dict[str, dict] = {}
    for cells in (4, 14, 24):
        kill_after(tmp_path, cells, *slowly)
        time.sleep(3)  # what its workers were committing is there by now
        now = proposals(tmp_path)
        assert seen.items() <= now.items()
        seen = now
    last = elsewhere("--results", tmp_path, *slowly, script=SCRIPT, timeout=400)
    assert last.returncode == 0, last.stdout + last.stderr
    assert seen.items() <= proposals(tmp_path).items()
    assert_whole(tmp_path, asked=12)


@pytest.mark.slow
def test_a_search_begins_on_a_cluster_without_nodes(tmp_path):
    with ray_head(cpus=0, grows_to=2) as head:
        arguments = ("--results", tmp_path, "--trials", 4, "--set", "wait_s=1", "--seeds", 1)
        arguments += ("--address", head.address)
        answer = elsewhere(*arguments, script=SCRIPT, timeout=400, **head.environment)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "waiting up to 20 min for nodes to come: no node has room" in answer.stdout
    assert_whole(tmp_path, asked=8)
    assert nodes_of(tmp_path) == 2


@pytest.mark.slow
def test_a_search_goes_on_when_a_node_is_lost(cluster, start, tmp_path):
    arguments = ("--results", tmp_path, "--trials", 4, "--set", "wait_s=1", "--seeds", 1)
    process = start(*arguments, "--address", cluster.address, script=SCRIPT)
    while "waiting up to 20 min for nodes to come" not in process.stdout.readline():
        assert process.poll() is None
    victim, _ = cluster.add(), cluster.add()
    while nodes_of(tmp_path) < 2:
        assert process.poll() is None
        time.sleep(0.2)
    cluster.kill(victim)
    kept = committed(tmp_path)
    out = process.stdout.read()
    assert process.wait(timeout=60) == 0, out
    assert_whole(tmp_path, asked=8)
    assert kept <= committed(tmp_path)


@pytest.mark.slow
def test_a_full_disk_loses_nothing_and_the_search_goes_on_once_there_is_room(small_disk, start):
    results = small_disk / "results"
    arguments = ("--results", results, "--trials", 4, "--set", "wait_s=2", "--seeds", 1)
    process = start(*arguments, script=SCRIPT, stderr=subprocess.STDOUT)
    while len(committed(results)) < 3:
        assert process.poll() is None
        time.sleep(0.2)
    filler = fill(small_disk)
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 3, out
    assert f"no space left in {results}" in out, out
    assert "Nothing committed is lost. Make room, then: python" in out
    kept, made = committed(results), proposals(results)
    filler.unlink()
    answer = elsewhere(*arguments, "--retry-failed", script=SCRIPT)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert kept <= committed(results)
    assert made.items() <= proposals(results).items()
    assert_whole(results, asked=8)
