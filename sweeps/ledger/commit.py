"""Writing: a finished cell becomes one immutable row, at once, by the worker that computed it."""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa

from sweeps.ledger.checks import OTHER_KEY, not_finite
from sweeps.ledger.files import Store, parquet_bytes
from sweeps.ledger.predictions import digest
from sweeps.ledger.schema import (
    CELL_SCHEMA,
    PREDICTION_SCHEMA,
    LedgerError,
    Manifest,
    key_of_seed,
    without_empty,
)


def _row(values: Mapping[str, Any]) -> bytes:
    unknown = sorted(set(values) - set(CELL_SCHEMA.names))
    if unknown:
        raise LedgerError(f"the schema has no column {', '.join(unknown)}")
    ready = {
        name: list(value.items()) if isinstance(value, Mapping) else value
        for name, value in values.items()
    }
    table = pa.Table.from_pylist([ready], schema=CELL_SCHEMA)
    for name in CELL_SCHEMA.names:
        if not CELL_SCHEMA.field(name).nullable and table[name].null_count:
            raise LedgerError(f"column {name} must not be empty")
    key_of = key_of_seed(
        *(values[n] for n in ("core", "core_version", "config", "data_fingerprint"))
    )
    if key_of(values["seed"]) != values["key"]:  # no reader would take it
        raise LedgerError(f"{values['key']} cannot be written: {OTHER_KEY}")
    return parquet_bytes(without_empty(table))


def predictions_table(parts: tuple[Any, ...]) -> pa.Table:
    """The predictions of one cell (a tuple of `imaging_core.task.Predictions`) as a table."""
    tables = [
        pa.table(
            {
                "split": pa.array([part.split] * len(part.labels), pa.string()),
                "id": pa.array([str(x) for x in part.ids], pa.string()),
                "group": pa.array([str(x) for x in part.groups], pa.string()),
                "label": pa.array(np.asarray(part.labels, dtype=np.int32)),
                "probabilities": pa.array(
                    list(np.asarray(part.probabilities, dtype=np.float32)),
                    pa.list_(pa.float32()),
                ),
            },
            schema=PREDICTION_SCHEMA,
        )
        for part in parts
    ]
    return pa.concat_tables(tables) if tables else PREDICTION_SCHEMA.empty_table()


def commit_cell(
    store: Store,
    row: Mapping[str, Any],
    predictions: tuple[Any, ...] = (),
    artifacts: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write one finished cell; the row goes last, so a row implies its predictions.

    A cell that is there already stays as it is: the first commit wins, and a cell is a pure
    function of its key, so the second would have held the same numbers.

    Raises:
        LedgerError: a metric is NaN or infinite, a column is missing or unknown, or the key is
            not that of the row.
    """
    key = row["key"]
    if bad := not_finite(row["metrics"]):
        raise LedgerError(f"metrics must be finite, got {bad}")
    stored = predictions_table(predictions)
    content = _row({**row, "predictions_sha256": digest(stored) if predictions else ""})
    if store.exists(f"cells/{key}.parquet"):
        return
    if predictions:
        store.write(f"predictions/{key}.parquet", parquet_bytes(stored))
    if artifacts:
        sink = io.BytesIO()
        np.savez_compressed(sink, **artifacts)  # type: ignore[arg-type]  # of names that are ours
        store.write(f"artifacts/{key}.npz", sink.getvalue())
    store.write(f"cells/{key}.parquet", content)
    store.delete(f"failures/{key}.parquet")


def commit_failure(store: Store, row: Mapping[str, Any]) -> None:
    """Write one failed cell: its error, traceback and attempts, never a metric."""
    content = _row({**row, "metrics": {}, "curves": {}, "predictions_sha256": ""})
    store.write(f"failures/{row['key']}.parquet", content)


def write_manifest(store: Store, manifest: Manifest) -> None:
    """`study.json`, replaced whole; a cell a line."""
    values = {f.name: getattr(manifest, f.name) for f in fields(manifest) if f.name != "cells"}
    head = json.dumps(values, indent=1, ensure_ascii=False).removesuffix("\n}")
    cells = ",\n  ".join(_planned(manifest))
    store.write("study.json", f'{head},\n "cells": [\n  {cells}\n ]\n}}'.encode())


def _planned(manifest: Manifest) -> Iterator[str]:
    """Each planned cell as JSON. An arm, whose cells follow each other, is encoded once: of 100,000
    cells the rest takes a second.
    """
    encode = json.JSONEncoder(ensure_ascii=False).encode
    arm, of_arm = None, ""
    for cell in manifest.cells:
        if arm is None or (cell.arm, cell.levels) != arm:
            arm = cell.arm, cell.levels
            of_arm = f'"arm": {encode(cell.arm)}, "levels": {encode(cell.levels)}'
        yield f'{{"key": {encode(cell.key)}, {of_arm}, "seed": {encode(cell.seed)}}}'
