"""Faults injected into real runs. After each: planned = committed + listed failures, no committed
cell ran twice, and the numbers equal those of the undisturbed run."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import toy_study
from processes import below
from small_disks import fill
from studies import elsewhere, here

from sweeps.ledger.read import read_ledger

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


def stamps(results: Path) -> dict[str, int]:
    folder = results / "toy" / "cells"
    return {p.name: p.stat().st_mtime_ns for p in folder.glob("[!.]*.parquet")}


def numbers(results: Path) -> list[tuple]:
    cells = read_ledger(str(results / "toy")).cells
    assert set(cells["status"]) == {"ok"}, cells[["arm", "seed", "status", "error"]]
    return list(zip(cells["arm"], cells["seed"], cells["metric.accuracy"], strict=True))


def nodes_of(results: Path) -> set[str]:
    """Ray's ids of the nodes on which the committed cells were computed."""
    return set(read_ledger(str(results / "toy")).cells["node"])


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> list[tuple]:
    """The undisturbed numbers (a cell's waiting does not change them)."""
    results = tmp_path_factory.mktemp("reference")
    assert here(toy_study, "--inline", "--results", results).returncode == 0
    return numbers(results)


def wait_for_cells(process: subprocess.Popen, results: Path, at_least: int) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if len(stamps(results)) >= at_least:
            return
        time.sleep(0.05)
    raise AssertionError(f"{len(stamps(results))} cells, exit status {process.poll()}")


def test_five_kills_of_the_driver_at_random_moments_lose_and_repeat_nothing(
    reference, start, tmp_path
):
    chance = random.Random(20)
    waits = ("--set", "wait_s=1.2")
    kept: dict[str, int] = {}
    for _ in range(5):
        process = start("--results", tmp_path, *waits)
        target = min(len(kept) + chance.choice([0, 1, 2]), 11)
        if target:
            wait_for_cells(process, tmp_path, target)
        time.sleep(chance.uniform(0, 2))
        process.kill()
        process.communicate()
        time.sleep(2)  # a commit that was under way ends or dies with its worker
        now = stamps(tmp_path)
        assert {name: now[name] for name in kept} == kept
        kept = now
    last = elsewhere("--results", tmp_path, *waits)
    assert last.returncode == 0, last.stdout + last.stderr
    after = stamps(tmp_path)
    assert {name: after[name] for name in kept} == kept
    assert numbers(tmp_path) == reference


def test_rays_own_state_may_be_torn_and_the_optuna_view_too(reference, start, tmp_path):
    process = start("--results", tmp_path, "--set", "wait_s=1")
    wait_for_cells(process, tmp_path, 3)
    process.kill()
    process.communicate()
    torn = [p for p in (tmp_path / "toy" / "ray").rglob("*") if p.is_file()]
    torn.append(tmp_path / "toy" / "optuna.db")
    for path in torn:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (tmp_path / "toy" / "ray" / "arms").mkdir(parents=True, exist_ok=True)
    (tmp_path / "toy" / "ray" / "arms" / "tuner.pkl").write_bytes(b"")
    kept = stamps(tmp_path)
    answer = elsewhere("--results", tmp_path, "--set", "wait_s=1")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    after = stamps(tmp_path)
    assert {name: after[name] for name in kept} == kept
    assert numbers(tmp_path) == reference


def test_a_cell_that_hangs_and_one_out_of_memory_fail_alone(tmp_path):
    answer = elsewhere(
        "--results", tmp_path, "--seeds", "3", "--set", "ridge=1", "--set", "hang_at_seed=0",
        "--set", "hog_at_seed=1", "--deadline", "25", timeout=600,
    )  # fmt: skip
    assert answer.returncode == 3, answer.stdout + answer.stderr
    cells = read_ledger(str(tmp_path / "toy")).cells
    assert cells["status"].tolist() == ["failed", "failed", "ok"] * 2
    hung, hog = cells[cells["seed"] == 0], cells[cells["seed"] == 1]
    assert set(hung["error_type"]) == {"DeadlineExceeded"}
    assert hung["error"].str.contains("no sign of progress for 25 s").all()
    assert hog["error"].str.contains("Unable to allocate").all()


def test_a_second_ctrl_c_does_no_harm(reference, start, tmp_path):
    process = start("--results", tmp_path, "--set", "wait_s=2")
    wait_for_cells(process, tmp_path, 1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    answer = elsewhere("--results", tmp_path, "--set", "wait_s=2")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert numbers(tmp_path) == reference


def test_a_full_disk_loses_nothing_and_the_study_goes_on_once_there_is_room(
    reference, small_disk, start
):
    results = small_disk / "results"
    waits = ("--set", "wait_s=2")
    process = start("--results", results, *waits, stderr=subprocess.STDOUT)
    wait_for_cells(process, results, 2)
    filler = fill(small_disk)
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 3, out
    assert f"no space left in {results}" in out, out
    assert "Nothing committed is lost. Make room, then: python" in out
    assert "wait_s=2 --retry-failed" in out
    kept = stamps(results)
    assert 2 <= len(kept) < len(reference)
    filler.unlink()
    answer = elsewhere("--results", results, *waits, "--retry-failed")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    after = stamps(results)
    assert {name: after[name] for name in kept} == kept
    assert numbers(results) == reference


def test_a_file_system_that_fails_a_worker_ends_the_run_and_fails_no_cell(
    reference, start, tmp_path
):
    """A real error that also the administrator's account gets: a link that leads to itself."""
    waits = ("--set", "wait_s=0.6")
    process = start("--results", tmp_path, *waits, stderr=subprocess.STDOUT)
    wait_for_cells(process, tmp_path, 2)
    loop = tmp_path / "toy" / "loop"
    loop.symlink_to("lock.json")
    loop.replace(tmp_path / "toy" / "lock.json")
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 3, out
    assert "lock.json in" in out, out
    assert "could not be read (Too many levels of symbolic links). Nothing was changed" in out, out
    assert "Traceback" not in out, out
    there = stamps(tmp_path)
    assert 2 <= len(there) < 12
    assert not (tmp_path / "toy" / "failures").exists()
    (tmp_path / "toy" / "lock.json").unlink()
    assert here(toy_study, "--inline", "--results", tmp_path, *waits).returncode == 0
    assert numbers(tmp_path) == reference
    assert {name: stamps(tmp_path)[name] for name in there} == there


def test_two_controllers_on_one_ledger_the_second_names_the_first(start, tmp_path):
    process = start("--results", tmp_path, "--set", "wait_s=1")
    wait_for_cells(process, tmp_path, 1)
    second = elsewhere("--results", tmp_path, "--set", "wait_s=1")
    assert second.returncode == 2
    assert f"in use by process {process.pid} on" in second.stderr
    process.communicate(timeout=240)
    assert process.returncode == 0


def test_a_study_spreads_over_the_nodes_and_survives_the_loss_of_one(
    cluster, reference, start, tmp_path
):
    process = start("--results", tmp_path, "--set", "wait_s=3", "--address", cluster.address)
    while "waiting up to 20 min for nodes to come" not in process.stdout.readline():
        assert process.poll() is None
    # The driver sits on the head by now: no other node takes it with it.
    victim, other = cluster.add(), cluster.add()
    deadline = time.monotonic() + 150
    while len(stamps(tmp_path)) < 2 or len(nodes_of(tmp_path)) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # What a node's run needs is on that node: the head pays for none of them.
    for node, runs in ((cluster.head, 0), (victim, 1), (other, 1)):
        there = [below(daemon, "ray::TrainController") for daemon in cluster.daemons(node)]
        assert sum(map(len, there)) == runs
    cluster.kill(victim)
    kept = stamps(tmp_path)
    out = process.stdout.read()
    assert process.wait(timeout=60) == 0, out
    after = stamps(tmp_path)
    assert {name: after[name] for name in kept} == kept
    assert numbers(tmp_path) == reference
    assert len(nodes_of(tmp_path)) == 2


def test_a_late_node_joins_the_running_study_unless_it_has_another_torch(
    cluster, reference, start, tmp_path
):
    first = cluster.add()
    other = tmp_path / "other" / "torch-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 0.0.1\n")
    path = os.pathsep.join([str(other.parent), os.environ["PYTHONPATH"]])
    process = start("--results", tmp_path, "--set", "wait_s=6", "--address", cluster.address)
    wait_for_cells(process, tmp_path, 1)
    unlike = cluster.add(env_vars={"PYTHONPATH": path})
    like = cluster.add()
    out, _ = process.communicate(timeout=400)
    assert process.returncode == 0, out
    assert out.count("is not used") == 1, out
    assert f"({unlike.node_id[:6]}) is not used: it has torch 0.0.1, the driver has" in out, out
    assert numbers(tmp_path) == reference
    assert nodes_of(tmp_path) == {first.node_id, like.node_id}
