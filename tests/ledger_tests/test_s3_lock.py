"""The lock on an object store: who beats, who is dead, and whose late commit is refused."""

import datetime
import json
import multiprocessing
import os
import threading
import time
from types import SimpleNamespace

import pytest

from sweeps.ledger import lock as lock_module
from sweeps.ledger.alive import has_ended, started
from sweeps.ledger.alive import here as here_of_process
from sweeps.ledger.files import Store
from sweeps.ledger.lock import LOCK, Lock, must_hold
from sweeps.ledger.schema import LedgerError


@pytest.mark.long
def test_a_second_controller_is_refused_while_the_first_beats(store, quick):
    with Lock(store) as first:
        holder = json.loads(store.read(LOCK))
        with pytest.raises(LedgerError, match=f"in use by process {holder['pid']} on"):
            Lock(store).__enter__()
        must_hold(store, first.token)
    assert not store.exists(LOCK)


@pytest.mark.slow
@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_off_neither_lets_a_second_one_in_nor_hinders_a_takeover(
    hours, store, quick, monkeypatch
):
    class Off(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) + datetime.timedelta(hours=hours)

    with Lock(store):
        ours = SimpleNamespace(datetime=Off, UTC=datetime.UTC)  # the server's is as it was
        monkeypatch.setattr(lock_module, "datetime", ours)
        with pytest.raises(LedgerError, match="in use by process"):
            Lock(store).__enter__()
    store.write(LOCK, json.dumps({"token": "dead", "pid": 1, "host": "gone", "beat": 9}).encode())
    with Lock(store) as second:
        must_hold(store, second.token)


@pytest.mark.long
def test_a_holder_that_beats_keeps_the_lock_though_the_stores_clock_calls_its_beat_old(
    store, monkeypatch
):
    monkeypatch.setattr(lock_module, "BEAT_S", 1.0)
    monkeypatch.setattr(lock_module, "SETTLE_S", 0.3)
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    times = {lock_module.CLOCK: now, LOCK: now - datetime.timedelta(hours=1)}
    monkeypatch.setattr(Store, "modified", lambda _, name: times[name])
    with Lock(store) as first:
        assert Lock(store)._watched_s() == 1.5
        with pytest.raises(LedgerError, match="in use by process"):
            Lock(store).__enter__()
        must_hold(store, first.token)


def test_of_two_that_come_at_once_one_gets_in(store, quick):
    together, done = threading.Barrier(2), threading.Event()
    entered, refused = [], []

    def come() -> None:
        together.wait()
        try:
            with Lock(store) as held:
                entered.append(held.token)
                done.wait(10)
        except LedgerError as error:
            refused.append(str(error))
            done.set()

    threads = [threading.Thread(target=come) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(entered) == 1
    assert len(refused) == 1
    assert "in use by process" in refused[0]


@pytest.mark.long
def test_a_dead_controller_is_taken_over_and_its_late_commit_refused(store, quick):
    store.write(LOCK, json.dumps({"token": "dead", "pid": 1, "host": "gone", "beat": 9}).encode())
    with Lock(store) as second:
        must_hold(store, second.token)
        with pytest.raises(LedgerError, match="late commit refused"):
            must_hold(store, "dead")
    with pytest.raises(LedgerError, match="nobody holds"):
        must_hold(store, second.token)


def _held(address: str, root: str, ready) -> None:
    os.environ["AWS_ENDPOINT_URL"] = address
    with Lock(Store(root)):
        ready.set()
        time.sleep(600)


@pytest.mark.slow
def test_a_controller_that_was_killed_on_this_machine_is_taken_over_at_once(
    store, server, monkeypatch
):
    monkeypatch.setattr(lock_module, "SETTLE_S", 0.3)
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_held, args=(server, store.root, ready), daemon=True)
    process.start()
    assert ready.wait(60)
    holder = json.loads(store.read(LOCK))
    assert (holder["pid"], holder["where"], len(store.read(LOCK))) == (
        process.pid,
        here_of_process(),
        lock_module.WIDTH,
    )
    process.kill()
    process.join()
    monkeypatch.setattr(lock_module, "STILL_S", 600.0)
    with Lock(store) as second:
        must_hold(store, second.token)


@pytest.mark.parametrize(("where", "since"), [("elsewhere", 5), ("", 0), (here_of_process(), 0)])
def test_what_cannot_be_seen_to_have_ended_is_watched(where, since, store, quick, monkeypatch):
    dead = {"token": "dead", "pid": 2**22, "host": "gone", "where": where, "since": since}
    store.write(LOCK, json.dumps(dead).encode())
    waits: list[float] = []
    monkeypatch.setattr(lock_module.Lock, "_watched_s", lambda _: waits.append(0.05) or 0.05)
    with Lock(store):
        pass
    assert waits == [0.05]


@pytest.mark.parametrize(
    ("still", "watched"),
    [(0.0, 20.0), (7.0, 14.0), (21.0, 3.0), (900.0, 3.0), (-900.0, 20.0), (None, 20.0)],
)
def test_a_beat_that_stands_still_by_the_stores_clock_is_watched_for_less(
    still, watched, store, monkeypatch
):
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    store.write(LOCK, b"{}")
    written = None if still is None else now - datetime.timedelta(seconds=still)
    times = {LOCK: written, lock_module.CLOCK: now}
    monkeypatch.setattr(Store, "modified", lambda _, name: times[name])
    assert Lock(store)._watched_s() == pytest.approx(watched)
    assert not store.exists(lock_module.CLOCK)


def test_a_failed_request_does_not_end_the_beat(store, quick, monkeypatch):
    with Lock(store) as held:
        write, failures = Store.write, iter([OSError("503 slow down")] * 3)

        def flaky(self, name, content):
            for error in failures:
                raise error
            write(self, name, content)

        monkeypatch.setattr(Store, "write", flaky)
        before = json.loads(store.read(LOCK))["beat"]
        deadline = threading.Event()
        for _ in range(50):
            if json.loads(store.read(LOCK))["beat"] > before + 4:
                break
            deadline.wait(0.1)
        assert json.loads(store.read(LOCK))["beat"] > before + 4
        must_hold(store, held.token)


def test_a_process_has_ended_only_where_that_can_be_seen():
    pid = os.getpid()
    since = started(pid)
    assert since > 0
    where = here_of_process()
    assert not has_ended(pid, where, since)
    assert has_ended(pid, where, since + 1)  # another process has its number now
    assert has_ended(2**22 + 1, where, since)
    assert not has_ended(2**22 + 1, "another machine", since)
    assert not has_ended(2**22 + 1, "", since)
    assert not has_ended(2**22 + 1, where, 0)
