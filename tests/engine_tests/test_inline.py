"""The engine without Ray: what is there is never computed again, failures are rows."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import toy_study
from far_store import far_stores
from studies import elsewhere, here

from sweeps.ledger import lock
from sweeps.ledger.read import read_ledger


def cells(results: Path):
    return read_ledger(str(results / "toy")).cells


@pytest.fixture
def results(tmp_path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def toy(results):
    def run(*arguments: str, results: Path = results):
        return here(toy_study, "--results", results, *arguments)

    return run


def test_a_study_runs_once_and_only_what_is_missing_after(toy, results):
    first = toy("--inline", "--seeds", "2")
    assert first.returncode == 0, first.stderr
    assert "12 of 12 cells are committed" in first.stdout
    assert "stages: 6 computed, 18 reused" in first.stdout
    stamps = {p: p.stat().st_mtime_ns for p in (results / "toy" / "cells").iterdir()}
    again = toy("--inline", "--seeds", "2")
    assert "nothing was left to compute" in again.stdout
    more = toy("--inline", "--seeds", "3")
    assert "18 of 18 cells are committed" in more.stdout
    assert len(list((results / "toy" / "cells").iterdir())) == 18
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in stamps.items())


def test_a_resumed_study_asks_for_what_is_there_once_before_its_first_cell(
    toy, results, monkeypatch
):
    toy("--inline", "--seeds", "1")
    there = {str(path) for path in (results / "toy" / "cells").iterdir()}
    far, asked = far_stores(monkeypatch), Counter()
    monkeypatch.setattr(lock, "SETTLE_S", 0.0)
    opened = far.open_input_file
    monkeypatch.setattr(far, "open_input_file", lambda path: asked.update([path]) or opened(path))
    answer = toy("--inline", "--seeds", "2", results=f"far://{results}")
    assert "12 of 12 cells are committed" in answer.stdout
    # And once at the end, when what is there is counted.
    assert {path: asked[path] for path in there} == dict.fromkeys(there, 2)


def test_provenance_is_in_every_row(toy, results):
    toy("--inline", "--seeds", "1")
    frame = cells(results)
    for name in ("git_commit", "host", "device", "data_fingerprint", "config"):
        assert frame[name].str.len().gt(0).all(), name
    assert json.loads(frame["config"][0])["ridge"] == 0.1
    assert set(frame["versions"][0]) >= {"python", "numpy", "torch", "ray"}
    assert set(frame["stage_keys"][0]) == {"toy-pixels", "toy-order"}


def test_a_cell_that_raises_is_counted_shown_and_retried_on_request(toy, results):
    failing = toy("--inline", "--set", "raise_at_seed=1")
    assert failing.returncode == 3
    assert "6 failed (--retry-failed computes them again)" in failing.stdout
    frame = cells(results)
    failed = frame[frame["status"] == "failed"]
    assert failed["seed"].tolist() == [1] * 6
    assert set(failed["error_type"]) == {"RuntimeError"}
    assert failed["traceback"].str.contains("told to raise").all()
    again = toy("--inline", "--set", "raise_at_seed=1")
    assert "nothing was left to compute" in again.stdout
    assert again.returncode == 3
    retried = toy("--inline", "--set", "raise_at_seed=1", "--retry-failed")
    assert "6 failed" in retried.stdout


def test_a_metric_that_is_nan_is_a_failure(toy, results):
    answer = toy("--inline", "--set", "nan_at_seed=0", "--seeds", "1")
    assert answer.returncode == 3
    frame = cells(results)
    assert set(frame["status"]) == {"failed"}
    assert frame["error"].str.contains("metrics must be finite, got accuracy=nan").all()


def test_a_damaged_cell_is_named_and_computed_again(toy, results):
    toy("--inline", "--seeds", "1")
    before = cells(results)
    victim = results / "toy" / "cells" / f"{before['key'][2]}.parquet"
    victim.write_bytes(victim.read_bytes()[:100])
    answer = toy("--inline", "--seeds", "1")
    assert answer.returncode == 0
    assert f"damaged: cells/{victim.name}" in answer.stderr
    after = cells(results)
    assert after["metric.accuracy"].tolist() == before["metric.accuracy"].tolist()
    assert (results / "toy" / "quarantine" / victim.name).exists()


@pytest.mark.slow
def test_a_damaged_stage_is_computed_again(toy, results):
    toy("--inline", "--seeds", "1")
    stage = next((results / "stages").glob("toy-pixels-*.safetensors"))
    content = bytearray(stage.read_bytes())
    content[-5] ^= 1
    stage.write_bytes(bytes(content))
    # A process of its own: this one still has the stage in memory.
    answer = elsewhere("--inline", "--seeds", "2", "--results", results)
    assert answer.returncode == 0, answer.stderr
    assert (results / "stages" / "quarantine" / stage.name).exists()
    fresh = toy("--inline", "--seeds", "2", results=results.parent / "fresh")
    assert fresh.returncode == 0
    ours, theirs = cells(results), cells(results.parent / "fresh")
    assert ours["metric.accuracy"].tolist() == theirs["metric.accuracy"].tolist()


def test_a_field_becomes_a_factor_and_a_factor_is_restricted(toy, results):
    answer = toy("--inline", "--seeds", "1", "--set", "k_shot=16,64", "--set", "ridge=1")
    assert answer.returncode == 0
    frame = cells(results)
    assert frame["arm"].tolist() == [
        f"ridge=1.0,pooling={p},k_shot={k}" for p in (8, 16) for k in (16, 64)
    ]


@pytest.mark.long
def test_the_last_line_counts_what_it_says(toy):
    answer = toy("--inline", "--seeds", "2", "--set", "wait_s=0.2", "--quiet")
    (line,) = answer.stdout.strip().splitlines()
    numbers = re.search(r"compute 0:(\d+) on 1 slots, efficiency (\d+)%", line)
    assert 2 <= int(numbers[1]) <= 6  # 12 cells of 0.2 s
    assert 0 < int(numbers[2]) <= 100
