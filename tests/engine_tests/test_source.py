"""A source that adds cells after it has heard of some: the same loops carry it out, as a grid."""

import sqlite3
from pathlib import Path

import pytest
import studies
import toy_race
import toy_study
from studies import elsewhere
from typer.testing import CliRunner

from sweeps.engine.cli import build_app
from sweeps.engine.plan import make_plan
from sweeps.engine.source import Grid
from sweeps.engine.study import Request
from sweeps.ledger.files import Store
from sweeps.ledger.read import read_ledger, read_manifest

SCRIPT = Path(toy_race.__file__)


def here(*arguments: object):
    app = build_app(toy_race.STUDY, toy_race.reporting, toy_race.__doc__, toy_race.TwoLooks)
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})


def cells_of(results: Path):
    """The cells that the manifest plans, every one of which is there."""
    cells = read_ledger(str(results / "race")).cells
    planned = {cell.key for cell in read_manifest(Store(results / "race")).cells}
    cells = cells[cells["key"].isin(planned)]
    assert set(cells["key"]) == planned
    assert set(cells["status"]) == {"ok"}
    return cells


def assert_two_looks(cells) -> None:
    """Every arm has its first seed, and the one that was worst there has two more."""
    first, more = cells[cells["seed"] == 0], cells[cells["seed"] > 0]
    assert len(first) == first["arm"].nunique() == 6
    assert sorted(more["seed"]) == [1, 2]
    assert set(more["arm"]) == {first.sort_values("metric.accuracy", kind="stable")["arm"].iloc[0]}


def test_in_this_process_it_goes_on_with_what_it_has_heard(tmp_path):
    answer = here("--inline", "--results", tmp_path)
    assert answer.exit_code == 0, answer.output
    assert "8 of 8 cells are committed; wall" in answer.output
    cells = cells_of(tmp_path)
    assert_two_looks(cells)
    first = cells["seed"] == 0
    assert cells[~first]["started"].min() > cells[first]["started"].max()
    again = here("--inline", "--results", tmp_path)
    assert again.exit_code == 0, again.output
    assert "8 of 8 cells are committed; nothing was left to compute" in again.output


@pytest.mark.ray
def test_on_ray_cells_are_added_while_it_runs_and_it_goes_on_where_it_was_stopped(tmp_path):
    assert here("--inline", "--results", tmp_path, "--set", "ridge=1").exit_code == 0
    there = set(cells_of(tmp_path)["key"])
    assert len(there) == 4
    answer = elsewhere("--results", tmp_path, script=SCRIPT)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "8 of 8 cells are committed; wall" in answer.stdout
    assert_two_looks(cells_of(tmp_path))
    with sqlite3.connect(tmp_path / "race" / "optuna.db") as connection:
        query = "select state, count(*) from trials group by state"
        states = dict(connection.execute(query).fetchall())
    assert states == {"COMPLETE": 6}


def order(results, first: str | None = None) -> list[tuple[str, int]]:
    """(arm, seed) of the toy study's cells, as its grid hands them out."""
    request = Request(seeds="2", settings=("ridge=1,10",), first=first)
    plan = make_plan(toy_study.STUDY, request, results=str(results), retry_failed=False)
    grid = Grid(plan, Store(results).child("toy"))
    return [(step.cell.arm.label, step.cell.seed) for step in iter(grid.next, None)]


def test_a_grid_goes_seed_by_seed_and_arms_that_are_named_go_ahead(tmp_path):
    labels = [f"ridge={r},pooling={p}" for r in ("1.0", "10.0") for p in (8, 16)]
    assert order(tmp_path) == [(arm, seed) for seed in (0, 1) for arm in labels]
    last = labels[3]
    others = [(arm, seed) for seed in (0, 1) for arm in labels[:3]]
    assert order(tmp_path, "pooling=16, ridge=10.0") == [(last, 0), (last, 1), *others]
    first = [(arm, seed) for seed in (0, 1) for arm in labels if "pooling=16" in arm]
    assert order(tmp_path, "pooling=16")[:4] == first


def test_an_arm_that_is_not_there_cannot_go_first(tmp_path):
    answer = studies.here(toy_study, "--plan", "--results", tmp_path, "--first", "pooling=7")
    assert answer.returncode == 2
    assert '--first: no arm has the levels "pooling=7" (arms: ridge=0.1,pooling=8;' in " ".join(
        answer.stderr.split()
    )
