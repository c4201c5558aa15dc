"""Clocks that are off and files of one age change nothing: no decision rests on a time of day."""

import datetime
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import toy_study
from studies import here
from typer.testing import CliRunner

from sweeps import status
from sweeps.engine import worker
from sweeps.ledger.read import read_ledger

ARM = ("--inline", "--set", "pooling=8")


def contents(results: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (results / "toy" / "cells").glob("*.parquet")}


def numbers(results: Path) -> list[tuple]:
    cells = read_ledger(str(results / "toy")).cells
    return list(zip(cells["arm"], cells["seed"], cells["metric.accuracy"], strict=True))


@pytest.fixture(scope="module")
def halfway(tmp_path_factory) -> tuple[Path, list[tuple]]:
    """A study with one seed of two, and the numbers it must end with."""
    results, whole = tmp_path_factory.mktemp("half"), tmp_path_factory.mktemp("whole")
    assert here(toy_study, *ARM, "--results", whole).returncode == 0
    assert here(toy_study, *ARM, "--seeds", 1, "--results", results).returncode == 0
    return results, numbers(whole)


@pytest.mark.parametrize("moment", [0.0, 1.0, 4e9])
def test_files_of_one_age_however_old_or_young(moment, halfway, tmp_path):
    half, expected = halfway
    shutil.copytree(half, tmp_path, dirs_exist_ok=True)
    before = contents(tmp_path)
    for path in tmp_path.rglob("*"):
        os.utime(path, (moment, moment))
    answer = here(toy_study, *ARM, "--results", tmp_path)
    assert answer.returncode == 0, answer.stderr
    after = contents(tmp_path)
    assert len(before) == 3
    assert len(after) == 6
    assert before.items() <= after.items()
    assert numbers(tmp_path) == expected
    said = CliRunner().invoke(status.app, [str(tmp_path)], env={"COLUMNS": "200"})
    assert "6/6" in said.stdout


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_controller_whose_clock_is_an_hour_off_goes_on_from_another_ones(
    hours, halfway, tmp_path, monkeypatch
):
    half, expected = halfway
    shutil.copytree(half, tmp_path, dirs_exist_ok=True)
    before = contents(tmp_path)
    true_time = time.time

    class Off(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) + datetime.timedelta(hours=hours)

    with monkeypatch.context() as clock:
        clock.setattr(time, "time", lambda: true_time() + 3600 * hours)
        clock.setattr(worker, "datetime", SimpleNamespace(datetime=Off, UTC=datetime.UTC))
        answer = here(toy_study, *ARM, "--results", tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert before.items() <= contents(tmp_path).items()
    assert numbers(tmp_path) == expected
    started = read_ledger(str(tmp_path / "toy")).cells["started"]
    assert (started.max() - started.min()).total_seconds() > 3000  # it was off indeed
