"""Files that are replaced while they are read, on moto: a reader gets one version, whole.

An object store's client asks for the length first and for so many bytes then. One that grew in
between used to come cut, one that shrank with zeros at its end, and neither is an error by itself.
"""

import json
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import boto3
import numpy as np
import pytest
import toy_study
from failing_stores import faulty_server
from s3_server import CREDENTIALS

from sweeps.engine import stages
from sweeps.engine.plan import make_plan, manifest_of
from sweeps.engine.recipe import Recipes
from sweeps.engine.stages import StageStore
from sweeps.engine.study import Request
from sweeps.engine.worker import execute
from sweeps.ledger import files
from sweeps.ledger import lock as lock_module
from sweeps.ledger.commit import write_manifest
from sweeps.ledger.files import Store, StoreError
from sweeps.ledger.lock import LOCK, LateCommit, Lock, holder_of, must_hold
from sweeps.ledger.progress import progress_of, say_running
from sweeps.ledger.read import committed_keys, read_ledger
from sweeps.ledger.schema import LedgerError

CELL_S, BEAT_S = 0.4, 0.2
"""A cell's seconds and the beat's; by hand the full size is 2 and 1."""
AT_ONCE = 24
"""Cells that are computed at the same time."""


@pytest.fixture(scope="module")
def server():
    with pytest.MonkeyPatch.context() as patch, faulty_server() as (address, requests):
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": address}.items():
            patch.setenv(name, value)
        yield address, requests


@pytest.fixture
def store(server) -> Store:
    name = f"b{uuid.uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=server[0]).create_bucket(Bucket=name)
    return Store(f"s3://{name}/toy")


class Replaced:
    """A store whose file `name` is replaced between the request for its length and its bytes."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.versions = store, iter([])
        self.opened = 0
        real = store.fs

        class FileSystem:
            def __getattr__(_, name):
                return getattr(real, name)

            def open_input_file(_, path):
                stream = real.open_input_file(path)  # asks for the length
                self.opened += 1
                for version in self.versions:
                    with real.open_output_stream(path) as target:
                        target.write(version)
                    break
                return stream

        monkeypatch.setattr(store, "fs", FileSystem())


@pytest.mark.parametrize(
    ("before", "after"), [(b'{"beat": 9}', b'{"beat": 10}'), (b'{"beat": 10}', b'{"beat": 9}')]
)
def test_a_file_that_grew_or_shrank_in_between_is_read_again(before, after, store, monkeypatch):
    store.write("x.json", before)
    replaced = Replaced(store, monkeypatch)
    replaced.versions = iter([after])
    assert store.read("x.json") == after
    assert replaced.opened == 4  # length and bytes, and the length once more; all of it twice


def test_a_file_that_never_keeps_still_is_named(store, monkeypatch):
    store.write("x.json", b"0")
    replaced = Replaced(store, monkeypatch)
    replaced.versions = (b"0" * n for n in range(2, 1000))
    monkeypatch.setattr(files, "TORN_READS", 3)
    with pytest.raises(StoreError, match=r"x.json in s3://.* \(it changes each time"):
        store.read("x.json")


def test_the_lock_keeps_its_length_while_its_beat_counts_up(store):
    lock = Lock(store)
    lengths = set()
    for beat in (0, 9, 10, 100, 10_000):
        lock._beat = beat
        lock._say()
        assert holder_of(store)["beat"] == beat
        lengths.add(len(store.read(LOCK)))
    assert lengths == {lock_module.WIDTH}


def test_a_lock_that_makes_no_sense_refuses_no_commit_and_is_not_taken_at_once(store, monkeypatch):
    monkeypatch.setattr(lock_module, "STILL_S", 0.3)
    monkeypatch.setattr(lock_module, "SETTLE_S", 0.1)
    store.write(LOCK, b'{"token": "a", "pi')
    must_hold(store, "mine")  # nobody else is named
    stop = threading.Event()

    def beat() -> None:
        count = 0
        while not stop.wait(0.02):
            count += 1
            store.write(LOCK, b'{"token": "a", "pi' + b"x" * count)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(LedgerError, match="in use by process"):
            Lock(store).__enter__()
    finally:
        stop.set()
        thread.join()
    with Lock(store) as second:  # still now: a dead holder's
        must_hold(store, second.token)
        with pytest.raises(LateCommit, match="late commit refused"):
            must_hold(store, "mine")


def test_a_lock_that_was_removed_is_written_again(store, monkeypatch):
    monkeypatch.setattr(lock_module, "BEAT_S", 0.05)
    monkeypatch.setattr(lock_module, "SETTLE_S", 0.1)
    with Lock(store) as held:
        store.delete(LOCK)
        deadline = time.monotonic() + 30
        while not store.exists(LOCK) and time.monotonic() < deadline:
            time.sleep(0.05)
        must_hold(store, held.token)


@pytest.mark.slow
def test_whatever_writers_of_changing_length_do_readers_see_one_version(store):
    """The lock, what runs and the manifest: the files of a ledger that are replaced."""
    stop = threading.Event()

    def write(name: str) -> None:
        count = 0
        while not stop.wait(0.01):
            count += 1
            text = {"count": count, "rest": ["x" * (count % 7)] * (1 + count % 40)}
            store.write(name, json.dumps(text).encode())

    names = ("lock.json", "running.json", "study.json")
    for name in names:
        store.write(name, b'{"count": 0}')
    seen = dict.fromkeys(names, 0)
    with ThreadPoolExecutor(len(names)) as pool:
        for name in names:
            pool.submit(write, name)
        try:
            for _ in range(12):
                for name in names:
                    count = json.loads(store.read(name))["count"]
                    assert count >= seen[name]
                    seen[name] = count
        finally:
            stop.set()
    assert min(seen.values()) > 0


@pytest.mark.slow
def test_300_cells_on_s3_each_is_there_once_and_none_has_failed(server, store, monkeypatch):
    """The engine's own cells, many at a time, under a beat that counts past 99 meanwhile, a
    controller that says what runs, and somebody who looks on.
    """
    monkeypatch.setattr(lock_module, "BEAT_S", BEAT_S)
    monkeypatch.setattr(lock_module, "SETTLE_S", 2 * BEAT_S)
    results = store.root.removesuffix("/toy")
    settings = ("pooling=8", f"wait_s={CELL_S}")
    request = Request(preset="demo", data=None, protocol="held-out", seeds="100", settings=settings)
    stop, looks = threading.Event(), []

    def tell(token: str) -> None:
        count = 0
        while not stop.wait(BEAT_S):
            count += 1
            running = {f"cell {n}": time.time() for n in range(count % 30)}
            say_running(store, token, AT_ONCE, running, float(count))

    def look() -> None:
        while not stop.wait(4):  # each look reads a hundred cells
            looks.append(progress_of(store))

    with Lock(store) as lock, ThreadPoolExecutor(AT_ONCE + 2) as pool:
        lock._beat = 90
        plan = make_plan(toy_study.STUDY, request, results=results, retry_failed=False)
        write_manifest(store, manifest_of(plan, {}))
        recipes = Recipes(plan.study, request, results=results, token=lock.token)
        others = [pool.submit(tell, lock.token), pool.submit(look)]
        try:
            work = [
                pool.submit(
                    execute, recipes.cell(cell).to_json(), device="cpu", node="n", attempt=1
                )
                for cell in plan.todo
            ]
            reports = [future.result() for future in work]
            while lock._beat < 102:  # it has become longer meanwhile
                must_hold(store, lock.token)
                time.sleep(BEAT_S)
        finally:
            stop.set()
        for other in others:
            other.result()
        assert len(reports) == len(plan.keys) == 300
        _, requests = server
        of_cells = [n for name, n in requests.written.items() if f"{store.base}/cells/" in name]
        assert of_cells == [1] * 300
        assert not list(store.names("failures", ""))
        assert all(look.holder is not None and look.failed == 0 for look in looks)
        assert max(look.done for look in looks) > 0
        assert committed_keys(store) == set(plan.keys)
    assert read_ledger(store.root).cells["status"].tolist() == ["ok"] * 300


def test_a_stage_that_two_machines_store_at_once_is_not_set_aside(store, monkeypatch):
    """The other's arrays are there before its checksum is: a moment later both are."""
    ours, theirs = StageStore(store), StageStore(store.child("theirs"))
    ours.save("s", {"a": np.arange(3)}, 1.0)
    theirs.save("s", {"a": np.arange(4)}, 1.0)
    store.write("s.safetensors", theirs.store.read("s.safetensors"))
    late = theirs.store.read("s.json")
    monkeypatch.setattr(stages.time, "sleep", lambda _: store.write("s.json", late))
    assert StageStore(store).load("s")["a"].tolist() == [0, 1, 2, 3]
    assert not list(store.names("quarantine", ""))
