"""A budget that is spent starts nothing more: at most a cell per slot beyond it, tables, exit 3."""

import re
from types import SimpleNamespace

import pytest
import toy_study
from studies import elsewhere, here

from imaging_core.fields import ConfigError
from sweeps.engine.budget import HOUR_S, Budget, Budgeted


class Cells:
    """A source of so many cells."""

    plan = "the plan"

    def __init__(self, count):
        self.todo, self.left = list(range(count)), count

    def next(self):
        if not self.todo:
            return None
        return SimpleNamespace(cell=SimpleNamespace(key=str(self.todo.pop(0))), stages=())

    def tell(self, cell, objective):
        self.left -= 1


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def simulate(budget, *, cells, slots, seconds):
    """Slots that take a cell each, which needs `seconds(cell)`: what started, and the wall time."""
    clock = Clock()
    source = Budgeted(Cells(cells), budget, clock)
    source.use(lambda: slots)
    ends, started = {}, []
    while True:
        while (step := source.next()) is not None:
            started.append(clock.now)
            ends[step.cell.key] = clock.now + seconds(int(step.cell.key))
        assert len(ends) <= slots
        if not ends:
            break
        key = min(ends, key=ends.get)
        clock.now = ends.pop(key)
        source.tell(SimpleNamespace(key=key), 1.0)
    return source, started, clock.now - 100.0


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_no_cell_starts_after_the_budget_and_what_is_over_is_a_cell_a_slot(slots):
    longest = 90.0
    source, started, wall = simulate(
        Budget(hours=10 / 60), cells=400, slots=slots, seconds=lambda n: 30.0 + 30 * (n % 3)
    )
    assert source.spent
    assert max(started) - 100 < 600
    assert wall < 600 + longest
    assert source.left == 0
    assert len(started) > 0.8 * slots * 600 / 60  # no slot waits while there is budget
    assert "cells are left, about" in source.line


def test_gpu_hours_are_slots_times_hours():
    one = simulate(Budget(gpu_hours=1.0), cells=10**4, slots=1, seconds=lambda n: 60.0)[2]
    four = simulate(Budget(gpu_hours=1.0), cells=10**4, slots=4, seconds=lambda n: 60.0)[2]
    half = simulate(
        Budget(gpu_hours=1.0, gpus_per_slot=0.5), cells=10**4, slots=4, seconds=lambda n: 60.0
    )[2]
    assert HOUR_S <= one <= HOUR_S + 60
    assert HOUR_S / 4 <= four <= HOUR_S / 4 + 60
    assert HOUR_S / 2 <= half <= HOUR_S / 2 + 60


def test_the_rest_is_told_at_the_price_of_this_run():
    source, started, _ = simulate(
        Budget(hours=0.1), cells=100, slots=2, seconds=lambda n: 60.0 if n % 2 else 30.0
    )
    rest = 100 - len(started)
    assert f"{rest} cells are left" in source.line
    assert "on 2 slots" in source.line


def test_a_budget_that_lasts_changes_nothing():
    source, started, _ = simulate(Budget(hours=9), cells=7, slots=2, seconds=lambda n: 1.0)
    assert (len(started), source.left, source.line, source.spent) == (7, 0, None, False)
    assert not Budget()


def test_budgets_are_above_nothing():
    for wrong in ({"hours": 0.0}, {"gpu_hours": -1.0}, {"hours": float("nan")}):
        with pytest.raises(ConfigError, match=r"must be above 0, got"):
            Budget(**wrong).check()


@pytest.mark.long
def test_a_study_ends_with_what_the_rest_costs_and_goes_on(tmp_path):
    few = ["--inline", "--results", tmp_path, "--set", "pooling=16"]
    slow = [*few, "--set", "wait_s=0.3", "--max-hours", "0.0001"]  # 0.36 s
    answer = here(toy_study, *slow)
    assert answer.returncode == 3
    text = " ".join(answer.stdout.split())
    assert "the budget is spent" in text
    assert "of 6 cells are committed" in text
    first = len(list((tmp_path / "toy/cells").glob("*.parquet")))
    assert 1 <= first < 6
    assert here(toy_study, *few, "--set", "wait_s=0.3").returncode == 0
    assert here(toy_study, "--plan", "--max-gpu-hours", "0").returncode == 2


@pytest.mark.ray
@pytest.mark.slow
def test_on_ray_it_is_the_same(tmp_path):
    """Two slots with cells of a second each: of 12 there is time for some, and no slot hangs."""
    answer = elsewhere(
        "--results", tmp_path, "--seeds", "2", "--workers", "2", "--set", "wait_s=1",
        "--max-hours", str(3 / 3600),
    )  # fmt: skip
    assert answer.returncode == 3, answer.stderr
    text = " ".join(answer.stdout.split())
    assert "the budget is spent" in text
    assert "on 2 slots" in text
    there = len(list((tmp_path / "toy/cells").glob("*.parquet")))
    assert 1 <= there < 12
    assert f"{there} of 12 cells are committed" in text


@pytest.mark.long
def test_a_pilot_computes_a_cell_of_every_arm_keeps_it_and_prices_the_rest(tmp_path):
    few = ["--results", tmp_path, "--set", "ridge=1,10", "--set", "wait_s=0.1", "--seeds", "3"]
    answer = here(toy_study, *few, "--plan", "--pilot", "--inline", "--gpus-per-worker", "0.5")
    assert answer.returncode == 0, answer.stderr
    text = " ".join(answer.stdout.split())
    assert "4 committed, 0 failed, 8 to compute" in text
    found = re.search(
        r"price of the 8 cells that are left: ([\d.]+) slot-hours, ([\d.]+) GPU", text
    )
    assert found, text
    assert "from 4 cells of 4 arms" in text
    again = here(toy_study, *few, "--plan", "--pilot", "--inline")
    assert "4 committed, 0 failed, 8 to compute" in " ".join(again.stdout.split())  # no fifth cell
    assert here(toy_study, *few, "--inline").returncode == 0
    alone = here(toy_study, *few, "--pilot")
    assert alone.returncode == 2
    assert "--pilot goes with --plan" in " ".join(alone.stderr.split())
