"""What a ledger on an object store costs in requests: by compacted file, not by cell."""

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from failing_stores import faulty_server
from far_store import FarFolder, far_store, far_stores
from plain_ledgers import commit, contents, fail, key_of, plan
from s3_server import CREDENTIALS

from sweeps.ledger import compact
from sweeps.ledger.cells import has_failure, single_names
from sweeps.ledger.compact import Compactor
from sweeps.ledger.files import REQUESTS, Store
from sweeps.ledger.progress import progress_of
from sweeps.ledger.quarantine import quarantine_damaged
from sweeps.ledger.read import committed_keys, failed_keys, read_ledger

READ = 2
"""Requests for a file that does not change: its length and its bytes."""
FILES = 3
"""Cells in a compacted file, in these tests."""
SIZES = ((2, 0), (4, 0), (2, 5))
"""Compacted files and single files."""
FAILED = 3


@pytest.fixture(scope="module", autouse=True)
def _no_disk() -> Iterator[None]:
    """What is counted is requests; the machine stays on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture
def far(monkeypatch) -> FarFolder:
    return far_stores(monkeypatch)


def filled(folder: Path, files: int, single: int) -> None:
    """`files` compacted files of FILES cells each, with predictions; `single` cells more; FAILED
    failures."""
    near = Store(folder)
    compactor = Compactor(near, minimum=1, batch=FILES)
    for file in range(files):
        for seed in range(FILES * file, FILES * (file + 1)):
            commit(near, seed)
        assert sum(compactor.work()) == FILES
    for seed in range(FILES * files, FILES * files + single):
        commit(near, seed)
    everything = FILES * files + single + FAILED
    for seed in range(FILES * files + single, everything):
        fail(near, seed)
    plan(near, everything)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[tuple[int, int], Path]:
    made = {size: tmp_path_factory.mktemp("ledger") for size in SIZES}
    for size, folder in made.items():
        filled(folder, *size)
    return made


CALLS: dict[str, Callable[[Store, set[str]], Any]] = {
    "plan": lambda store, _: failed_keys(store, committed_keys(store)),
    "resume": lambda store, keys: quarantine_damaged(store, keys),
    "status": lambda store, _: progress_of(store),
    "report": lambda store, _: read_ledger(store.root),
}


@pytest.mark.parametrize("what", CALLS)
def test_what_is_compacted_costs_by_the_file_and_the_rest_by_the_cell(what, far, folders):
    asked = {}
    for (files, single), folder in folders.items():
        keys = {key_of(seed) for seed in range(FILES * files + single)}
        with far.counting() as cost:
            CALLS[what](far_store(folder), keys)
        asked[files, single] = cost.requests
    # A file of cells, and what it lists of predictions; the status looks twice, for the times too.
    assert asked[4, 0] - asked[2, 0] <= 2 * 3 * READ
    assert asked[2, 5] - asked[2, 0] <= 5 * READ
    assert asked[2, 0] <= 20 + 2 * 3 * READ + FAILED * READ


def test_a_failed_cell_asks_about_itself_alone(far, folders):
    for (files, single), folder in folders.items():
        for seed, there in ((FILES * files + single, True), (0, False)):
            with far.counting() as cost:
                assert has_failure(far_store(folder), key_of(seed)) is there
            assert cost.requests <= 2


def test_compaction_costs_what_is_new_and_many_requests_are_under_way(far, tmp_path, monkeypatch):
    monkeypatch.setattr(compact, "MERGE", 1000)
    monkeypatch.setattr(far, "delay_s", 0.002)
    asked = []
    for files in (2, 4):
        filled(tmp_path / str(files), files, 0)
        store = far_store(tmp_path / str(files))
        compactor = Compactor(store, minimum=1, batch=FILES)
        first = 1000
        for seed in range(first, first + FILES):
            commit(Store(tmp_path / str(files)), seed)
        assert sum(compactor.work()) == FILES  # what is there is looked up once
        for seed in range(first + FILES, first + 2 * FILES):
            commit(Store(tmp_path / str(files)), seed)
        with far.counting() as cost:
            assert sum(compactor.work()) == FILES
        asked.append(cost.requests)
    assert asked[0] == asked[1]
    # Of each cell its row and its predictions: read (2) and removed (3).
    assert asked[0] <= 2 * FILES * (READ + 3) + 30
    assert FILES <= far.most <= REQUESTS


@pytest.mark.long
def test_many_files_are_written_and_removed_side_by_side(far, tmp_path, monkeypatch):
    monkeypatch.setattr(far, "delay_s", 0.02)  # long against starting a thread on a busy machine
    store = far_store(tmp_path)
    files = {f"tables/{n}.md": str(n).encode() for n in range(30)}
    for call, kinds in ((store.write_all, ["PUT"]), (store.delete_all, ["HEAD", "DELETE", "PUT"])):
        far.kinds.clear()
        far.most = 0
        call(files)
        assert far.kinds == dict.fromkeys(kinds, len(files))
        assert 4 <= far.most <= REQUESTS  # one after the other it is 1
        there = {
            f"tables/{name}": store.read(f"tables/{name}") for name in store.names("tables", "")
        }
        assert there == (files if kinds == ["PUT"] else {})


@pytest.mark.long
def test_a_study_that_is_compacted_all_along_is_few_files_at_any_moment(far, tmp_path, monkeypatch):
    monkeypatch.setattr(compact, "MERGE", 4)
    monkeypatch.setattr("sweeps.ledger.shelves.FILE_ROWS", 40)
    near, store = Store(tmp_path), far_store(tmp_path)
    compactor = Compactor(store, minimum=4, batch=16)
    for seed in range(60):
        commit(near, seed)
        if seed % 5 == 4:
            sum(compactor.work())
            for folder in ("cells", "predictions"):
                files = len(list(store.names(folder, ".parquet")))
                assert files <= 5 + 4 + (seed + 1) / 8, (folder, seed)
    plan(near, 60)
    assert len(single_names(store, "cells")) < 5
    keys, failed, _, damaged, status, _ = contents(store)
    assert keys == {key_of(seed) for seed in range(60)}
    assert (failed, damaged, status) == (set(), [], ["ok"] * 60)


@pytest.mark.long
def test_the_folder_that_counts_asks_what_pyarrow_asks_of_s3(far, tmp_path, monkeypatch):
    with faulty_server() as (address, moto):
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": address}.items():
            monkeypatch.setenv(name, value)
        bucket = f"b{uuid.uuid4().hex[:12]}"
        boto3.client("s3", endpoint_url=address).create_bucket(Bucket=bucket)
        ours, theirs = far_store(tmp_path), Store(f"s3://{bucket}/one")
        calls: dict[str, Callable[[Store], Any]] = {
            "write": lambda s: [s.write(f"a/{n}", b"x") for n in range(3)],
            "read": lambda s: s.read("a/0"),
            "read what never changes": lambda s: s.read("a/0", changes=False),
            "read nothing": lambda s: s.read("a/9"),
            "a part": lambda s: s.open("a/0").read(1),
            "exists": lambda s: [s.exists("a/0"), s.exists("a/9")],
            "list": lambda s: list(s.names("a", "")),
            "list nothing": lambda s: list(s.names("b", "")),
            "move": lambda s: s.move("a/0", "b/0"),
            "delete": lambda s: s.delete_all(["a/1", "a/2", "a/9"]),
            "when": lambda s: s.modified("b/0"),
        }
        for what, call in calls.items():
            before = moto.asked
            with contextlib.suppress(FileNotFoundError):
                call(theirs)
            with far.counting() as cost, contextlib.suppress(FileNotFoundError):
                call(ours)
            assert cost.requests == moto.asked - before, what
