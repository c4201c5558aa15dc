"""A command that is killed inside a cell of the selection core, and run again: the same bytes.

`test_checkpoints` kills the two cores below the command line; here it is the user's own command.
"""

import subprocess
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
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


def start(results: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        command("--results", results, *arguments, script=SCRIPT),
        cwd=ROOT,
        env=study_environment(),
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


def assert_same_bytes(one: Path, other: Path) -> None:
    for folder in ("cells", "predictions"):
        (a,), (b,) = ((r / "often_saved" / folder).glob("*.parquet") for r in (one, other))
        assert a.name == b.name
        tables = [pq.read_table(path) for path in (a, b)]
        there = OF_THE_RUN & {*tables[0].column_names}
        first, second = (table.drop_columns(sorted(there)) for table in tables)
        assert first.equals(second), folder
    (a,), (b,) = ((r / "often_saved" / "artifacts").glob("*.npz") for r in (one, other))
    arrays = [dict(np.load(path)) for path in (a, b)]
    assert arrays[0].keys() == arrays[1].keys()
    for name, array in arrays[0].items():
        assert array.tobytes() == arrays[1][name].tobytes(), name


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
