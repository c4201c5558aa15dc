"""What a run says of the time that is left: cells and the stages under them."""

import io

import pytest
from rich.console import Console

from cluster.traffic import Key
from sweeps.engine.display import Display


def display(*, todo: int, stages: list[str] | None, told: list | None = None) -> Display:
    return Display(
        Console(file=io.StringIO(), width=200), total=todo, committed=0, todo=todo, stages=stages,
        quiet=False, tell_every_s=0.0,
        tell=lambda *said: told is not None and told.append(said),
    )  # fmt: skip


def test_stages_that_are_left_count_with_their_own_kinds_time():
    stages = ["pool-0", "pool-1", "features-0", "features-1", "selection-0"]
    shown = display(todo=4, stages=stages)
    shown.slots = 2
    shown.record_end(Key("pool-0"), ok=True, seconds=100.0)
    shown.record_end(Key("features-0"), ok=True, seconds=2.0)
    assert shown.compute_left_s is None  # before the first cell nobody knows what one takes
    assert "last stage" not in shown._text().plain  # nor what a selection takes
    shown.record_end(Key("cell"), ok=True, seconds=6.0)
    # 3 cells, a pool, features, and a selection: not seen yet, the mean of 100, 2 and 6 s.
    assert shown.compute_left_s == pytest.approx(3 * 6 + 100 + 2 + 108 / 3)
    assert "about 1:18 left" in shown._text().plain
    shown.record_end(Key("cell 2"), ok=False, seconds=1.0)  # failed: no cell any more
    assert shown.compute_left_s == pytest.approx(2 * 6 + 100 + 2 + 108 / 3)


def test_before_the_first_cell_the_stages_are_told():
    shown = display(todo=4, stages=["pool-0", "pool-1", "pool-2", "selection-0"])
    shown.slots = 2
    shown.record_end(Key("selection-0"), ok=True, seconds=9.0)
    shown.record_end(Key("pool-0"), ok=True, seconds=60.0)
    assert "about 1:00 to the last stage" in shown._text().plain  # two pools on two slots


def test_a_search_takes_the_stages_of_its_finished_cells():
    shown = display(todo=10, stages=None)
    shown.slots = 2
    for number in range(2):
        shown.record_end(Key(f"selection-{number}"), ok=True, seconds=9.0)
        shown.record_end(Key(f"cell {number}"), ok=True, seconds=1.0)
    assert shown.compute_left_s == pytest.approx(8 * 10)  # 8 cells, not 8 × 1 s
    assert "at most 0:40 left" in shown._text().plain  # its rule may stop an arm early


def test_a_line_in_a_log_is_not_broken():
    log = io.StringIO()
    shown = display(todo=1000, stages=[f"pool-{n}" for n in range(1000)])
    shown.console = Console(file=log, width=60)
    shown.record_end(Key("pool-0"), ok=True, seconds=3.0)
    (line,) = log.getvalue().splitlines()
    assert line.startswith("cells 0/1000 done")
    assert line.endswith("to the last stage")


def test_what_is_left_is_told_to_onlookers():
    told = []
    shown = display(todo=2, stages=[], told=told)
    shown.started(Key("a"), "arm")
    shown.record_end(Key("a"), ok=True, seconds=3.0)
    shown.started(Key("b"), "arm")
    assert [left for _, _, left, _ in told] == [None, 3.0]


def test_a_terminal_is_not_drawn_for_every_event_of_a_large_fleet(monkeypatch):
    shown = Display(
        Console(file=io.StringIO(), force_terminal=True), total=500, committed=0, todo=500,
        stages=[], quiet=False, tell_every_s=3.0, tell=lambda *_: None,
    )  # fmt: skip
    drawn, now = [], 100.0
    monkeypatch.setattr("sweeps.engine.display.time.monotonic", lambda: now)
    monkeypatch.setattr(shown._live, "refresh", lambda: drawn.append(now))
    for number in range(250):
        shown.started(Key(f"cell {number}"), "arm")
    assert drawn == [100.0]
    now = 101.0
    shown.record_end(Key("cell 0"), ok=True, seconds=1.0)
    shown.record_end(Key("cell 1"), ok=True, seconds=1.0)
    assert drawn == [100.0, 101.0]
