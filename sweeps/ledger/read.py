"""Reading: which cells are there, and the frame that analysis works on."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sweeps.ledger.books import MANIFEST_BOOK, VERSION_BOOK, Damaged, content_of
from sweeps.ledger.cells import (
    committed_keys,
    failed_keys,
    read_rows,
    read_table,
)
from sweeps.ledger.files import Store
from sweeps.ledger.predictions import PredictionReader, read_predictions
from sweeps.ledger.quarantine import quarantine_damaged
from sweeps.ledger.schema import (
    CELL_SCHEMA,
    SCHEMA_VERSION,
    LedgerError,
    Manifest,
)

__all__ = [
    "Ledger",
    "PredictionReader",
    "committed_keys",
    "failed_keys",
    "quarantine_damaged",
    "read_artifacts",
    "read_ledger",
    "read_manifest",
    "read_metric",
    "read_predictions",
    "read_rows",
    "read_table",
]


MANIFEST = "study.json"


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Everything analysis needs of one study.

    Attributes:
        manifest: what was declared and planned.
        cells: one row per *planned* cell, sorted by (plan order of the arm, seed). Columns: `key`,
            `arm`, `seed`, one `factor.<name>` column per factor, `status` ("ok", "failed",
            "missing"), one `metric.<name>` column per metric (NaN unless ok), and the provenance
            columns of the schema (config as text, host, started, wall_s, …; missing where the
            cell is). `curves`, `versions` and `stage_keys` hold a dict per row; `fused` is 1 where
            nothing was, the peaks of memory NA where nobody said.
        damaged: names of files that could not be read, with the reason.
    """

    store: Store
    manifest: Manifest
    cells: pd.DataFrame
    damaged: tuple[tuple[str, str], ...]

    def predictions(self) -> PredictionReader:
        """The predictions of its cells, each held against the digest that the cell's row states."""
        stated = self.cells.loc[self.cells["status"] == "ok", ["key", "predictions_sha256"]]
        pairs = stated.astype(object).where(stated.notna(), None)
        return PredictionReader(self.store, dict(pairs.itertuples(index=False)))


def read_manifest(store: Store) -> Manifest:
    """`study.json`.

    Raises:
        LedgerError: there is none, it is damaged, or a version this code does not know.
    """
    what = f"{MANIFEST} in {store.root}"
    try:
        content = content_of(store, MANIFEST)
        if content is None:
            raise LedgerError(
                f"no study.json in {store.root}: not a study's results; name a folder that a "
                "script of sweeps/ has written"
            )
        version = VERSION_BOOK.parse(what, content)
        if version.schema_version != SCHEMA_VERSION:
            raise LedgerError(
                f"study.json in {store.root} has schema version {version.schema_version}, this "
                f"code reads {SCHEMA_VERSION}; use the code that wrote it"
            )
        return MANIFEST_BOOK.parse(what, content)
    except Damaged as error:
        raise LedgerError(f"{error}; run the study's script again, which writes it anew") from None


def _metric_columns(table: pa.Table, rows: np.ndarray) -> dict[str, np.ndarray]:
    """metric → (len(rows),) values of `table` at `rows` (−1: no such cell), NaN where absent."""
    maps = table["metrics"].combine_chunks()
    if isinstance(maps, pa.ChunkedArray):
        maps = maps.chunk(0) if maps.num_chunks else pa.array([], maps.type)
    counts = np.diff(maps.offsets.to_numpy())
    owner = np.repeat(np.arange(len(maps)), counts)
    first, last = (maps.offsets[0].as_py(), maps.offsets[-1].as_py()) if len(maps) else (0, 0)
    names = maps.keys.slice(first, last - first).to_numpy(zero_copy_only=False)
    values = maps.items.slice(first, last - first).to_numpy(zero_copy_only=False)
    columns = {}
    for name in dict.fromkeys(names):
        column = np.full(len(maps) + 1, np.nan)  # the last place answers for −1
        chosen = names == name
        column[owner[chosen]] = values[chosen]
        columns[str(name)] = column[rows]
    return columns


def read_metric(store: Store, keys: set[str], metric: str) -> dict[str, float]:
    """Key → the metric of each cell among `keys` that is there.

    Raises:
        KeyError: none of these cells has such a metric.
    """
    table, _ = read_table(store, "cells", keys, ["metrics"])
    if not table.num_rows:
        return {}
    values = _metric_columns(table, np.arange(table.num_rows))[metric]
    return dict(zip(table["key"].to_pylist(), values.tolist(), strict=True))


DETAILS = ("curves", "versions", "stage_keys", "traceback")
"""What tables do not need and a large ledger has much of: left out by `details=False`."""


def _mappings(column: pa.ChunkedArray) -> list[dict[str, Any] | None]:
    """A column of maps, each as a dict, None where there is none.

    Made of flat columns: pyarrow's own way, value by value, takes longer than all else of a ledger.
    """
    found: list[dict[str, Any] | None] = []
    for maps in column.chunks:
        ends = maps.offsets.to_pylist()
        keys, items = (_shared(flat.slice(0, ends[-1])) for flat in (maps.keys, maps.items))
        spans = zip(ends, ends[1:], maps.is_valid().to_pylist(), strict=False)
        found += [
            dict(zip(keys[a:b], items[a:b], strict=True)) if there else None
            for a, b, there in spans
        ]
    return found


def _shared(flat: pa.Array) -> list[Any]:
    """A flat column as a list; of texts, each once in memory however often it occurs."""
    if pa.types.is_string(flat.type):
        codes = flat.dictionary_encode()
        texts = codes.dictionary.to_pylist()
        return [None if code is None else texts[code] for code in codes.indices.to_pylist()]
    if pa.types.is_list(flat.type):
        ends = flat.offsets.to_pylist()
        values = flat.values.to_pylist()
        spans = zip(ends, ends[1:], flat.is_valid().to_pylist(), strict=False)
        return [values[a:b] if there else None for a, b, there in spans]
    return list(flat.to_pylist())


def _plain(name: str, column: pa.ChunkedArray) -> pd.Series:
    """A column without lists or maps; numbers that may be absent stay whole ones."""
    if name == "fused":
        return column.fill_null(1).to_pandas()
    if pa.types.is_integer(column.type) and CELL_SCHEMA.field(name).nullable:
        return column.to_pandas(types_mapper={column.type: pd.Int64Dtype()}.get)
    return column.to_pandas()


def read_ledger(root: str, *, details: bool = True) -> Ledger:
    """The study in the folder or URI `root`, as a frame.

    Args:
        root: the study's folder.
        details: whether the columns of DETAILS come along; tables do without.

    Raises:
        LedgerError: no manifest, or one this code does not know.
    """
    store = Store(root)
    manifest = read_manifest(store)
    keys = [cell.key for cell in manifest.cells]
    columns = [n for n in CELL_SCHEMA.names if details or n not in DETAILS]
    done, damaged = read_table(store, "cells", set(keys), columns)
    missing = set(keys) - set(done["key"].to_pylist())
    failed, damaged_failures = read_table(store, "failures", missing, columns)
    table = pa.concat_tables([done, failed]).combine_chunks()
    rows = pd.Index(table["key"].to_pandas()).get_indexer(keys)

    levels = list(dict.fromkeys(name for cell in manifest.cells for name in cell.levels))
    frame: dict[str, Any] = {
        "key": keys,
        "arm": [cell.arm for cell in manifest.cells],
        "seed": [cell.seed for cell in manifest.cells],
    }
    for name in levels:
        frame[f"factor.{name}"] = [cell.levels.get(name) for cell in manifest.cells]
    taken = table.take(pa.array(rows, mask=rows < 0))
    frame["status"] = taken["status"].fill_null("missing").to_pandas()
    metrics = _metric_columns(table, rows)
    declared = [str(m["name"]) for m in manifest.metrics]
    for name in [*declared, *(n for n in metrics if n not in declared)]:
        frame[f"metric.{name}"] = metrics.get(name, np.full(len(keys), np.nan))
    for name in columns:
        if name not in ("key", "arm", "seed", "status", "metrics", "levels"):
            nested = pa.types.is_nested(CELL_SCHEMA.field(name).type)
            frame[name] = (
                pd.Series(_mappings(taken[name]), dtype=object)
                if nested
                else _plain(name, taken[name])
            )
    return Ledger(
        store=store,
        manifest=manifest,
        cells=pd.DataFrame(frame),
        damaged=tuple(damaged + damaged_failures),
    )


def read_artifacts(store: Store, key: str) -> dict[str, np.ndarray]:
    """The small arrays of one cell; empty where it has none."""
    name = f"artifacts/{key}.npz"
    try:
        content = store.read(name)
    except FileNotFoundError:
        return {}
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)
