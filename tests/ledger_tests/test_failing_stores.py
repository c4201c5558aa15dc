"""A read that fails says nothing about the file: it is asked again, and then the run ends with the
file's name, having touched nothing. Every read of a ledger, on a folder and on an object store."""

import errno
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import toy_study
from failing_stores import Fault, faulty_disk, faulty_server
from plain_ledgers import plan, row_of
from s3_server import CREDENTIALS
from studies import here
from typer.testing import CliRunner

import analysis.check
import sweeps.status
from cluster.traffic import Failure
from imaging_core.task import Predictions
from sweeps.engine.stages import StageStore, stated_seconds
from sweeps.engine.worker import end_of_run
from sweeps.ledger import files
from sweeps.ledger.commit import commit_cell, commit_failure
from sweeps.ledger.compact import compact
from sweeps.ledger.files import Store, StoreError
from sweeps.ledger.lock import LateCommit, Lock, must_hold
from sweeps.ledger.progress import progress_of, say_running
from sweeps.ledger.read import (
    committed_keys,
    failed_keys,
    quarantine_damaged,
    read_artifacts,
    read_ledger,
    read_manifest,
    read_predictions,
)

PASSING = (errno.ESTALE, errno.EIO, errno.EACCES, errno.ETIMEDOUT)


def row(seed: int, **changes: Any) -> dict[str, Any]:
    return row_of(seed, **{"metrics": {"accuracy": 0.5 + seed / 16}, "curves": {}, **changes})


KEYS = [row(seed)["key"] for seed in range(5)]
"""Cells 0 and 1 are compacted, 2 and 3 single, 4 has failed."""


def filled(store: Store) -> None:
    """A study's folder with a file of every kind in it."""
    plan(store, 5)
    part = Predictions(
        split="test",
        ids=np.array(["i", "j"]),
        groups=np.array(["g", "h"]),
        labels=np.array([0, 1]),
        probabilities=np.array([[0.25, 0.75], [0.5, 0.5]], dtype=np.float32),
    )
    for seed in (0, 1):
        commit_cell(store, row(seed), (part,))
    compact(store, minimum=1)
    for seed in (2, 3):
        commit_cell(store, row(seed), (part,), {"grid": np.arange(4)})
    lost = {"status": "failed", "error_type": "E", "error": "lost", "traceback": "", "metrics": {}}
    commit_failure(store, row(4, **lost))
    StageStore(store).save("s", {"a": np.arange(3)}, 1.5)


def frame(store: Store) -> list[Any]:
    return read_ledger(store.root).cells[["status", "metric.accuracy"]].fillna(-1).values.tolist()


READS: dict[str, tuple[str, Callable[[Store], Any]]] = {
    # what is read: (end of its path, a reading whose answer can be compared)
    "a cell, before the run": (
        f"cells/{KEYS[2]}.parquet",
        lambda s: quarantine_damaged(s, {*KEYS}),
    ),
    "a cell, for tables": (f"cells/{KEYS[2]}.parquet", frame),
    "compacted cells": ("cells/{compact}", lambda s: quarantine_damaged(s, {*KEYS})),
    "keys of compacted cells": ("cells/{compact}", committed_keys),
    "the list of cells": ("cells", committed_keys),
    "the list of failures": ("failures", failed_keys),
    "a failure": (f"failures/{KEYS[4]}.parquet", frame),
    "predictions": (
        f"predictions/{KEYS[2]}.parquet",
        lambda s: read_predictions(s, KEYS[2])["id"].tolist(),
    ),
    "compacted predictions": (
        "predictions/{compact}",
        lambda s: read_predictions(s, KEYS[0])["id"].tolist(),
    ),
    "small arrays": (
        f"artifacts/{KEYS[2]}.npz",
        lambda s: read_artifacts(s, KEYS[2])["grid"].tolist(),
    ),
    "a stage": ("s.safetensors", lambda s: StageStore(s).load("s")["a"].tolist()),
    "a stage's description": ("s.json", lambda s: StageStore(s).load("s")["a"].tolist()),
    "whether a stage is there": ("s.json", lambda s: StageStore(s).has("s")),
    "a stage's seconds": ("s.json", lambda s: stated_seconds(s, "s")),
    "the manifest": ("study.json", read_manifest),
    "the lock, before a commit": ("lock.json", lambda s: must_hold(s, "mine")),
    "the lock, from a terminal": ("lock.json", progress_of),
    "what runs": ("running.json", progress_of),
}


LOCK = b'{"token": "mine", "pid": 1, "host": "h", "beat": 0}'


def resolved(store: Store, end: str) -> str:
    folder, _, leaf = end.partition("/")
    if leaf == "{compact}":
        leaf = next(n for n in store.names(folder, ".parquet") if n.startswith("_compact-"))
    return f"{folder}/{leaf}" if leaf else folder


def everything(store: Store) -> dict[str, bytes]:
    folders = ("", "cells", "failures", "predictions", "artifacts", "quarantine")
    names = [f"{f}/{n}".lstrip("/") for f in folders for n in store.names(f, "")]
    return {name: store.read(name) for name in names if store.exists(name)}


@pytest.fixture
def at_once(monkeypatch) -> None:
    monkeypatch.setattr(files, "PAUSES_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr(files, "PAUSES_FAR_S", (0.0,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Store:
    store = Store(tmp_path_factory.mktemp("study"))
    filled(store)
    store.write("lock.json", LOCK)
    say_running(store, "mine", 1, {}, None)
    return store


def holds(store: Store, fault: Fault, what: str, kinds: dict[int | str, int]) -> None:
    """Of each kind of fault: one that passes changes no answer, one that stays ends in its name.

    Args:
        kinds: errno or HTTP status → how often it must strike to stay (0: it is not tried so).
    """
    end, read = READS[what]
    end = resolved(store, end)
    store.write("lock.json", LOCK)  # a beat: a holder that is silent for 20 s counts as dead
    before, answer = everything(store), read(store)
    for kind, stays in kinds.items():
        fault.set(end, kind, 1)
        assert read(store) == answer, kind
        assert fault.hits == 1
        if stays:
            fault.set(end, kind)
            with pytest.raises(StoreError, match="run the same command again") as caught:
                read(store)
            assert fault.hits == stays
            name = end.rpartition("/")[2]
            assert str(caught.value).startswith(f"{end} in {store.root} could not be ") or (
                str(caught.value).startswith(f"{name} in {store.root} could not be ")
            )
            said = f"({os.strerror(kind)})" if store.local else "AWS Error"
            assert said in str(caught.value)
    fault.set("", 0)
    assert everything(store) == before
    assert read(store) == answer


@pytest.mark.parametrize("what", READS)
def test_a_folder_that_fails_is_asked_again_and_then_named(what, folder, at_once, monkeypatch):
    fault = faulty_disk(monkeypatch)
    tries = 1 + len(files.PAUSES_S)
    holds(folder, fault, what, dict.fromkeys(PASSING, tries))


@pytest.fixture(scope="module")
def bucket():
    with pytest.MonkeyPatch.context() as patch, faulty_server() as (address, fault):
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": address}.items():
            patch.setenv(name, value)
        name = f"b{uuid.uuid4().hex[:12]}"
        boto3.client("s3", endpoint_url=address).create_bucket(Bucket=name)
        store = Store(f"s3://{name}/one")
        filled(store)
        store.write("lock.json", LOCK)
        say_running(store, "mine", 1, {}, None)
        yield store, fault


@pytest.mark.slow
@pytest.mark.parametrize("what", READS)
def test_an_object_store_that_fails_is_asked_again_and_then_named(what, bucket, at_once):
    """What the client itself does not ask again (403) stays; the rest it asks for 6 s by itself."""
    holds(*bucket, what, {403: 1 + len(files.PAUSES_FAR_S), 500: 0, 503: 0, "reset": 0})


@pytest.mark.slow
@pytest.mark.parametrize("kind", [503, "reset"])
def test_an_object_store_that_stays_away_ends_the_reading(kind, bucket, monkeypatch):
    monkeypatch.setattr(files, "PAUSES_FAR_S", ())
    store, fault = bucket
    before = everything(store)
    fault.set(f"cells/{KEYS[3]}.parquet", kind)
    with pytest.raises(StoreError, match=rf"cells/{KEYS[3]}.parquet in s3://.*\(.*AWS Error"):
        quarantine_damaged(store, {*KEYS})
    fault.set("", 0)
    assert everything(store) == before


def test_a_folder_whose_list_fails_is_not_an_empty_one(folder, at_once, monkeypatch):
    """An empty list of cells would have every one of them computed again."""
    fault = faulty_disk(monkeypatch)
    fault.set("cells", errno.EACCES)
    with pytest.raises(StoreError, match=r"cells in .* could not be listed \(Permission denied\)"):
        committed_keys(folder)


def test_what_does_not_pass_is_not_waited_for(tmp_path, monkeypatch):
    fault = faulty_disk(monkeypatch)
    fault.set(".tmp", errno.ENOSPC)
    with pytest.raises(StoreError, match=r"x in .* could not be written \(No space left"):
        Store(tmp_path).write("x", b"1")
    assert fault.hits == 1


def test_a_folder_in_the_place_of_a_cell_is_damage_and_named(tmp_path):
    store = Store(tmp_path)
    filled(store)
    name = f"cells/{KEYS[2]}.parquet"
    store.delete(name)
    (tmp_path / name).mkdir()
    assert quarantine_damaged(store, {*KEYS}) == [
        (name, f"[Errno 21] Is a directory: '{tmp_path / name}'")
    ]
    assert (tmp_path / "quarantine" / f"{KEYS[2]}.parquet").is_dir()


def test_a_reader_finds_predictions_that_were_compacted_while_it_read(tmp_path):
    from sweeps.ledger.read import PredictionReader

    store = Store(tmp_path)
    filled(store)
    reader = PredictionReader(store)
    assert reader.read(KEYS[0])["id"].tolist() == ["i", "j"]  # looks at what is compacted so far
    compact(store, minimum=1)
    assert not store.exists(f"predictions/{KEYS[2]}.parquet")
    assert reader.read(KEYS[2])["id"].tolist() == ["i", "j"]


def test_a_worker_whose_store_fails_ends_the_run_and_its_cell_has_not_failed():
    error = end_of_run(Failure(error_type="StoreError", error="lock.json could not be read"))
    assert isinstance(error, StoreError)
    assert str(error) == "lock.json could not be read"
    refused = end_of_run(Failure(error_type="LateCommit", error="late commit refused"))
    assert isinstance(refused, LateCommit)
    assert end_of_run(Failure(error_type="OSError", error="no such image")) is None


def files_of(root: Path) -> dict[str, bytes]:
    kept = [p for p in sorted(root.rglob("*")) if p.is_file() and p.name != ".writable"]
    return {str(p.relative_to(root)): p.read_bytes() for p in kept if p.suffix != ".lock"}


def test_a_study_on_a_failing_disk_ends_with_the_name_and_goes_on_later(
    tmp_path, at_once, monkeypatch
):
    arguments = ("--inline", "--seeds", "1", "--set", "pooling=8", "--results", tmp_path)
    assert here(toy_study, *arguments).returncode == 0
    before = files_of(tmp_path)
    victim = next((tmp_path / "toy" / "cells").iterdir())
    fault = faulty_disk(monkeypatch)

    fault.set(victim.name, errno.ESTALE)
    answer = here(toy_study, *arguments)
    assert answer.returncode == 3
    said = f"error: cells/{victim.name} in {tmp_path}/toy could not be read (Stale file handle)."
    assert answer.stderr.startswith(said), answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    status = CliRunner().invoke(sweeps.status.app, [str(tmp_path)])
    assert (status.exit_code, said in status.stderr.replace("\n", " ")) == (3, True), status.stderr
    fault.set("cells", errno.EIO)  # here the plan itself cannot be made
    assert here(toy_study, *arguments).returncode == 3
    assert here(toy_study, *arguments, "--plan").returncode == 3

    # In the middle of a run: a stage that other cells have made cannot be read.
    fault.set(".safetensors", errno.EIO)
    monkeypatch.setattr("sweeps.engine.worker._stage_stores", {})
    more = [*arguments[:2], "2", *arguments[3:]]
    middle = here(toy_study, *more)
    assert middle.returncode == 3
    assert ".safetensors in " in middle.stderr
    assert "could not be read (Input/output error)" in middle.stderr
    fault.set("", 0)
    assert not (tmp_path / "toy" / "failures").exists()
    assert not (tmp_path / "toy" / "quarantine").exists()
    assert not (tmp_path / "stages" / "quarantine").exists()
    now = files_of(tmp_path)
    for name in (n for n in before if "/cells/" in n or n.startswith("stages/")):
        assert now[name] == before[name], name

    again = here(toy_study, *more)
    assert again.returncode == 0
    assert "6 of 6 cells are committed" in again.stdout


def test_check_ends_with_the_name_of_what_it_could_not_read(folder, at_once, monkeypatch, capsys):
    import typer

    fault = faulty_disk(monkeypatch)
    fault.set(f"predictions/{KEYS[2]}.parquet", errno.EIO)
    with pytest.raises(typer.Exit) as end:
        analysis.check.main(folder.root)
    assert end.value.exit_code == 3
    assert f"error: predictions/{KEYS[2]}.parquet in" in capsys.readouterr().err


def test_a_lock_that_cannot_be_removed_does_not_hide_how_the_run_ended(
    tmp_path, at_once, monkeypatch
):
    fault = faulty_disk(monkeypatch)

    def run() -> None:
        with Lock(Store(tmp_path)):
            fault.set("lock.json", errno.EIO)
            raise KeyError("the run's own")

    with pytest.raises(KeyError, match="the run's own"):
        run()
    fault.set("", 0)
    with Lock(Store(tmp_path)) as second:  # the kernel's part of the lock is free
        must_hold(Store(tmp_path), second.token)
