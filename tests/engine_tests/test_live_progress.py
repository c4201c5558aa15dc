"""How much of a running cell is done: from its core to display and status, at little cost."""

import asyncio
import io
import subprocess
import time

import pytest
import toy_study
from rich.console import Console
from studies import ROOT, command, here, study_environment

from cluster.broker import Broker
from cluster.fleet import EverySoOften
from cluster.queue import WorkItem
from cluster.traffic import Key, Report
from sweeps.engine import display, run
from sweeps.engine.display import Display
from sweeps.ledger.books import RUNNING_BOOK
from sweeps.ledger.files import Store


def running(count, width, shares):
    """A display with `count` running cells, as text."""
    shown = Display(
        Console(file=io.StringIO(), width=width), total=50, committed=0, todo=50, stages=[],
        quiet=False, tell=lambda *_: None, tell_every_s=9.0,
    )  # fmt: skip
    for n in range(count):
        shown.started(Key(f"key{n}"), f"policy_gradient=ppo,controller=gru_attention,n={n}")
    shown.shares = {f"key{n}": share for n, share in enumerate(shares)}
    return shown


@pytest.mark.parametrize("width", [80, 200])
def test_ten_cells_have_a_line_each_that_fits_the_terminal(width):
    shown = running(12, width, [n / 12 for n in range(12)])
    console = Console(file=io.StringIO(), width=width)
    console.print(shown._text())
    every = console.file.getvalue().splitlines()
    assert all(len(line) <= width for line in every)
    lines = [line for line in every if "╌" in line]
    assert len(lines) == 10
    assert "  0% policy_gradient=ppo" in lines[0]
    assert " 75% 0:00 left, policy" in lines[9]
    assert every[-1].strip() == "and 2 more"


def test_what_is_done_of_running_cells_is_not_left():
    shown = running(2, 80, [0.5, 0.25])
    shown.started(Key("stage-1"), "stage")
    shown.shares = {**shown.shares, "stage-1": 0.9, "gone": 0.5}
    shown.record_end(Key("key9"), ok=True, seconds=100.0)
    assert shown.compute_left_s == pytest.approx((49 - 0.75) * 100)


def test_without_a_word_from_the_cores_the_arms_are_named_as_before():
    assert "n=0" in running(1, 80, [])._text().plain


def test_the_broker_hears_holders_alone_and_forgets_what_is_over():
    async def run():
        broker = Broker(max_attempts=2)
        await broker.add([WorkItem(id=Key("a"), payload={}, arm="x")], more=False)
        item, _ = await broker.take("w", "1")
        await broker.share_done("w", "1", item.id, 0.4)
        await broker.share_done("other", "1", item.id, 0.9)
        heard = await broker.shares()
        await broker.finish("w", "1", item.id, Report().to_json())
        await broker.share_done("w", "1", item.id, 0.5)
        return heard, await broker.shares()

    assert asyncio.run(run()) == ({"a": 0.4}, {})


def test_a_core_may_report_at_every_step_and_pays_next_to_nothing():
    told = []
    report = EverySoOften(told.append, 60.0)
    began = time.perf_counter()
    for step in range(10_000):
        report(step / 10_000, "a note")
    each = (time.perf_counter() - began) / 10_000
    assert told == [0.0]
    assert (
        each < 50e-6
    )  # an APGA step of the demo takes 10 ms: half a percent of it, on a busy core
    again = EverySoOften(told.append, 0.0)
    again(7.0)
    again(-1.0)
    assert told[1:] == [1.0, 0.0]


def test_in_this_process_onlookers_hear_how_far_a_cell_is(tmp_path, monkeypatch):
    heard = []
    monkeypatch.setattr(run, "say_running", lambda *said: heard.append(said[-1]))
    monkeypatch.setattr(display, "TELL_SHARE_EVERY_S", 0.0)
    monkeypatch.setattr(display, "SHARE_EVERY_S", 0.0)
    answer = here(
        toy_study, "--inline", "--seeds", "1", "--set", "ridge=1", "--set", "pooling=16",
        "--set", "wait_s=0.2", "--results", tmp_path,
    )  # fmt: skip
    assert answer.returncode == 0
    shares = [share for said in heard for share in said.values()]
    assert shares == sorted(shares)
    assert shares[-1] == 0.9


@pytest.mark.ray
@pytest.mark.slow
def test_on_ray_the_status_says_how_far_each_cell_is(tmp_path):
    small = ["--seeds", "1", "--set", "ridge=1,10", "--set", "pooling=16", "--set", "wait_s=20"]
    study = subprocess.Popen(
        command("--results", tmp_path, "--workers", "2", *small), cwd=ROOT, text=True,
        env=study_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    seen: list[set[float]] = []
    try:
        while study.poll() is None:
            time.sleep(1.0)
            said = RUNNING_BOOK.read_or_none(Store(tmp_path / "toy"), "running.json")
            if said is not None and said.shares:
                seen.append(set(said.shares.values()))
    finally:
        study.kill()
        study.wait()
    assert len(seen) > 3
    assert max(map(len, seen)) == 2 or len(seen[-1]) == 1
    assert max(max(s) for s in seen) >= 0.7
