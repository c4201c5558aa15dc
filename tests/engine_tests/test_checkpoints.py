"""What a killed cell leaves, when it is taken, and that nothing of it shows in the result."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from sweeps.engine import checkpoints
from sweeps.engine.checkpoints import StoredCheckpoint
from sweeps.ledger.files import Store, StoreError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(checkpoints, "EVERY_S", 0.0)
    monkeypatch.setattr(checkpoints, "COST", 1e9)


def begun(store, told=None, made_by="1"):
    signs = None if told is None else (lambda *, saved: told.append(saved))
    more = {} if signs is None else {"signs": signs}
    return StoredCheckpoint(store, "key", made_by=made_by, tick_s=0.0, **more)


def left_in(store, made_by="1"):
    with begun(store, made_by=made_by).section("fit", dict) as left:
        return left


def save_one(store):
    told = []
    checkpoint = begun(store, told)
    with checkpoint.section("fit", lambda: {"x": np.arange(3)}):
        checkpoint.tick()
    return told, checkpoint


def test_what_was_saved_is_there_for_the_next_attempt_until_it_is_forgotten(tmp_path, at_once):
    store = Store(str(tmp_path))
    assert left_in(store) is None
    told, checkpoint = save_one(store)
    assert told == [True]
    assert left_in(store)["x"].tolist() == [0, 1, 2]
    checkpoint.forget()
    assert left_in(store) is None
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_what_is_put_back_is_in_the_order_in_which_it_was_said(tmp_path, at_once):
    said = {"validation_accuracy": np.ones(1), "loss": np.ones(2), "a": np.ones(3)}
    checkpoint = begun(Store(str(tmp_path)))
    with checkpoint.section("fit", lambda: said):
        checkpoint.tick()
    assert list(left_in(Store(str(tmp_path)))) == list(said)


def test_what_others_made_or_a_disk_tore_is_not_taken(tmp_path, at_once):
    store = Store(str(tmp_path))
    save_one(store)
    assert left_in(store, made_by="another torch") is None
    (file,) = (tmp_path / "checkpoints").iterdir()
    whole = file.read_bytes()
    for torn in (b"", whole[:5], whole[:-3], b"\xff" * len(whole)):
        file.write_bytes(torn)
        assert left_in(store) is None
    file.write_bytes(whole)
    assert left_in(store) is not None


def test_a_save_waits_its_time_and_a_full_disk_fails_no_computation(tmp_path, monkeypatch):
    store, told = Store(str(tmp_path)), []
    checkpoint = begun(store, told)
    with checkpoint.section("fit", dict):
        checkpoint.tick()
        assert told == [False]
        monkeypatch.setattr(checkpoints.time, "monotonic", lambda: time.perf_counter() + 10_000)

        def full(*_):
            raise StoreError("no space left")

        monkeypatch.setattr(store, "write", full)
        checkpoint.tick()
    assert told == [False, False]
    checkpoint.forget()


CELL = """
import json, os, sys
sys.path.insert(0, os.getcwd())
from sweeps.engine import checkpoints
checkpoints.EVERY_S, checkpoints.COST = 0.3, 1e9
from sweeps.engine.plan import make_plan
from sweeps.engine.recipe import Recipes
from sweeps.engine.study import Request
from sweeps.engine.worker import execute
from sweeps.ledger.lock import Lock
from sweeps.ledger.files import Store
core, results, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
from sweeps.engine.study import Study
study = Study(name="s", question="?", core=core, factors={"method": (settings.pop("method"),)},
              baseline={}, data={"apga_core": "phantom-xray", "selection_core": "ihc-colon"}[core],
              tables=())
request = Request(seeds="1", settings=tuple(f"{k}={v}" for k, v in settings.items()))
plan = make_plan(study, request, results=results, retry_failed=False)
with Lock(Store(results).child("s")) as lock:
    recipes = Recipes(study, request, results=results, token=lock.token,
                      commit={"git_commit": "", "git_dirty": False})
    for stage in plan.stages:
        execute(recipes.stage(stage).to_json(), device="cpu", node="n", attempt=1)
    for cell in plan.todo:
        execute(recipes.cell(cell).to_json(), device="cpu", node="n", attempt=1)
"""
SETTINGS = {
    "apga_core": {"method": "apga", "k_shot": 12, "base_epochs": 1, "base_min_steps": 3,
                  "epochs": 6, "min_steps": 0, "batch_size": 8},
    "selection_core": {"method": "controller", "generator_steps": 6, "generator_snapshots": 2,
                       "iterations": 2, "episodes": 2, "pool_per_class": 16, "batches": 2,
                       "classifier_steps": 10, "reward_steps": 10},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1500)  # six processes, one after the other, on a machine that may be busy
@pytest.mark.parametrize("core", SETTINGS)
def test_killed_at_random_moments_it_commits_the_same_bytes(core, tmp_path):
    def start(results):
        settings = json.dumps(SETTINGS[core])
        return subprocess.Popen(
            [sys.executable, "-c", CELL, core, str(results), settings],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def files(results):
        return {p: p.stat().st_mtime_ns for p in results.glob("*/checkpoints/*.safetensors")}

    assert start(tmp_path / "quiet").wait() == 0
    rng, results, kills = np.random.default_rng(0), tmp_path / "killed", 0
    for _ in range(4):
        run, before = start(results), files(results)
        while run.poll() is None and files(results) == before:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.5)
        kills += run.poll() is None
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert kills >= 2
    assert start(results).wait() == 0
    assert files(results) == {}
    for folder in ("cells", "predictions"):
        (one,), (other,) = ((tmp_path / r / "s" / folder).glob("*.parquet") for r in
                            ("quiet", "killed"))  # fmt: skip
        a, b = pq.read_table(one), pq.read_table(other)
        changing = {"started", "wall_s", "cpu_s", "peak_host_bytes"}
        a, b = a.to_pydict(), b.to_pydict()
        different = [c for c in a if a[c] != b[c] and c not in changing]
        assert different == []
    arrays = [dict(np.load(*(tmp_path / r / "s").rglob("*.npz"))) for r in ("quiet", "killed")]
    assert arrays[0].keys() == arrays[1].keys()
    for name, array in arrays[0].items():
        assert array.tobytes() == arrays[1][name].tobytes(), name
