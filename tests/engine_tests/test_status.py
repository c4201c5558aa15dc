"""`sweeps/status.py`: what another terminal sees of a study while it runs, and after."""

import io
import json
import os
import subprocess
import sys
import time

import pytest
import toy_study
from plain_ledgers import row_of
from rich.console import Console
from studies import ROOT, here
from typer.testing import CliRunner

from sweeps import status
from sweeps.ledger.commit import commit_cell, commit_failure, write_manifest
from sweeps.ledger.files import Store
from sweeps.ledger.lock import LOCK, Lock
from sweeps.ledger.progress import (
    Sign,
    mean_seconds,
    progress_of,
    say_running,
    spread,
    studies_in,
)
from sweeps.ledger.schema import (
    LedgerError,
    Manifest,
    PlannedCell,
    canonical,
    cell_key,
)

SECONDS = {"x=1": 10.0, "x=2": 40.0}


def planned(arms: dict[str, float], seeds: int) -> tuple[PlannedCell, ...]:
    return tuple(
        PlannedCell(
            key=cell_key("toy", 1, {"arm": arm}, seed, "f"),
            arm=arm,
            levels=dict([arm.split("=")]),
            seed=seed,
        )
        for arm in arms
        for seed in range(seeds)
    )


def row(cell: PlannedCell, wall_s: float, **changes) -> dict:
    own = {"key": cell.key, "study": "s", "arm": cell.arm, "levels": cell.levels, "wall_s": wall_s,
           "config": canonical({"arm": cell.arm})}  # fmt: skip
    return row_of(cell.seed, **(own | changes))


def make(store: Store, *, arms=SECONDS, seeds=4, done=(), failed=()) -> tuple[PlannedCell, ...]:
    """A study of `arms` whose cells at the positions `done` and `failed` are there."""
    cells = planned(arms, seeds)
    write_manifest(
        store,
        Manifest(
            study="s",
            question="Which x?",
            core="toy",
            factors={"x": tuple(arm.removeprefix("x=") for arm in arms)},
            baseline={"x": "1"},
            seeds=tuple(range(seeds)),
            preset="demo",
            data="d",
            protocol="held-out",
            data_fingerprint="f",
            data_card="",
            tables=(),
            metrics=({"name": "accuracy"},),
            cells=cells,
        ),
    )
    for number in done:
        commit_cell(store, row(cells[number], arms[cells[number].arm]))
    for number in failed:
        error = {"status": "failed", "error_type": "ValueError", "error": "too dark\nline two"}
        commit_failure(store, row(cells[number], 1.0, traceback="", **error))
    return cells


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results" / "s")


def ask(*roots: object):
    return CliRunner().invoke(status.app, [str(r) for r in roots], env={"COLUMNS": "250"})


def test_counts_come_from_the_plan_and_the_files(store):
    make(store, done=(0, 1, 4), failed=(5,))
    progress = progress_of(store)
    assert (progress.planned, progress.done, progress.failed, progress.left) == (8, 3, 1, 4)
    assert [(arm.arm, arm.done, arm.failed, arm.left) for arm in progress.arms] == [
        ("x=1", 2, 0, 2),
        ("x=2", 1, 1, 2),
    ]
    assert progress.failures == (("x=2", 1, "ValueError", "too dark"),)
    assert progress.holder is None


def test_the_estimate_weighs_each_arm_with_its_own_time(store):
    make(store, done=(0, 1, 4))
    # 2 cells of 10 s and 3 of 40 s are left; the mean over all cells would say 5 × 20 s.
    assert progress_of(store).cells_left_s == pytest.approx(2 * 10 + 3 * 40)
    assert progress_of(store).eta_s is None


def test_an_arm_without_cells_is_taken_for_average(store):
    make(store, arms={"x=1": 10.0, "x=2": 40.0, "x=3": 99.0}, done=(0, 4))
    assert progress_of(store).cells_left_s == pytest.approx(3 * 10 + 3 * 40 + 4 * 25)


def test_before_the_first_cell_the_time_is_unknown(store):
    make(store)
    assert progress_of(store).cells_left_s is None
    assert "unknown until the first cells are there" in ask(store.root).stdout


def test_a_running_controller_says_what_it_computes(store):
    cells = make(store, done=(0, 1, 4))
    began = time.time() - 5
    with Lock(store) as lock:
        started = {cells[2].key: began, cells[0].key: began, "pool-abc123": began}
        say_running(store, lock.token, 4, started, 300.0)
        progress = progress_of(store)
        shown = ask(store.root).stdout
    assert progress.holder.alive
    names = [item.what for item in progress.holder.running]
    assert names == ["x=1, seed 2", "stage pool"]  # the committed cell runs no more
    assert progress.holder.running[0].seconds == pytest.approx(5, abs=2)
    assert progress.eta_s == pytest.approx(300 / 4)  # what it says, not 140 s of cells alone
    assert "2 running on 4 slots" in shown
    assert "about 1:15 left" in shown
    assert "x=1, seed 2, for 0:0" in shown
    after = progress_of(store)
    assert after.holder is None
    assert "not running" in ask(store.root).stdout


def test_a_running_cell_says_its_share_its_time_left_and_when_it_gives_no_sign(store):
    cells = make(store, done=(0,))
    now = time.time()
    with Lock(store) as lock:
        started = {cells[1].key: now - 60, cells[2].key: now - 300, cells[3].key: now - 300}
        signs = {
            cells[1].key: Sign(share=0.25, heard=now - 1, patience_s=60.0),
            cells[2].key: Sign(share=0.5, heard=now - 250, patience_s=60.0),
            cells[3].key: Sign(share=None, heard=now - 250, patience_s=1000.0),
        }
        say_running(store, lock.token, 4, started, None, signs)
        moving, hung, slow = progress_of(store).holder.running
        shown = ask(store.root).stdout
    assert moving.left_s == pytest.approx(180, abs=3)
    assert (moving.silent_s, slow.silent_s, slow.left_s) == (None, None, None)
    assert hung.silent_s == pytest.approx(250, abs=3)
    assert "x=1, seed 1, for 1:00 (25% done, about 3:00 left)" in shown
    assert "x=1, seed 2, for 5:00 (50% done, about 5:00 left), no sign of progress for 4:1" in shown
    assert shown.count("no sign of progress") == 1


def test_what_a_version_before_said_of_running_cells_is_read(store):
    cells = make(store)
    with Lock(store) as lock:
        said = {"token": lock.token, "slots": 1, "started": {cells[0].key: 1.0}, "left_s": None}
        store.write("running.json", json.dumps({**said, "shares": {cells[0].key: 0.5}}).encode())
        (item,) = progress_of(store).holder.running
    assert (item.share, item.silent_s) == (0.5, None)


def test_watch_draws_while_the_study_runs_and_ends_with_it(store, monkeypatch):
    cells = make(store)
    lock, looks = Lock(store), []
    lock.__enter__()

    def a_cell_later(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 4:
            lock.__exit__(None, None, None)
        elif len(looks) != 2:  # the second look sees nothing new
            commit_cell(store, row(cells[len(looks)], 10.0))

    monkeypatch.setattr(status.time, "sleep", a_cell_later)
    answer = CliRunner().invoke(
        status.app, [store.root, "--watch", "--every", "7"], env={"COLUMNS": "250"}
    )
    assert answer.exit_code == 0, answer.output
    lines = answer.stdout.partition("study  ")[0].splitlines()
    first = f"s: 0/8 done, 0 failed; unknown until the first cells are there; process {os.getpid()}"
    assert lines[0].startswith(first)
    assert [line.partition(" done")[0] for line in lines] == ["s: 0/8", "s: 1/8", "s: 2/8"]
    assert len(looks) == 4
    assert all(seconds >= 7 for seconds in looks)
    assert "not running" in answer.stdout.partition("study  ")[2]


def test_watch_on_a_terminal_shows_what_runs_before_the_arms(store, monkeypatch):
    cells = make(store, arms={f"x={n}": 1.0 for n in range(60)})
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, height=20)
    lock = Lock(store)
    token = lock.__enter__().token
    sign = Sign(share=0.25, heard=time.time(), patience_s=60.0)
    say_running(store, token, 1, {cells[5].key: time.time()}, None, {cells[5].key: sign})
    monkeypatch.setattr(status.time, "sleep", lambda _: lock.__exit__(None, None, None))
    assert not status.watch([store.root], console, 1.0).alive
    assert f"{cells[5].arm}, seed 1, for 0:00 (25% done" in screen.getvalue()


def test_watch_of_nothing_that_runs_is_one_look(store, monkeypatch):
    make(store, done=(0,))
    monkeypatch.setattr(status.time, "sleep", lambda _: pytest.fail("it waited"))
    answer = ask(store.root, "--watch")
    assert (answer.exit_code, "1/8" in answer.stdout) == (0, True)
    assert ask(store.root + "x", "--watch").exit_code == 2


def test_what_an_earlier_controller_said_is_not_what_runs(store):
    cells = make(store, done=(0,))
    say_running(store, "an-earlier-token", 4, {cells[2].key: time.time()}, 300.0)
    with Lock(store):
        holder = progress_of(store).holder
    assert holder.alive
    assert holder.running == ()
    assert holder.slots == 0


def test_a_controller_that_died_is_not_running(store):
    cells = make(store, done=(0,))
    with Lock(store) as lock:
        say_running(store, lock.token, 4, {cells[2].key: time.time()}, 300.0)
        left_behind = store.read(LOCK)
    store.write(LOCK, left_behind)
    progress = progress_of(store)
    assert not progress.holder.alive
    assert progress.holder.running == ()
    assert progress.eta_s is None
    process = json.loads(left_behind)["pid"]
    shown = ask(store.root).stdout
    assert f"not running (process {process} on" in shown
    assert "stopped without a word)" in shown


def test_looking_never_keeps_a_controller_out(store):
    make(store)
    store.write(LOCK, b'{"token": "x", "pid": 1, "host": "h", "beat": 0}')
    for _ in range(20):
        progress_of(store)
        with Lock(store):
            pass
        store.write(LOCK, b'{"token": "x", "pid": 1, "host": "h", "beat": 0}')


def test_all_studies_of_a_folder_one_line_each(tmp_path):
    for name in ("a", "b"):
        make(Store(tmp_path / name), done=(0,), failed=(1,))
    (tmp_path / "stages").mkdir()
    answer = ask(tmp_path)
    assert answer.exit_code == 0
    lines = [line.split() for line in answer.stdout.splitlines()]
    assert [line[1:4] for line in lines if "1/8" in line] == [["1/8", "1", "6"]] * 2
    assert "too dark" not in answer.stdout  # details are of a single study


def test_failures_are_named_with_their_reason(store):
    make(store, failed=range(8))
    shown = ask(store.root.removesuffix("/s")).stdout
    assert shown.count("ValueError: too dark") == 8
    assert "--retry-failed" in shown


def test_a_folder_without_a_study_is_refused(tmp_path):
    answer = ask(tmp_path)
    assert answer.exit_code == 2
    assert f"no study in {tmp_path}; name a folder of results" in answer.stderr
    with pytest.raises(LedgerError, match="no study in"):
        studies_in(str(tmp_path / "absent"))
    assert "cannot be read (Unrecognized filesystem type" in ask("s4://bucket/x").stderr


def test_one_damaged_study_does_not_hide_the_others(tmp_path):
    make(Store(tmp_path / "good"), done=(0,))
    Store(tmp_path / "bad").write("study.json", b"{")
    answer = ask(tmp_path)
    assert answer.exit_code == 2
    assert "1/8" in answer.stdout
    assert f"study.json in {tmp_path}/bad is damaged" in answer.stderr


def test_a_thousand_cells_are_read_in_part(tmp_path):
    store = Store(tmp_path / "s")
    cells = make(store, seeds=500)
    content = {}
    for cell in cells[:900]:  # one row per arm, written by hand: committing 900 takes too long here
        if cell.arm not in content:
            commit_cell(store, row(cell, SECONDS[cell.arm]))
            content[cell.arm] = cell.key
        else:
            store_copy = tmp_path / "s" / "cells" / f"{cell.key}.parquet"
            store_copy.touch()
    assert progress_of(store).done == 900
    began = time.monotonic()
    progress_of(store)
    assert time.monotonic() - began < 1.0


def test_spread_keeps_the_ends_apart():
    assert spread("abcdefghij", 5) == list("acegi")
    assert spread("abc", 5) == list("abc")
    assert mean_seconds([("a", 1.0), ("a", 3.0), ("b", 8.0)]) == ({"a": 2.0, "b": 8.0}, 4.0)
    assert mean_seconds([]) == ({}, None)


def test_it_needs_neither_ray_nor_torch():
    code = "import sweeps.status, sys; print({'ray', 'torch', 'optuna'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert answer.stdout.strip() == "set()", answer.stderr


@pytest.mark.slow
def test_a_real_study_is_seen_running_killed_and_done(start, tmp_path):
    results = tmp_path / "results"
    arguments = ("--inline", "--seeds", "2", "--set", "pooling=8", "--set", "ridge=1")
    arguments += ("--set", "wait_s=2", "--results", results)
    study = start(*arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seen = ""
    deadline = time.monotonic() + 60
    while "running now" not in seen or "seed " not in seen.partition("running now")[2]:
        assert time.monotonic() < deadline, seen
        assert study.poll() is None, seen
        time.sleep(0.2)
        if results.exists() and (results / "toy" / "study.json").exists():
            seen = ask(results).stdout
    assert f"process {study.pid} on" in seen
    assert "1 running on 1 slots" in seen
    study.kill()
    study.wait()
    assert f"not running (process {study.pid} on" in ask(results).stdout
    assert here(toy_study, *arguments).returncode == 0
    after = ask(results).stdout
    assert "2/2" in after
    assert "nothing left" in after
    assert "process" not in after
