"""Ledgers of made-up cells with predictions, and what anybody can read of one."""

import datetime
from typing import Any

import numpy as np

from imaging_core.task import Predictions
from sweeps.ledger.commit import commit_cell, commit_failure, write_manifest
from sweeps.ledger.files import Store
from sweeps.ledger.predictions import PredictionReader
from sweeps.ledger.read import committed_keys, failed_keys, read_ledger, read_rows
from sweeps.ledger.schema import SCHEMA_VERSION, Manifest, PlannedCell, cell_key


def key_of(seed: int) -> str:
    """Of the cell of this seed."""
    return cell_key("toy", 1, {"x": 1}, seed, "f")


def row_of(seed: int, **changes: Any) -> dict[str, Any]:
    """Its row, as a worker commits it."""
    return {
        "schema_version": SCHEMA_VERSION,
        "key": key_of(seed),
        "status": "ok",
        "study": "one",
        "core": "toy",
        "core_version": 1,
        "arm": "x=1",
        "levels": {"x": "1"},
        "config": '{"x":1}',
        "seed": seed,
        "data": "d",
        "data_fingerprint": "f",
        "protocol": "held-out",
        "metrics": {"accuracy": 1 / (1 + seed)},
        "curves": {"reward": [float(seed), float("nan")]},
        "attempts": 1,
        "git_commit": "",
        "git_dirty": False,
        "versions": {"python": "3"},
        "host": "h",
        "node": "n",
        "device": "cpu",
        "started": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        "wall_s": 1.0,
        "cpu_s": 1.0,
        "stage_keys": {},
    } | changes


def part_of(seed: int) -> Predictions:
    """Its predictions: one to four examples."""
    size = 1 + seed % 4
    return Predictions(
        split="test",
        ids=np.array([f"i{n}" for n in range(size)]),
        groups=np.array(["g"] * size),
        labels=np.arange(size) % 2,
        probabilities=np.full((size, 2), 1 / (2 + seed), dtype=np.float32),
    )


def commit(store: Store, seed: int, **changes: Any) -> None:
    """The cell of this seed, with its predictions."""
    commit_cell(store, row_of(seed, **changes), (part_of(seed),))


def fail(store: Store, seed: int, error: str = "lost") -> None:
    """The failure of the cell of this seed."""
    said = {"status": "failed", "error_type": "E", "error": error, "traceback": "", "metrics": {}}
    commit_failure(store, row_of(seed, **said))


def manifest_of(seeds: int) -> Manifest:
    """Of so many seeds of one arm."""
    return Manifest(
        study="one",
        question="?",
        core="toy",
        factors={"x": ("1",)},
        baseline={"x": "1"},
        seeds=tuple(range(seeds)),
        preset="demo",
        data="d",
        protocol="held-out",
        data_fingerprint="f",
        data_card="",
        tables=(),
        metrics=({"name": "accuracy"},),
        cells=tuple(
            PlannedCell(key=key_of(seed), arm="x=1", levels={"x": "1"}, seed=seed)
            for seed in range(seeds)
        ),
    )


def plan(store: Store, seeds: int) -> None:
    """`study.json` of so many seeds of one arm."""
    write_manifest(store, manifest_of(seeds))


def contents(store: Store) -> tuple[Any, ...]:
    """Everything that a reader gets: keys, rows, the frame's status, predictions."""
    keys = committed_keys(store)
    rows, damaged = read_rows(store, "cells", keys)
    reader = PredictionReader(store, {k: row["predictions_sha256"] for k, row in rows.items()})
    predictions = {key: reader.checked(key).to_pylist() for key in sorted(keys)}
    status = read_ledger(store.root).cells["status"].tolist()
    shown = {key: repr(row) for key, row in rows.items()}
    return keys, failed_keys(store), shown, damaged, status, predictions
