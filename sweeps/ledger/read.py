"""Reading: which cells are there, and the frame that analysis works on."""

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sweeps.ledger.files import Store
from sweeps.ledger.schema import (
    CELL_SCHEMA,
    SCHEMA_VERSION,
    LedgerError,
    Manifest,
    PlannedCell,
)


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Everything analysis needs of one study.

    Attributes:
        manifest: what was declared and planned.
        cells: one row per *planned* cell, sorted by (plan order of the arm, seed). Columns: `key`,
            `arm`, `seed`, one `factor.<name>` column per factor, `status` ("ok", "failed",
            "missing"), one `metric.<name>` column per metric (NaN unless ok), and the provenance
            columns of the schema (config as text, host, started, wall_s, …; None where missing).
            `curves` holds a dict per row.
        damaged: names of files that could not be read, with the reason.
    """

    store: Store
    manifest: Manifest
    cells: pd.DataFrame
    damaged: tuple[tuple[str, str], ...]


def committed_keys(store: Store) -> set[str]:
    """Keys of the cells that are there, from file names alone (no file is opened)."""
    return {name.removesuffix(".parquet") for name in store.names("cells", ".parquet")}


def failed_keys(store: Store) -> set[str]:
    """Keys of the cells that failed and have not succeeded since."""
    failed = {name.removesuffix(".parquet") for name in store.names("failures", ".parquet")}
    return failed - committed_keys(store)


def read_manifest(store: Store) -> Manifest:
    """`study.json`.

    Raises:
        LedgerError: there is none, it is damaged, or a version this code does not know.
    """
    try:
        values = json.loads(store.read("study.json"))
    except FileNotFoundError:
        raise LedgerError(
            f"no study.json in {store.root}: not a study's results; name a folder that a script "
            "of sweeps/ has written"
        ) from None
    except ValueError as error:
        raise LedgerError(
            f"study.json in {store.root} is damaged ({error}); run the study's script with --plan "
            "to write it again"
        ) from None
    if values.get("schema_version") != SCHEMA_VERSION:
        raise LedgerError(
            f"study.json in {store.root} has schema version {values.get('schema_version')}, this "
            f"code reads {SCHEMA_VERSION}; use the code that wrote it"
        )
    values["cells"] = tuple(PlannedCell(**cell) for cell in values["cells"])
    values["factors"] = {name: tuple(levels) for name, levels in values["factors"].items()}
    for name in ("seeds", "tables", "metrics"):
        values[name] = tuple(values[name])
    return Manifest(**values)


def _read_row(store: Store, name: str) -> dict[str, Any]:
    table = pq.ParquetFile(pa.BufferReader(store.read(name))).read(use_threads=False)
    if table.num_rows != 1:
        raise LedgerError(f"{table.num_rows} rows instead of 1")
    version = table["schema_version"][0].as_py() if "schema_version" in table.column_names else None
    if version != SCHEMA_VERSION:
        raise LedgerError(f"schema version {version}, this code reads {SCHEMA_VERSION}")
    row = table.cast(CELL_SCHEMA).to_pylist(maps_as_pydicts="strict")[0]
    if row["key"] != name.rpartition("/")[2].removesuffix(".parquet"):
        raise LedgerError(f"holds the cell {row['key']}")
    return row


def read_rows(
    store: Store, folder: str, keys: set[str]
) -> tuple[dict[str, dict[str, Any]], list[tuple[str, str]]]:
    """Rows of `folder` by key, and the files that could not be read with the reason."""
    rows: dict[str, dict[str, Any]] = {}
    damaged: list[tuple[str, str]] = []
    for name in store.names(folder, ".parquet"):
        key = name.removesuffix(".parquet")
        if key not in keys:
            continue
        try:
            rows[key] = _read_row(store, f"{folder}/{name}")
        except (LedgerError, pa.ArrowInvalid, pa.ArrowTypeError, OSError, KeyError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            damaged.append((f"{folder}/{name}", reason))
    return rows, damaged


def quarantine_damaged(store: Store, keys: set[str]) -> list[tuple[str, str]]:
    """Move every unreadable cell among `keys` to `quarantine/`, so that it is computed again.

    Returns the names with the reasons; nothing is deleted.
    """
    _, damaged = read_rows(store, "cells", keys)
    for name, _ in damaged:
        store.move(name, f"quarantine/{name.rpartition('/')[2]}")
    return damaged


def read_ledger(root: str) -> Ledger:
    """The study in the folder or URI `root`, as a frame.

    Raises:
        LedgerError: no manifest, or one this code does not know.
    """
    store = Store(root)
    manifest = read_manifest(store)
    planned = {cell.key for cell in manifest.cells}
    done, damaged = read_rows(store, "cells", planned)
    failed, damaged_failures = read_rows(store, "failures", planned - set(done))
    rows = []
    for cell in manifest.cells:
        row = done.get(cell.key) or failed.get(cell.key) or {}
        entry: dict[str, Any] = {"key": cell.key, "arm": cell.arm, "seed": cell.seed}
        entry |= {f"factor.{name}": level for name, level in cell.levels.items()}
        entry["status"] = row.get("status", "missing")
        metrics = row.get("metrics") or {}
        names = [m["name"] for m in manifest.metrics]
        names += [name for name in metrics if name not in names]
        entry |= {f"metric.{name}": metrics.get(name, np.nan) for name in names}
        for name in CELL_SCHEMA.names:
            if name not in ("key", "arm", "seed", "status", "metrics", "levels"):
                entry[name] = row.get(name)
        rows.append(entry)
    frame = pd.DataFrame(rows)
    return Ledger(
        store=store, manifest=manifest, cells=frame, damaged=tuple(damaged + damaged_failures)
    )


def read_predictions(store: Store, key: str) -> pd.DataFrame:
    """Per-example predictions of one cell: split, id, group, label, probabilities (list)."""
    content = io.BytesIO(store.read(f"predictions/{key}.parquet"))
    return pq.ParquetFile(content).read(use_threads=False).to_pandas()


def read_artifacts(store: Store, key: str) -> dict[str, np.ndarray]:
    """The small arrays of one cell; empty where it has none."""
    name = f"artifacts/{key}.npz"
    if not store.exists(name):
        return {}
    with np.load(io.BytesIO(store.read(name)), allow_pickle=False) as arrays:
        return dict(arrays)
