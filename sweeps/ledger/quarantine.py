"""What is damaged, or is not what its key says, goes to `quarantine/` and is computed again."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from sweeps.ledger.cells import COMPACT, read_compact, read_each, single_names, write_compact
from sweeps.ledger.files import Store
from sweeps.ledger.keyed import FOLDER
from sweeps.ledger.predictions import (
    SUSPECTS,
    DamagedPredictions,
    PredictionReader,
    drop_compacted,
    listed_keys,
    predicted_keys,
)
from sweeps.ledger.schema import CELL_SCHEMA

QUARANTINE = "quarantine"


def quarantine_damaged(store: Store, keys: set[str]) -> list[tuple[str, str]]:
    """Move every cell among `keys` that is unreadable, not what its key says or without the
    predictions that its row states to `quarantine/`, so that it is computed again; and every such
    failure, whatever its key.

    Predictions are looked for, not read, but for those that somebody found damaged while reading
    (`PredictionReader`). Of a compacted file the rest is written to a new one first. Nothing is
    deleted, and nothing is touched before every file has been read.

    Call it while holding the ledger's lock.

    Returns the names with the reasons.

    Raises:
        StoreError: a file cannot be read, which says nothing about it.
    """
    damaged: list[tuple[str, str]] = []
    held: list[tuple[str, list[str]]] = []  # a file and the keys of its rows
    said: dict[str, str | None] = {}
    for name, tables, broken in read_each(store, "cells", keys, CELL_SCHEMA.names, every=True):
        damaged += broken
        for table in tables:
            rows = table["key"].to_pylist()
            held.append((name, rows))
            said.update(zip(rows, table["predictions_sha256"].to_pylist(), strict=True))
    stated = {key: sha for key, sha in said.items() if key in keys}
    failures = {leaf.removesuffix(".parquet") for leaf in single_names(store, "failures")}
    for _, _, broken in read_each(store, "failures", failures, CELL_SCHEMA.names, every=True):
        damaged += broken
    noted = suspected(store)
    lost, unreadable = _lost_predictions(store, stated, noted)
    places: dict[str, list[str]] = {key: [] for key in lost}  # the files that hold its row
    for name, rows in held if lost else ():
        for key in lost.keys() & rows:
            places[key].append(name)
    for key, why in lost.items():
        damaged += [
            (name, f"cell {key}: {why}" if COMPACT in name else why) for name in places[key]
        ]
    for name in dict.fromkeys(name for name, _ in damaged):
        folder, _, leaf = name.rpartition("/")
        if leaf.startswith(COMPACT):
            found = read_compact(store, leaf, CELL_SCHEMA.names, folder, every=True)
            whole, _ = found or ([], [])
            _write_without(store, folder, whole, lost)
        _set_aside(store, name, leaf)
    # After the rows: whatever happens in between, the cells are missing and computed again.
    single = set(single_names(store, FOLDER)) if lost else set()
    for key in sorted(lost):
        if f"{key}.parquet" in single:
            _set_aside(store, f"{FOLDER}/{key}.parquet", f"{FOLDER}-{key}.parquet")
    for leaf in unreadable:
        drop_compacted(store, leaf, set(lost))
        _set_aside(store, f"{FOLDER}/{leaf}", f"{FOLDER}{leaf}")
    for key in noted:
        store.delete(f"{SUSPECTS}/{key}")
    return damaged


def suspected(store: Store) -> set[str]:
    """Keys of the cells whose predictions somebody found damaged while reading them."""
    return set(store.names(SUSPECTS, ""))


def _lost_predictions(
    store: Store, stated: Mapping[str, str | None], noted: set[str]
) -> tuple[dict[str, str], list[str]]:
    """Key → why its predictions are not there, and the compacted files to set aside for it.

    Args:
        stated: `predictions_sha256` of the cells that are there.
        noted: keys whose predictions are read to see.
    """
    expected = {key for key, sha in stated.items() if sha}
    missing = expected - predicted_keys(store) if expected else set()
    lost = dict.fromkeys(sorted(missing), "its predictions are missing")
    suspects = (noted & stated.keys()) - missing
    if not suspects and not missing:
        return lost, []
    reader = PredictionReader(store, stated)
    broken = sorted(reader.broken())
    for leaf in broken:  # its other cells too, before it goes
        suspects |= listed_keys(store, leaf) & stated.keys()
    for key in sorted(suspects):
        try:
            reader.checked(key)
        except FileNotFoundError:
            continue
        except DamagedPredictions as error:
            lost[key] = str(error).partition(";")[0]
    places = reader.places()
    held = {places[key][0] for key in lost if key in places}
    if None in stated.values():  # its predictions may be in a file that does not say whose it holds
        broken = [leaf for leaf in broken if listed_keys(store, leaf)]
    return lost, sorted(held.union(broken))


def _write_without(
    store: Store, folder: str, tables: list[pa.Table], lost: Mapping[str, str]
) -> None:
    if not tables:
        return
    table = pa.concat_tables(tables).select(CELL_SCHEMA.names)
    if folder == "cells" and lost:
        bad = pc.is_in(table["key"], value_set=pa.array(list(lost), pa.string()))
        table = table.filter(pc.invert(bad))
    if table.num_rows:
        write_compact(store, table, folder)


def _set_aside(store: Store, name: str, leaf: str) -> None:
    """Move the file `name` to `quarantine/`, where nothing that is there already goes."""
    there = set(store.names(QUARANTINE, ""))
    stem, dot, suffix = leaf.partition(".")
    numbered = (f"{stem}-{number}{dot}{suffix}" for number in range(2, len(there) + 3))
    store.move(name, f"{QUARANTINE}/{next(x for x in (leaf, *numbered) if x not in there)}")
