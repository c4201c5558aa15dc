"""The selection core, killed inside its cells and stages, and gone on with: the same bytes.

`test_checkpoints` kills the two cores below the command line; here it is the user's own command,
which is run again, and a worker of it on Ray, which Ray Train starts again.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from often_saved.task import GONE_ON_LOG
from processes import below
from studies import ROOT, SUPPORT, command, elsewhere, study_environment

SCRIPT = SUPPORT / "often_saved_study.py"
OF_THE_RUN = {"started", "wall_s", "cpu_s", "peak_host_bytes", "git_commit", "git_dirty"}
"""Columns of a row that say how it was computed; all others must be the same."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    results = tmp_path_factory.mktemp("undisturbed")
    answer = elsewhere("--inline", "--results", results, script=SCRIPT, timeout=900)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return results


def start(results: Path, *arguments: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        command("--results", results, *arguments, script=SCRIPT),
        cwd=ROOT,
        env=study_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def saves(results: Path) -> dict[Path, int]:
    """Every checkpoint that lies there, and when it was written."""
    found = {}
    for path in results.glob("*/checkpoints/*.safetensors"):
        try:
            found[path] = path.stat().st_mtime_ns
        except FileNotFoundError:  # committed meanwhile
            continue
    return found


def wait_for_a_save(process: subprocess.Popen, results: Path, before: dict[Path, int]) -> bool:
    """Whether one came; False: the command has ended."""
    while process.poll() is None:
        now = saves(results)
        if any(before.get(path) != when for path, when in now.items()):
            return True
        time.sleep(0.02)
    return False


def files(results: Path, pattern: str) -> dict[str, Path]:
    return {path.name: path for path in (results / "often_saved").glob(pattern)}


def assert_same_bytes(one: Path, other: Path, *, but: frozenset[str] = frozenset()) -> None:
    """Every cell, its predictions and its arrays; `but`: columns that may differ as well."""
    for pattern in ("cells/*.parquet", "predictions/*.parquet"):
        a, b = files(one, pattern), files(other, pattern)
        assert len(a) == 2
        assert a.keys() == b.keys()
        for name in a:
            tables = [pq.read_table(path) for path in (a[name], b[name])]
            there = (OF_THE_RUN | but) & {*tables[0].column_names}
            first, second = (table.drop_columns(sorted(there)) for table in tables)
            assert first.equals(second), name
    a, b = files(one, "artifacts/*.npz"), files(other, "artifacts/*.npz")
    assert a
    assert a.keys() == b.keys()
    for file in a:
        arrays = [dict(np.load(path)) for path in (a[file], b[file])]
        assert arrays[0].keys() == arrays[1].keys()
        for name, array in arrays[0].items():
            assert array.tobytes() == arrays[1][name].tobytes(), (file, name)


def test_a_command_killed_at_random_moments_and_run_again(undisturbed, tmp_path):
    rng, kills = np.random.default_rng(1), 0
    for _ in range(2):
        before = saves(tmp_path)
        run = start(tmp_path, "--inline")
        wait_for_a_save(run, tmp_path, before)
        time.sleep(rng.random() * 0.6)
        kills += run.poll() is None
        run.kill()
        run.communicate()
    assert kills >= 1
    last = elsewhere("--inline", "--results", tmp_path, script=SCRIPT, timeout=900)
    assert last.returncode == 0, last.stdout + last.stderr
    assert not saves(tmp_path)
    assert_same_bytes(undisturbed, tmp_path)


def key_of(results: Path, arm: str) -> str:
    """The key of the one cell of the arm whose name holds `arm`."""
    cells = json.loads((results / "often_saved/study.json").read_text())["cells"]
    (key,) = (cell["key"] for cell in cells if arm in cell["arm"])
    return key


def kill_the_worker_once_saved(run: subprocess.Popen, results: Path, patterns: list[str]) -> str:
    """SIGKILL to the study's only worker on Ray while a checkpoint lies there; its pattern."""
    while (there := next((p for p in patterns if list(results.glob(p))), None)) is None:
        assert run.poll() is None, run.stdout.read()
        time.sleep(0.02)
    (worker,) = below(run.pid, "RayTrainWorker")
    os.kill(worker, signal.SIGKILL)
    # Else the stage or cell had come to its end meanwhile, and nothing would be gone on with.
    assert list(results.glob(there)), f"{there} was gone before its worker was"
    return there


@pytest.mark.ray
def test_a_worker_on_ray_killed_in_a_stage_and_in_a_cell(undisturbed, tmp_path):
    log, results = tmp_path / "gone_on", tmp_path / "results"
    log.touch()
    more = {GONE_ON_LOG: str(log)}
    run = start(results, "--address", "local", "--workers", "1", **more)
    searched = key_of(undisturbed, "random_subset_search")
    left = [
        "stages/checkpoints/selection-*.safetensors",
        f"often_saved/checkpoints/{searched}.safetensors",
    ]
    left.remove(kill_the_worker_once_saved(run, results, left))
    kill_the_worker_once_saved(run, results, left)
    in_the_first = log.read_text()
    out, _ = run.communicate(timeout=900)
    assert run.returncode == 0, out
    assert in_the_first  # both went on where they had been saved
    assert len(log.read_text()) > len(in_the_first)
    assert not saves(results)
    attempts = {
        path.stem: pq.read_table(path, columns=["attempts"])["attempts"][0].as_py()
        for path in files(results, "cells/*.parquet").values()
    }
    assert attempts.pop(searched) == 2
    assert list(attempts.values()) == [1]
    assert_same_bytes(undisturbed, results, but=frozenset({"attempts", "node"}))
