"""Per-example predictions: a file per cell, or many cells in one compacted file."""

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sweeps.ledger.cells import (
    COMPACT,
    UNREADABLE,
    compact_names,
    read_table,
    reason,
    single_names,
)
from sweeps.ledger.files import Store, StoreError
from sweeps.ledger.schema import PREDICTION_SCHEMA, LedgerError

FOLDER = "predictions"
KEYED_SCHEMA = pa.schema([pa.field("key", pa.string(), nullable=False), *PREDICTION_SCHEMA])
"""A compacted file's columns: whose prediction it is, then those of a single file."""
BLOCK_ROWS = 65_536
"""Rows in a block of a compacted file, whole cells: what one damaged byte can cost."""
FILE_ROWS = 1_000_000
"""Rows in a compacted file, which bounds the memory that compaction takes."""
LISTED = b"cells"
"""In a compacted file's metadata: for each block the keys it holds, with their rows."""


SUSPECTS = "suspects"
"""Folder of notes, one a cell: somebody who only reads found its predictions damaged. The next run
looks at them, so that no run has to read the predictions of all cells to see that they are whole.
"""


class DamagedPredictions(LedgerError):
    """A cell's predictions are damaged, missing, or another cell's."""


def digest(table: pa.Table) -> str:
    """SHA-256 of what predictions say, whatever file they are in.

    Args:
        table: a cell's predictions, in the columns and types of PREDICTION_SCHEMA.
    """
    sha = hashlib.sha256(str(len(table)).encode())
    for field in PREDICTION_SCHEMA:
        column = table[field.name].combine_chunks()
        if not len(column):
            continue
        if pa.types.is_list(field.type):
            sha.update(pc.list_value_length(column).to_numpy().tobytes())
            column = column.flatten()
        elif pa.types.is_string(field.type):
            starts = np.frombuffer(column.buffers()[1], np.int32)
            starts = starts[column.offset : column.offset + len(column) + 1]
            sha.update(np.diff(starts).tobytes())
            text = column.buffers()[2]
            if text is not None:
                sha.update(memoryview(text)[starts[0] : starts[-1]])
            continue
        sha.update(column.to_numpy(zero_copy_only=False).tobytes())
    return sha.hexdigest()


class PredictionReader:
    """The predictions of one study's cells; what is compacted is looked up once.

    A cell that is there both singly and compacted is read from its own file.

    Args:
        store: the study's folder.
        stated: key → `predictions_sha256` of the cell's row: what is read must have that digest.
            Cells that are not among them, or have None, are taken as they are.
    """

    def __init__(self, store: Store, stated: Mapping[str, str | None] | None = None) -> None:
        self.store = store
        self._stated = stated or {}
        self._quiet = False
        self._places: dict[str, tuple[str, int]] = {}
        self._indexed: list[str] | None = None
        self._damaged: list[tuple[str, str]] = []
        self._last: tuple[tuple[str, int], pa.Table] | None = None

    def read(self, key: str) -> pd.DataFrame:
        """Of one cell: split, id, group, label, probabilities (list).

        Raises:
            FileNotFoundError: the cell has none.
            DamagedPredictions: they are damaged, missing or another cell's; the next run of the
                study looks at them too, and computes the cell again.
            StoreError: they cannot be read, which says nothing about them.
        """
        return self.table(key).to_pandas()

    def table(self, key: str) -> pa.Table:
        """As `read`, in the schema's types."""
        try:
            return self.checked(key)
        except DamagedPredictions as error:
            self._note(key, str(error))
            raise

    def _note(self, key: str, why: str) -> None:
        try:
            if not self._quiet:
                self.store.write(f"{SUSPECTS}/{key}", why.encode())
        except OSError:  # a ledger that may only be read
            self._quiet = True

    def checked(self, key: str) -> pa.Table:
        """As `table`, leaving no note of what is damaged."""
        stated = self._stated.get(key)
        if stated == "":
            raise FileNotFoundError(f"{FOLDER}/{key}.parquet")
        name = f"{FOLDER}/{key}.parquet"
        try:
            table = read_single(self.store, name)
        except FileNotFoundError:
            try:
                table = self.compacted(key)
            except FileNotFoundError:
                if stated is None:
                    raise
                raise _damaged(self.store, name, "missing") from None
        if stated is not None and digest(table) != stated:
            raise _damaged(self.store, name, "not what the cell's row states")
        return table

    def compacted(self, key: str) -> pa.Table:
        """As `table`, of what is compacted alone."""
        if key not in self._places and key not in self.places():
            if self._damaged:  # the cell's predictions may be in what cannot be read
                where, why = self._damaged[0]
                raise _damaged(self.store, where, why)
            raise FileNotFoundError(f"{FOLDER}/{key}.parquet")
        place = self._places[key]
        if self._last is None or self._last[0] != place:
            leaf, block = place
            try:
                self._last = place, _open(self.store, leaf).read_row_group(block, use_threads=False)
            except StoreError:
                raise
            except UNREADABLE as error:
                raise _damaged(self.store, f"{FOLDER}/{leaf}", reason(error)) from None
        rows = self._last[1].filter(pc.equal(self._last[1]["key"], key))
        return rows.drop_columns("key").cast(PREDICTION_SCHEMA).combine_chunks()

    def places(self) -> Mapping[str, tuple[str, int]]:
        """Key → (file, block) of all that is compacted and can be read."""
        # Compaction may have taken a single file away since the last look.
        leaves = compact_names(self.store, FOLDER)
        if leaves != self._indexed:
            self._damaged = []
            self._places = dict(self._index(leaves))
            self._indexed = leaves
        return self._places

    def broken(self) -> set[str]:
        """Leaf names of the compacted files of which something cannot be read."""
        self.places()
        return {name.rpartition("/")[2] for name, _ in self._damaged}

    def _index(self, leaves: list[str]) -> Iterator[tuple[str, tuple[str, int]]]:
        """(key, (file, block)) of all that is compacted, from the key columns themselves."""
        for leaf in leaves:
            try:
                file = _open(self.store, leaf)
                listed = json.loads(file.schema_arrow.metadata[LISTED])
            except StoreError:
                raise
            except (*UNREADABLE, TypeError) as error:
                self._damaged.append((f"{FOLDER}/{leaf}", reason(error)))
                continue
            for block in range(max(file.num_row_groups, len(listed))):
                try:
                    keys = file.read_row_group(block, columns=["key"], use_threads=False)["key"]
                    counted = pc.value_counts(keys.combine_chunks().dictionary_decode())
                    # A page's header has no checksum: what it says is held against the list.
                    if [list(pair.values()) for pair in counted.to_pylist()] != listed[block]:
                        raise LedgerError(f"block {block + 1} does not hold the cells it lists")
                except StoreError:
                    raise
                except (*UNREADABLE, IndexError) as error:
                    self._damaged.append((f"{FOLDER}/{leaf}", reason(error)))
                    continue
                for key, _ in listed[block]:
                    yield key, (leaf, block)


def read_predictions(store: Store, key: str) -> pd.DataFrame:
    """Per-example predictions of one cell; for many cells use one `PredictionReader`.

    Raises:
        FileNotFoundError: the cell has none.
        DamagedPredictions: as `PredictionReader.read`.
    """
    rows, _ = read_table(store, "cells", {key}, ["predictions_sha256"])
    stated = dict(zip(rows["key"].to_pylist(), rows["predictions_sha256"].to_pylist(), strict=True))
    return PredictionReader(store, stated).read(key)


def predicted_keys(store: Store) -> set[str]:
    """Keys of the cells that have predictions: of single files from their names, of compacted ones
    from what they list. Whether they can be read is another question.
    """
    keys = {name.removesuffix(".parquet") for name in single_names(store, FOLDER)}
    # After the single ones: whatever compaction removes meanwhile is in a compacted file by then.
    return keys.union(*(listed_keys(store, leaf) for leaf in compact_names(store, FOLDER)))


def listed_keys(store: Store, leaf: str) -> set[str]:
    """The cells that a compacted file lists; none where that cannot be read."""
    try:
        listed = json.loads(_open(store, leaf).schema_arrow.metadata[LISTED])
        return {key for block in listed for key, _ in block}
    except StoreError:
        raise
    except (*UNREADABLE, TypeError):
        return set()


def read_single(store: Store, name: str) -> pa.Table:
    """The predictions in the single file `name`.

    Raises:
        FileNotFoundError: it is not there.
        DamagedPredictions: damaged, or another file.
        StoreError: it cannot be read, which says nothing about it.
    """
    try:
        content = store.read(name)
    except IsADirectoryError as error:
        raise _damaged(store, name, reason(error)) from None
    try:
        file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        table = file.read(use_threads=False)
        if table.schema.names != PREDICTION_SCHEMA.names:
            raise LedgerError(f"columns {', '.join(table.schema.names)}")
        return table.cast(PREDICTION_SCHEMA)
    except UNREADABLE as error:
        raise _damaged(store, name, reason(error)) from None


def _damaged(store: Store, name: str, why: str) -> DamagedPredictions:
    return DamagedPredictions(
        f"{name} in {store.root} is damaged ({why}); run the study's script again, which computes "
        "the cell anew"
    )


def _open(store: Store, leaf: str) -> pq.ParquetFile:
    """A compacted file; only what is asked for is fetched."""
    source = store.open(f"{FOLDER}/{leaf}")
    file = pq.ParquetFile(source, page_checksum_verification=True, read_dictionary=["key"])
    if file.schema_arrow.names != KEYED_SCHEMA.names:
        raise LedgerError(f"columns {', '.join(file.schema_arrow.names)}")
    return file


def drop_compacted(store: Store, leaf: str, keys: set[str]) -> None:
    """Write what can be read of a compacted file to a new one, but for `keys`; the old one is for
    the caller to move away.
    """
    reader = PredictionReader(store)
    cells = {}
    for key, (place, _) in reader.places().items():
        if place == leaf and key not in keys:
            with contextlib.suppress(DamagedPredictions):
                cells[key] = reader.compacted(key)
    if cells:
        _write(store, cells)


def compact_predictions(store: Store) -> int:
    """Put the single files of predictions into compacted ones; damaged ones stay where they are.

    Call it while holding the ledger's lock.

    Returns:
        how many single files went.

    Raises:
        LedgerError: a compacted file does not hold what was written; no single file is gone then.
    """
    gone = 0
    for cells in _batches(store):
        leaf = _write(store, cells)
        reader = PredictionReader(store)
        for key, table in cells.items():
            if not reader.compacted(key).equals(table):
                raise LedgerError(
                    f"{FOLDER}/{leaf} does not read back as written; the single files are still "
                    "there. Check the disk, remove that file and run again"
                )
        for key in cells:
            store.delete(f"{FOLDER}/{key}.parquet")
            gone += 1
    return gone


def _batches(store: Store) -> Iterator[dict[str, pa.Table]]:
    """Cells in the order of their keys, FILE_ROWS rows at a time."""
    cells: dict[str, pa.Table] = {}
    rows = 0
    for leaf in single_names(store, FOLDER):
        try:
            table = read_single(store, f"{FOLDER}/{leaf}")
        except (LedgerError, FileNotFoundError):
            continue  # `check` names it
        if not table.num_rows:
            continue
        cells[leaf.removesuffix(".parquet")] = table.combine_chunks()
        rows += table.num_rows
        if rows >= FILE_ROWS:
            yield cells
            cells, rows = {}, 0
    if cells:
        yield cells


def _write(store: Store, cells: dict[str, pa.Table]) -> str:
    """One compacted file, its blocks holding whole cells; returns its leaf name."""
    blocks: list[dict[str, pa.Table]] = []
    rows = BLOCK_ROWS
    for key, table in cells.items():
        if rows >= BLOCK_ROWS:
            blocks.append({})
            rows = 0
        blocks[-1][key] = table
        rows += table.num_rows
    listed = [[[key, table.num_rows] for key, table in block.items()] for block in blocks]
    schema = KEYED_SCHEMA.with_metadata({LISTED: json.dumps(listed).encode()})
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer:
        for block in blocks:
            keyed = [
                table.add_column(
                    0, KEYED_SCHEMA.field("key"), pa.array([key] * table.num_rows, pa.string())
                )
                for key, table in block.items()
            ]
            writer.write_table(
                pa.concat_tables(keyed).replace_schema_metadata(schema.metadata),
                row_group_size=2**30,
            )
    name = hashlib.sha256("\n".join(cells).encode()).hexdigest()[:32]
    leaf = f"{COMPACT}{name}.parquet"
    store.write(f"{FOLDER}/{leaf}", sink.getvalue())
    return leaf
