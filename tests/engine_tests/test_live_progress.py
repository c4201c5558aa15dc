"""How much of a running cell is done: from its core to display and status, at little cost."""

import asyncio
import io
import subprocess
import time

import pytest
import toy_study
from rich.console import Console
from studies import here

from cluster.broker import Broker
from cluster.queue import WorkItem
from cluster.signs import EverySoOften, Silences
from cluster.traffic import Key, Pulse, Report
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
    shown.see({f"key{n}": Pulse(share=share) for n, share in enumerate(shares)})
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
    assert "  0%            policy_gradient=ppo" in lines[0]  # in a column with those below
    assert " 75% 0:00 left, policy" in lines[9]
    assert every[-1].strip() == "and 2 more"


def test_a_cell_that_has_not_said_anything_yet_is_shown_beside_those_that_have():
    shown = running(10, 80, [0.5] * 9)
    _, *lines = shown._text().plain.splitlines()
    assert len(lines) == 10
    assert "╌╌╌╌    ? " in lines[-1]


def test_a_line_that_is_cut_says_so():
    assert display.shorten("policy_gradient=ppo", 10) == "policy_gr…"
    assert display.shorten("policy", 6) == "policy"


def test_a_silent_cell_comes_first_and_says_for_how_long():
    shown = running(12, 200, [0.5] * 12)
    pulses = {**shown.pulses, "key11": Pulse(share=0.5, silent_s=250.0, worth_a_word_s=240.0)}
    pulses["key3"] = Pulse(share=0.5, silent_s=230.0, worth_a_word_s=240.0)
    shown.see(pulses)
    head, first, *others = shown._text().plain.splitlines()
    assert "12 running (1 silent), 0 failed" in head
    assert "50% no sign of progress for 4:10, policy_gradient=ppo" in first
    assert first.endswith("n=11")
    assert not any("no sign" in line for line in others)
    shown._seen -= 15.0  # nothing has come from the broker since
    assert "no sign of progress for 4:05" in shown._text().plain  # key3's
    shown.record_end(Key("key11"), ok=False, seconds=1.0)
    shown.record_end(Key("key3"), ok=True, seconds=1.0)
    assert "no sign" not in shown._text().plain


def test_a_cell_that_never_said_how_far_it_is_may_be_silent_too():
    shown = running(1, 200, [])
    shown.see({"key0": Pulse(silent_s=70.0, worth_a_word_s=60.0)})
    assert "   ? no sign of progress for 1:10, policy" in shown._text().plain


def test_onlookers_hear_of_signs():
    told = []
    shown = running(2, 80, [0.5, 0.25])
    shown._tell, shown._tell_every_s = lambda *said: told.append(said[-1]), 0.0
    shown.see({"key0": Pulse(share=0.5, silent_s=100.0, worth_a_word_s=60.0)})
    shown.refresh()
    assert told[0]["key0"].share == 0.5
    assert time.time() - told[0]["key0"].heard == pytest.approx(100, abs=2)
    assert told[0]["key0"].patience_s == 60.0
    assert told[0]["key1"].share is None


def test_what_is_done_of_running_cells_is_not_left():
    shown = running(2, 80, [0.5, 0.25])
    shown.started(Key("stage-1"), "stage")
    more = {"stage-1": Pulse(share=0.9), "gone": Pulse(share=0.5)}
    shown.see({**shown.pulses, **more})
    shown.record_end(Key("key9"), ok=True, seconds=100.0)
    assert shown.compute_left_s == pytest.approx((49 - 0.75) * 100)


def test_without_a_word_from_the_cores_the_arms_are_named_as_before():
    assert "n=0" in running(1, 80, [])._text().plain


def test_the_broker_hears_holders_alone_and_tells_points_once():
    async def run():
        broker = Broker(max_attempts=2)
        await broker.add([WorkItem(id=Key("a"), payload={}, arm="x")], more=False)
        item, *_ = await broker.take("w", "1")
        before = await broker.pulses()
        await broker.share_done("w", "1", item.id, 0.2, {"reward": (0, (0.1, 0.2))})
        await broker.share_done("w", "1", item.id, 0.4, {"reward": (2, (0.3,))})
        await broker.share_done("other", "1", item.id, 0.9, {"reward": (3, (9.0,))})
        heard = [await broker.pulses(), await broker.pulses()]
        await broker.take("w", "2")  # it came back, and begins anew
        await broker.share_done("w", "2", item.id, 0.1, {"reward": (0, (0.1,))})
        heard.append(await broker.pulses())
        await broker.finish("w", "2", item.id, Report().to_json())
        await broker.share_done("w", "2", item.id, 0.5, {})
        return before, heard, await broker.pulses()

    before, heard, after = asyncio.run(run())
    assert before["a"]["share"] is None
    assert [pulse["a"]["share"] for pulse in heard] == [0.4, 0.4, 0.1]
    assert [pulse["a"]["points"] for pulse in heard] == [
        {"reward": (0, (0.1, 0.2, 0.3))},
        {},
        {"reward": (0, (0.1,))},
    ]
    assert after == {}


def test_silence_is_worth_a_word_when_its_like_were_never_silent_for_so_long():
    now = 0.0
    silences = Silences(clock=lambda: now)
    first, second, stage = Key("a"), Key("b"), Key("pool-1")
    silences.began(first)
    now = 50.0
    silences.sign(first)
    now = 70.0
    silences.over(first, ok=True)  # its longest silence was 50 s
    for item in (second, stage):
        silences.began(item, deadline_s=None)
    now = 130.0
    assert silences.silent_s(second) == 60.0
    assert (silences.worth_a_word_s(second), silences.worth_a_word_s(stage)) == (200.0, 60.0)
    silences.began(second, deadline_s=240.0)
    assert silences.worth_a_word_s(second) == 120.0  # half its deadline at the latest
    now = 999.0
    silences.over(second, ok=False)  # one that hung says nothing of its like
    assert silences.worth_a_word_s(Key("c")) == 200.0
    assert silences.silent_s(second) == 0.0


def test_a_core_may_report_at_every_step_and_only_news_are_sent():
    told = []
    report = EverySoOften(lambda *said: told.append(said), 60.0)
    curve = []
    for step in range(1000):
        curve.append(float(step))
        report(step / 1000, "a note", {"reward": curve})
    assert told == [(0.0, {"reward": (0, (0.0,))})]
    report._next = 0.0
    report(7.0, "", {"reward": curve, "empty": []})
    ((share, points),) = told[1:]
    assert share == 1.0
    assert points == {"reward": (1, tuple(map(float, range(1, 1000))))}


def test_in_this_process_onlookers_hear_how_far_a_cell_is(tmp_path, monkeypatch):
    heard = []
    monkeypatch.setattr(run, "say_running", lambda *said: heard.append(said[-1]))
    monkeypatch.setattr(display, "TELL_SHARE_EVERY_S", 0.0)
    monkeypatch.setattr(run, "SHARE_EVERY_S", 0.0)
    answer = here(
        toy_study, "--inline", "--seeds", "1", "--set", "ridge=1", "--set", "pooling=16",
        "--set", "wait_s=0.2", "--results", tmp_path,
    )  # fmt: skip
    assert answer.returncode == 0
    shares = [sign.share for said in heard for sign in said.values() if sign.share is not None]
    assert shares == sorted(shares)
    assert shares[-1] == 0.9
    assert all(sign.patience_s == 60.0 for said in heard for sign in said.values())


@pytest.mark.ray
@pytest.mark.slow
def test_on_ray_the_status_says_how_far_each_cell_is(start, tmp_path):
    small = ["--seeds", "1", "--set", "ridge=1,10", "--set", "pooling=16", "--set", "wait_s=20"]
    study = start("--results", tmp_path, "--workers", "2", *small, stdout=subprocess.DEVNULL)
    seen: list[set[float]] = []
    while study.poll() is None:
        time.sleep(1.0)
        said = RUNNING_BOOK.read_or_none(Store(tmp_path / "toy"), "running.json")
        if said is not None and said.shares:
            seen.append(set(said.shares.values()))
    assert len(seen) > 3
    assert max(map(len, seen)) == 2 or len(seen[-1]) == 1
    assert max(max(s) for s in seen) >= 0.7
