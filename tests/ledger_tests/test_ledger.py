"""The ledger: whole or absent, first commit wins, damage is named, one controller at a time."""

import dataclasses
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from plain_ledgers import key_of, manifest_of, plan, row_of

from imaging_core.task import Predictions
from sweeps.ledger.commit import commit_cell, commit_failure, write_manifest
from sweeps.ledger.files import Store
from sweeps.ledger.lock import Lock, must_hold
from sweeps.ledger.read import (
    committed_keys,
    failed_keys,
    quarantine_damaged,
    read_artifacts,
    read_ledger,
    read_predictions,
)
from sweeps.ledger.schema import SCHEMA_VERSION, LedgerError, PlannedCell, cell_key

A, B = key_of(0), key_of(1)


def row(seed: int = 0, *, accuracy: float = 0.5, **changes) -> dict:
    own = {"metrics": {"accuracy": accuracy}, "curves": {"reward": [0.1, 0.2]}}
    return row_of(seed, **(own | changes))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "s")


def predictions() -> Predictions:
    return Predictions(
        split="test",
        ids=np.array(["i0", "i1"]),
        groups=np.array(["p0", "p1"]),
        labels=np.array([0, 1]),
        probabilities=np.array([[0.25, 0.75], [0.5, 0.5]], dtype=np.float32),
    )


def test_a_committed_cell_reads_back_whole(store):
    commit_cell(store, row(), (predictions(),), {"keep": np.array([0.1, 0.9])})
    plan(store, 2)
    ledger = read_ledger(store.root)
    assert ledger.cells["status"].tolist() == ["ok", "missing"]
    assert ledger.cells["metric.accuracy"].tolist()[0] == 0.5
    assert ledger.cells["curves"][0] == {"reward": [0.1, 0.2]}
    frame = read_predictions(store, A)
    assert frame["probabilities"][0].tolist() == [0.25, 0.75]
    assert frame["group"].tolist() == ["p0", "p1"]
    assert read_artifacts(store, A)["keep"].tolist() == [0.1, 0.9]
    assert read_artifacts(store, B) == {}


def test_the_plan_is_json_a_cell_a_line(store):
    cells = tuple(
        PlannedCell(key=f"k{arm}{seed}", arm=arm, levels={"x": arm}, seed=seed)
        for arm in ('ä "b"', "c", 'ä "b"')
        for seed in (0, 1)
    )
    write_manifest(store, dataclasses.replace(manifest_of(1), cells=cells))
    content = store.read("study.json").decode()
    assert [dict(c) for c in json.loads(content)["cells"]] == [vars(cell) for cell in cells]
    for cell in cells:
        assert f"\n  {json.dumps(vars(cell), ensure_ascii=False)}" in content


def test_the_first_commit_of_a_cell_wins(store):
    commit_cell(store, row(accuracy=0.5))
    commit_cell(store, row(accuracy=0.9))
    plan(store, 1)
    assert read_ledger(store.root).cells["metric.accuracy"].tolist() == [0.5]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_metric_that_is_no_number_is_refused_and_nothing_is_written(store, bad):
    with pytest.raises(LedgerError, match="metrics must be finite, got accuracy="):
        commit_cell(store, row(accuracy=bad), (predictions(),))
    assert committed_keys(store) == set()
    assert list(store.names("predictions", "")) == []


def test_a_column_too_many_or_too_few_is_refused(store):
    with pytest.raises(LedgerError, match="the schema has no column colour"):
        commit_cell(store, row(colour="red"))
    short = row()
    del short["git_commit"]
    with pytest.raises(LedgerError, match="column git_commit must not be empty"):
        commit_cell(store, short)


def test_a_failure_is_a_row_until_the_cell_succeeds(store):
    failed = row(status="failed", error_type="ValueError", error="boom", traceback="t")
    commit_failure(store, failed)
    plan(store, 1)
    cells = read_ledger(store.root).cells
    assert cells["status"].tolist() == ["failed"]
    assert cells["error"].tolist() == ["boom"]
    assert np.isnan(cells["metric.accuracy"][0])  # never averaged
    assert failed_keys(store) == {A}
    commit_cell(store, row())
    assert failed_keys(store) == set()
    assert read_ledger(store.root).cells["status"].tolist() == ["ok"]


def test_the_key_covers_everything_the_numbers_depend_on():
    base = ("core", 1, {"x": 1, "y": "a"}, 0, "data")
    same = ("core", 1, {"y": "a", "x": 1}, 0, "data")
    assert cell_key(*base) == cell_key(*same)
    others = [
        ("other", *base[1:]),
        ("core", 2, *base[2:]),
        ("core", 1, {"x": 2, "y": "a"}, 0, "data"),
        ("core", 1, base[2], 1, "data"),
        ("core", 1, base[2], 0, "other"),
    ]
    assert len({cell_key(*o) for o in others} | {cell_key(*base)}) == len(others) + 1


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "foreign":
        import pyarrow as pa

        pq.write_table(pa.table({"x": [1]}), path)
    elif how == "another cell":
        path.write_bytes((path.parent / f"{B}.parquet").read_bytes())


@pytest.mark.parametrize("how", ["truncated", "empty", "foreign", "another cell"])
def test_a_damaged_file_is_named_and_quarantined_never_dropped(store, tmp_path, how):
    commit_cell(store, row())
    commit_cell(store, row(1))
    plan(store, 2)
    damage(tmp_path / "s" / "cells" / f"{A}.parquet", how)
    ledger = read_ledger(store.root)
    assert [name for name, _ in ledger.damaged] == [f"cells/{A}.parquet"]
    assert ledger.cells["status"].tolist() == ["missing", "ok"]
    assert [name for name, _ in quarantine_damaged(store, {A, B})] == [f"cells/{A}.parquet"]
    assert (tmp_path / "s" / "quarantine" / f"{A}.parquet").exists()
    assert committed_keys(store) == {B}


def test_a_flipped_bit_is_named_or_harmless_never_another_number(store, tmp_path):
    commit_cell(store, row(accuracy=0.8125))
    plan(store, 1)
    path = tmp_path / "s" / "cells" / f"{A}.parquet"
    content = path.read_bytes()
    whole = read_ledger(store.root).cells.drop(columns="started").to_dict("records")
    named = 0
    for position in range(0, len(content), 151):
        flipped = bytearray(content)
        flipped[position] ^= 1 << (position % 8)
        path.write_bytes(bytes(flipped))
        ledger = read_ledger(store.root)
        named += bool(ledger.damaged)
        if not ledger.damaged:
            assert ledger.cells.drop(columns="started").to_dict("records") == whole, position
    assert named > 3


def test_an_unknown_schema_version_is_refused_by_name(store):
    commit_cell(store, row(schema_version=SCHEMA_VERSION + 1))
    plan(store, 1)
    (name, reason), *_ = read_ledger(store.root).damaged
    assert name == f"cells/{A}.parquet"
    assert f"schema version {SCHEMA_VERSION + 1}, this code reads {SCHEMA_VERSION}" in reason


def test_a_folder_that_is_no_study_is_refused(tmp_path):
    with pytest.raises(LedgerError, match=r"no study\.json in .*: not a study's results"):
        read_ledger(str(tmp_path))


def _commit_slowly(root: str) -> None:
    replace = os.replace
    os.replace = lambda *a: (time.sleep(60), replace(*a))  # killed between fsync and rename
    commit_cell(Store(root), row())


def test_a_kill_between_write_and_rename_leaves_no_cell_behind(store, tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_commit_slowly, args=(store.root,))
    process.start()
    cells = tmp_path / "s" / "cells"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not list(cells.glob(".*.tmp")):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert list(cells.glob(".*.tmp")), "the kill came before the temporary file was there"
    assert committed_keys(store) == set()
    commit_cell(store, row())
    assert committed_keys(store) == {A}


def test_a_full_disk_loses_nothing_and_says_so(store, monkeypatch):
    commit_cell(store, row())

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        commit_cell(store, row(1))
    assert committed_keys(store) == {A}
    assert not list(Path(store.path("cells")).glob(".*.tmp"))


def _hold(root: str, ready) -> None:
    with Lock(Store(root)):
        ready.set()
        time.sleep(60)


def test_the_second_controller_refuses_and_takes_over_from_the_dead(store):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_hold, args=(store.root, ready))
    process.start()
    assert ready.wait(20)
    with pytest.raises(LedgerError, match=rf"in use by process {process.pid} on "), Lock(store):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with Lock(store) as lock:
        must_hold(store, lock.token)


def test_a_late_commit_of_a_stopped_holder_is_refused(store):
    with Lock(store) as first:
        must_hold(store, first.token)
    with pytest.raises(LedgerError, match=r"late commit refused: .* nobody holds"):
        must_hold(store, first.token)
    with Lock(store), pytest.raises(LedgerError, match=r"late commit refused: .* process \d+ on"):
        must_hold(store, first.token)
