"""The ledger on an object store (`conftest.py` has the server)."""

import datetime
import json
import threading
import time

import numpy as np
import pytest
import toy_search
import toy_study
from plain_ledgers import manifest_of, row_of
from studies import elsewhere, here, step_of
from typer.testing import CliRunner

import sweeps.status
from imaging_core.task import Predictions
from sweeps.engine.cli import build_app
from sweeps.engine.scratch import scratch
from sweeps.ledger.commit import commit_cell, commit_failure, write_manifest
from sweeps.ledger.files import Store
from sweeps.ledger.read import (
    committed_keys,
    failed_keys,
    quarantine_damaged,
    read_artifacts,
    read_ledger,
    read_predictions,
)


def listing(client, bucket: str) -> dict[str, tuple[str, datetime.datetime]]:
    """Object → (its hash, when it was written)."""
    page = client.list_objects_v2(Bucket=bucket)
    assert not page["IsTruncated"]
    return {o["Key"]: (o["ETag"], o["LastModified"]) for o in page.get("Contents", ())}


def row(seed: int, accuracy: float = 0.5, **changes) -> dict:
    return row_of(seed, **{"metrics": {"accuracy": accuracy}, **changes})


def test_a_store_keeps_moves_and_forgets_bytes(store, client, bucket):
    assert not store.local
    assert not store.exists("a/x.bin")
    with pytest.raises(FileNotFoundError):
        store.read("a/x.bin")
    assert list(store.names("a", ".bin")) == []
    big = np.random.default_rng(0).bytes(11_000_000)  # more than one part of an upload
    for name, content in {"a/x.bin": b"one", "a/big.bin": big, "a/empty.bin": b""}.items():
        store.write(name, content)
        assert store.read(name) == content
    store.write("a/x.bin", b"two")
    assert store.read("a/x.bin") == b"two"
    assert list(store.names("a", ".bin")) == ["big.bin", "empty.bin", "x.bin"]
    store.move("a/x.bin", "quarantine/x.bin")
    assert store.read("quarantine/x.bin") == b"two"
    store.delete("a/big.bin")
    store.delete("a/big.bin")
    assert list(store.names("a", ".bin")) == ["empty.bin"]
    assert "studies/one/quarantine/x.bin" in listing(client, bucket)


def test_a_small_file_is_one_upload(store, client, bucket):
    store.write("x", b"small")
    etag, _ = listing(client, bucket)["studies/one/x"]
    assert "-" not in etag  # "<hash>-<parts>" is what a multipart upload leaves


def test_options_of_a_uri_stay_behind_its_path(bucket):
    child = Store(f"s3://{bucket}/studies?region=us-east-1").child("one")
    assert child.root == f"s3://{bucket}/studies/one?region=us-east-1"
    child.write("x", b"1")
    assert Store(f"s3://{bucket}/studies/one").read("x") == b"1"


def test_a_cell_with_predictions_and_arrays_comes_back(store):
    part = Predictions(
        split="test",
        ids=np.array(["i", "j"]),
        groups=np.array(["g", "h"]),
        labels=np.array([0, 1]),
        probabilities=np.array([[0.25, 0.75], [0.5, 0.5]], dtype=np.float32),
    )
    write_manifest(store, manifest_of(3))
    commit_failure(
        store, row(0, status="failed", error_type="E", error="lost", traceback="", metrics={})
    )
    commit_failure(
        store, row(1, status="failed", error_type="E", error="bad", traceback="", metrics={})
    )
    assert failed_keys(store) == {row(0)["key"], row(1)["key"]}
    commit_cell(store, row(0, 0.75), (part,), {"grid": np.arange(4)})
    commit_cell(store, row(0, 0.25))  # the first commit wins
    assert committed_keys(store) == {row(0)["key"]}
    assert failed_keys(store) == {row(1)["key"]}
    frame = read_ledger(store.root).cells
    assert frame["status"].tolist() == ["ok", "failed", "missing"]
    assert frame["metric.accuracy"].tolist()[0] == 0.75
    assert frame["error"].tolist()[1] == "bad"
    predictions = read_predictions(store, row(0)["key"])
    assert predictions["id"].tolist() == ["i", "j"]
    assert predictions["probabilities"].tolist()[0].tolist() == [0.25, 0.75]
    assert read_artifacts(store, row(0)["key"])["grid"].tolist() == [0, 1, 2, 3]


def test_a_damaged_cell_is_moved_away_and_named(store):
    write_manifest(store, manifest_of(2))
    for seed in (0, 1):
        commit_cell(store, row(seed))
    victim = f"cells/{row(1)['key']}.parquet"
    store.write(victim, store.read(victim)[:200])
    damaged = quarantine_damaged(store, committed_keys(store))
    assert [name for name, _ in damaged] == [victim]
    assert committed_keys(store) == {row(0)["key"]}
    assert list(store.names("quarantine", ".parquet")) == [f"{row(1)['key']}.parquet"]


@pytest.mark.slow
def test_a_study_on_s3_resumes_from_its_bucket(client, bucket):
    arguments = ("--inline", "--seeds", "1", "--set", "pooling=8")
    arguments += ("--results", f"s3://{bucket}/prefix")
    first = elsewhere(*arguments)
    assert first.returncode == 0, first.stderr
    assert "3 of 3 cells are committed" in first.stdout
    before = listing(client, bucket)
    cells = [name for name in before if name.startswith("prefix/toy/cells/")]
    assert len(cells) == 3
    assert not [name for name in before if name.endswith("lock.json")]

    again = here(toy_study, *arguments)
    assert "nothing was left to compute" in again.stdout
    after = listing(client, bucket)
    assert {name: after[name] for name in cells} == {name: before[name] for name in cells}

    frame = read_ledger(f"s3://{bucket}/prefix/toy").cells
    assert frame["status"].tolist() == ["ok"] * 3
    status = CliRunner().invoke(sweeps.status.app, [f"s3://{bucket}/prefix"])
    assert "3/3" in status.stdout


@pytest.mark.slow
def test_a_search_on_s3_goes_on_from_its_bucket(client, bucket, quick):
    """Its proposals, cells and winners are objects; there is no database to look at."""

    def search(*arguments: object) -> str:
        app = build_app(toy_search.SEARCH, step_of(toy_search), toy_search.__doc__)
        where = ["--inline", "--results", f"s3://{bucket}/prefix", "--set", "pooling=8"]
        sizes = ["--seeds", "1", "--tuning-seeds", "2"]
        answer = CliRunner().invoke(app, [*where, *sizes, *map(str, arguments)])
        assert answer.exit_code == 0, answer.output
        return answer.output

    assert "2 of 2 proposals (2 complete)" in search("--trials", 2)
    before = listing(client, bucket)
    proposals = [name for name in before if "/proposals/" in name]
    cells = [name for name in before if "_tuning/cells/" in name]
    assert (len(proposals), len(cells)) == (2, 4)
    assert not [name for name in before if name.endswith((".db", "lock.json"))]
    assert "3 of 3 proposals (3 complete)" in search("--trials", 3)
    after = listing(client, bucket)
    assert {name: after[name] for name in proposals + cells} == {
        name: before[name] for name in proposals + cells
    }
    assert len([name for name in after if "/proposals/" in name]) == 3
    winner = json.loads(Store(f"s3://{bucket}/prefix/toy_search").read("search/winners.json"))
    assert winner["pooling=8"]["complete"] == 3
    assert set(read_ledger(f"s3://{bucket}/prefix/toy_search").cells["status"]) == {"ok"}


@pytest.mark.usefixtures("variables")
@pytest.mark.parametrize("uri", ["s3://no-such-bucket/x", "s4://what/x"])
def test_results_that_cannot_be_written_are_refused(uri):
    answer = here(toy_study, "--inline", "--results", uri)
    assert answer.returncode == 2
    assert f"a URI that can be written, got {uri}" in answer.stderr


@pytest.mark.long
def test_cells_are_fetched_side_by_side(store, monkeypatch):
    write_manifest(store, manifest_of(32))
    for seed in range(32):
        commit_cell(store, row(seed))
    read, lock, under_way, most = Store.read, threading.Lock(), 0, 0

    def far_away(self, name, **options):
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.1)
        with lock:
            under_way -= 1
        return read(self, name, **options)

    monkeypatch.setattr(Store, "read", far_away)
    assert read_ledger(store.root).cells["status"].tolist() == ["ok"] * 32
    assert most >= 4


@pytest.mark.slow
def test_a_fleet_commits_to_s3(bucket):
    answer = elsewhere(
        *("--seeds", "1", "--set", "pooling=8", "--results", f"s3://{bucket}/prefix")
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "3 of 3 cells are committed" in answer.stdout
    frame = read_ledger(f"s3://{bucket}/prefix/toy").cells
    assert frame["status"].tolist() == ["ok"] * 3
    assert frame["node"].ne("inline").all()


def test_rays_books_of_runs_that_are_over_go_from_the_bucket(bucket, client):
    ledger = Store(f"s3://{bucket}/studies?region=us-east-1").child("one")
    first = scratch(ledger)
    ledger.write("ray/fleet-node0-5dc43627/deep/state", b"as version 0.1 left it")
    second = scratch(ledger)
    assert first.startswith(f"s3://{bucket}/studies/one/ray/")
    assert first.endswith("?region=us-east-1")
    own = [root.partition("?")[0].rpartition("/")[2] for root in (first, second)]
    left = {name for name in listing(client, bucket) if not name.endswith("/")}
    assert left == {f"studies/one/ray/{name}/owner.json" for name in own}  # this process lives
