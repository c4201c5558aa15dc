"""The same cells on a real Ray cluster: identical numbers, no cell twice, no cell lost."""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from heads import ray_head
from studies import TOY, elsewhere, here

from sweeps.ledger.files import Store
from sweeps.ledger.read import read_ledger, read_predictions

pytestmark = pytest.mark.ray


def cells(results: Path):
    return read_ledger(str(results / "toy")).cells


def stamps(results: Path) -> dict[str, int]:
    folder = results / "toy" / "cells"
    return {p.name: p.stat().st_mtime_ns for p in folder.glob("[!.]*.parquet")}


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """The undisturbed study, without Ray."""
    import toy_study

    results = tmp_path_factory.mktemp("reference")
    assert here(toy_study, "--inline", "--results", results).returncode == 0
    return results


def assert_same_numbers(ours: Path, reference: Path) -> None:
    a, b = cells(ours), cells(reference)
    names = ["key", "arm", "seed", "status", "metric.accuracy", "metric.val_best", "curves"]
    assert a[names].to_dict("records") == b[names].to_dict("records")
    for key in a["key"]:
        mine = read_predictions(Store(ours / "toy"), key)
        theirs = read_predictions(Store(reference / "toy"), key)
        assert mine["id"].tolist() == theirs["id"].tolist()
        assert [p.tolist() for p in mine["probabilities"]] == [
            p.tolist() for p in theirs["probabilities"]
        ]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cell_is_the_same_from_any_number_of_workers(workers, reference, tmp_path):
    answer = elsewhere("--workers", workers, "--results", tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "started Ray on this machine" in answer.stdout
    assert f"on {workers} slots" in answer.stdout
    assert "stages: 6 computed, 18 reused" in answer.stdout
    assert_same_numbers(tmp_path, reference)
    assert len(set(cells(tmp_path)["node"])) == 1


def test_killed_at_once_and_run_again_it_computes_only_what_is_missing(reference, start, tmp_path):
    arguments = ("--results", tmp_path)
    process = start(*arguments, "--set", "wait_s=1.5", stdout=subprocess.DEVNULL)
    _wait_for_cells(process, tmp_path, at_least=3)
    process.kill()
    process.wait()
    time.sleep(3)  # what its workers were committing is there by now
    before = stamps(tmp_path)
    assert 3 <= len(before) < 12
    again = elsewhere(*arguments, "--set", "wait_s=1.5")
    assert again.returncode == 0, again.stdout + again.stderr
    after = stamps(tmp_path)
    assert len(after) == 12
    assert {name: after[name] for name in before} == before
    ours, undisturbed = cells(tmp_path), cells(reference)
    for name in ("metric.accuracy", "metric.val_best"):
        assert ours[name].tolist() == undisturbed[name].tolist()


def _wait_for_cells(process: subprocess.Popen, results: Path, *, at_least: int) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        if len(stamps(results)) >= at_least:
            return
        time.sleep(0.1)
    raise AssertionError(f"only {len(stamps(results))} cells, exit status {process.poll()}")


@pytest.fixture
def head():
    """A Ray head on a port of its own, started by somebody else."""
    with ray_head(cpus=2) as running:
        yield running


@pytest.mark.slow
def test_auto_joins_the_running_cluster_and_leaves_it_running(head, reference, tmp_path):
    answer = elsewhere("--results", tmp_path, "--address", "auto", **head.environment)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    port = head.address.rpartition(":")[2]
    assert re.search(rf"joined the Ray cluster at \S+:{port}\b", answer.stdout)
    assert_same_numbers(tmp_path, reference)
    assert "stopped" not in answer.stdout
    script = (
        f"import ray; ray.init(address='{head.address}'); print(ray.cluster_resources()['CPU'])"
    )
    alive = subprocess.run(
        [sys.executable, "-c", script],
        env=head.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert alive.stdout.strip() == "2.0", alive.stderr


def test_an_address_where_nothing_answers_is_refused_with_the_remedy(tmp_path):
    answer = elsewhere("--address", "127.0.0.1:1", "--results", tmp_path)
    assert answer.returncode == 2
    assert "no Ray cluster answers at 127.0.0.1:1" in answer.stderr
    assert "--address local" in answer.stderr
    assert answer.wall_s < 60
    assert TOY.exists()


@pytest.mark.slow
def test_a_stale_address_file_is_named_and_the_study_runs_here(reference, tmp_path):
    with tempfile.TemporaryDirectory(prefix="m-", dir="/tmp", ignore_cleanup_errors=True) as place:
        (Path(place) / "ray").mkdir()
        (Path(place) / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
        answer = elsewhere("--address", "auto", "--results", tmp_path, RAY_TMPDIR=place)
    assert answer.returncode == 0, answer.stderr
    assert "names 127.0.0.1:1, where nothing answers; started Ray on this machine" in answer.stdout
    assert_same_numbers(tmp_path, reference)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cell_that_kills_its_worker_once_is_repeated_and_one_that_always_does_fails_alone(
    tmp_path,
):
    answer = elsewhere(
        "--results", tmp_path, "--workers", "1", "--set", "ridge=1", "--set", "pooling=8",
        "--set", "kill_times=1,99", "--set", "kill_at_seed=1", "--set", f"kill_folder={tmp_path}",
        timeout=480,
    )  # fmt: skip
    assert answer.returncode == 3, answer.stdout + answer.stderr
    assert "interrupted by a lost worker and repeated" in answer.stdout
    frame = cells(tmp_path)
    assert [arm.rpartition("=")[2] for arm in frame["arm"]] == ["1", "1", "99", "99"]
    assert frame["status"].tolist() == ["ok", "ok", "ok", "failed"]
    assert frame["attempts"].tolist() == [1, 2, 1, 3]
    assert frame["error"][3].startswith("the worker died 3 times while computing it")
