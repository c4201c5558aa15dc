"""Compaction that is killed, raced or done twice: nothing is lost, and nothing is there twice."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from far_store import far_store, far_stores
from plain_ledgers import commit, contents, fail, key_of, part_of, plan, row_of

from sweeps.ledger import background, compact, shelves
from sweeps.ledger.background import Compacting
from sweeps.ledger.cells import compact_names, read_rows, single_names
from sweeps.ledger.commit import commit_cell, predictions_table
from sweeps.ledger.compact import Compactor
from sweeps.ledger.files import Store, parquet_bytes
from sweeps.ledger.lock import LateCommit, Lock, must_hold
from sweeps.ledger.predictions import PredictionReader, digest
from sweeps.ledger.quarantine import quarantine_damaged
from sweeps.ledger.read import committed_keys, failed_keys, read_predictions
from sweeps.ledger.schema import CELL_SCHEMA, LedgerError

CELLS, FAILED = 9, 2
CHANGES = ("write", "_delete")
"""What of a Store changes a file."""


@pytest.fixture(params=["near", "far"])
def at(request, monkeypatch) -> Callable[[Path], Store]:
    """How a folder is reached: as one, or as an object store."""
    monkeypatch.setattr(shelves, "FILE_ROWS", 12)
    monkeypatch.setattr(compact, "MERGE", 3)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # the machine stays on
    far_stores(monkeypatch)
    return Store if request.param == "near" else far_store


def filled(folder: Path) -> None:
    """Two small compacted files, and cells and failures of their own."""
    store = Store(folder)
    for first in (0, 2):
        for seed in range(first, first + 2):
            commit(store, seed)
        sum(Compactor(store, minimum=1, batch=4).work())
    for seed in range(4, CELLS):
        commit(store, seed)
    for seed in range(CELLS, CELLS + FAILED):
        fail(store, seed)
    plan(store, CELLS + FAILED)


def _compact_and_die(store: Store, step: int, after: bool) -> None:
    """Killed before or after its change number `step`."""
    left = [step]

    def dying(name: str) -> None:
        real = getattr(Store, name)

        def call(self: Store, *arguments: object) -> object:
            left[0] -= 1
            if left[0] < 0 and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            answer = real(self, *arguments)
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        setattr(Store, name, call)

    for name in CHANGES:
        dying(name)
    sum(Compactor(store, minimum=1, batch=8).work())


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_at_any_step_loses_and_doubles_nothing(at, after, tmp_path):
    filled(tmp_path / "whole")
    before = contents(at(tmp_path / "whole"))
    assert len(before[0]) == CELLS
    context = multiprocessing.get_context("fork")
    killed = True
    step = 0
    while killed:
        folder = tmp_path / str(step)
        filled(folder)
        store = at(folder)
        process = context.Process(target=_compact_and_die, args=(store, step, after))
        process.start()
        process.join()
        killed = process.exitcode == -signal.SIGKILL
        assert killed or process.exitcode == 0
        assert contents(store) == before, step
        sum(Compactor(store, minimum=1, batch=8).work())  # the next run's
        assert contents(store) == before, step
        for kind in ("cells", "predictions", "failures"):
            assert single_names(store, kind) == [], (step, kind)
        assert not quarantine_damaged(store, before[0])
        step += 1
    assert step > 15


@pytest.mark.long
def test_a_reader_sees_every_cell_while_all_is_compacted_and_merged(at, tmp_path, monkeypatch):
    """Keys only ever come; rows and predictions of what has come can be read at any moment."""
    monkeypatch.setattr(background, "LOOK_S", 0.001)
    monkeypatch.setattr(compact, "MINIMUM", 2)
    monkeypatch.setattr(compact, "MINIMUM_FAR", 2)
    monkeypatch.setattr(compact, "BATCH", 12)
    store, count = at(tmp_path), 24
    seen: set[str] = set()
    stop = threading.Event()
    wrong: list[object] = []

    def look() -> None:
        while not stop.is_set():
            keys = committed_keys(store)
            rows, damaged = read_rows(store, "cells", keys)
            if seen - keys or keys - rows.keys() or damaged:
                wrong.append((seen - keys, keys - rows.keys(), damaged))
                return
            seen.update(keys)

    with Lock(Store(tmp_path)) as lock, Compacting(store, lock.token):
        reader = threading.Thread(target=look)
        reader.start()
        for seed in range(count):
            commit(store, seed)
            assert len(read_predictions(store, key_of(seed // 2))) == 1 + (seed // 2) % 4
        stop.set()
        reader.join()
    assert not wrong
    assert seen
    assert committed_keys(store) == {key_of(seed) for seed in range(count)}
    assert compact_names(store)  # or it was no test


def test_a_reader_that_listed_files_which_were_merged_finds_the_merged_one(at, tmp_path):
    store = at(tmp_path)
    for seed in range(6):
        commit(store, seed)
        if seed % 2:
            list(Compactor(store, minimum=1, batch=4)._singles(shelves.Cells(store, 4)))
            list(Compactor(store, minimum=1)._singles(shelves.Predictions(store)))
    reader = PredictionReader(store)
    assert len(reader.places()) == 6
    read, merged = Store.read, []

    def merging(self: Store, name: str, **options: bool) -> bytes:
        if not merged and name.startswith("cells/_compact"):
            merged.append(name)
            sum(Compactor(store, minimum=1, batch=12).work())
            assert len(compact_names(store)) == 1
        return read(self, name, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "read", merging)
        assert committed_keys(store) == {key_of(seed) for seed in range(6)}
    assert merged
    for seed in range(6):
        assert len(reader.read(key_of(seed))) == 1 + seed % 4


def test_whoever_has_lost_the_ledger_removes_nothing(at, tmp_path):
    filled(tmp_path)
    store = at(tmp_path)
    before = contents(store)
    names = {kind: set(single_names(store, kind)) for kind in ("cells", "predictions", "failures")}
    with Lock(Store(tmp_path)) as other:

        def lost() -> None:
            must_hold(store, "mine")

        with pytest.raises(LateCommit, match="late commit refused"):
            sum(Compactor(store, minimum=1, must_hold=lost).work())
        with Compacting(store, other.token):
            pass
    assert contents(store) == before
    for kind, single in names.items():
        assert set(single_names(store, kind)) == single


def test_two_controllers_that_compact_at_once_lose_nothing(at, tmp_path):
    """One was stopped for longer than its lock lasts, and goes on in the middle of it."""
    filled(tmp_path)
    store = at(tmp_path)
    before = contents(store)
    late = Compactor(store, minimum=1, batch=4).work()
    next(late)
    sum(Compactor(store, minimum=1, batch=12).work())
    assert contents(store) == before
    for _ in late:
        assert contents(store) == before
    sum(Compactor(store, minimum=1, batch=12).work())
    assert contents(store) == before


def test_of_a_cell_that_is_committed_again_after_compaction_the_first_stays(at, tmp_path):
    """A worker that was thought dead; and on another device its numbers are a little different."""
    store = at(tmp_path)
    filled(tmp_path)
    first = contents(store)
    sum(Compactor(store, minimum=1).work())
    commit_cell(store, row_of(0, metrics={"accuracy": 0.5}), (part_of(7),))
    rows, _ = read_rows(store, "cells", {key_of(0)})
    stated = rows[key_of(0)]["predictions_sha256"]
    reader = PredictionReader(store, {key_of(0): stated})
    assert digest(reader.checked(key_of(0))) == stated
    sum(Compactor(store, minimum=1).work())
    assert single_names(store, "cells") == []
    assert contents(store) == first
    # The same when it is killed before its row is written.
    other = parquet_bytes(predictions_table((part_of(8),)))
    store.write(f"predictions/{key_of(1)}.parquet", other)
    assert contents(store) == first
    assert not quarantine_damaged(store, first[0])
    assert contents(store) == first


def test_a_small_file_that_is_damaged_is_left_for_quarantine(at, tmp_path):
    store = at(tmp_path)

    def two_more(first: int) -> None:
        for seed in (first, first + 1):
            commit(store, seed)
        sum(Compactor(store, minimum=1).work())

    two_more(0)
    two_more(2)
    hurt, whole = (tmp_path / "cells" / name for name in compact_names(store))
    column = (
        pq.ParquetFile(hurt).metadata.row_group(0).column(CELL_SCHEMA.names.index("config") + 1)
    )
    content = bytearray(hurt.read_bytes())
    content[column.data_page_offset + column.total_compressed_size - 3] ^= 1
    hurt.write_bytes(bytes(content))
    two_more(4)  # three small ones: time for a large one
    assert hurt.exists()
    assert not whole.exists()
    ((name, why),) = quarantine_damaged(store, {key_of(seed) for seed in range(6)})
    assert (name, why[:21]) == (f"cells/{hurt.name}", "block 1 of 1, 2 cells")
    assert len(committed_keys(store)) == 4


def test_what_ends_compaction_while_a_study_runs_is_raised_at_its_end(at, tmp_path, monkeypatch):
    filled(tmp_path)
    store = at(tmp_path)
    monkeypatch.setattr(background, "LOOK_S", 0.001)
    monkeypatch.setattr(compact, "MINIMUM", 1)
    monkeypatch.setattr(compact, "MINIMUM_FAR", 1)
    monkeypatch.setattr(shelves, "write_compact", lambda store, table, folder: "_compact-0.parquet")
    before = contents(store)
    with Lock(Store(tmp_path)) as lock:
        with (
            pytest.raises(LedgerError, match="does not read back as written"),
            Compacting(store, lock.token) as thread,
        ):
            thread.join(60)
        with pytest.raises(KeyError, match="the run's own"), Compacting(store, lock.token):
            raise KeyError("the run's own")
    assert contents(store) == before
    assert len(failed_keys(store)) == FAILED
