"""Per-example predictions: a file per cell, or many cells in one compacted file."""

import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sweeps.ledger.cells import (
    UNREADABLE,
    compact_names,
    made_of,
    read_table,
    reason,
    single_keys,
)
from sweeps.ledger.files import Store, StoreError
from sweeps.ledger.keyed import (
    FOLDER,
    Listed,
    block_of,
    check_keys,
    listed,
    listed_rows,
    of_cell,
    opened,
    write_keyed,
)
from sweeps.ledger.schema import PREDICTION_SCHEMA, LedgerError

BLOCKS_KEPT = 16
"""Blocks of compacted files that a reader keeps, of some 5 MB each."""

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
    """The predictions of one study's cells; what there is is looked up once.

    A cell that is there both singly and compacted is read from its own file, unless that is not
    what the cell's row states: then a worker that was thought dead has written it again.

    Args:
        store: the study's folder.
        stated: key → `predictions_sha256` of the cell's row: what is read must have that digest.
            Cells that are not among them, or have None, are taken as they are.
    """

    def __init__(self, store: Store, stated: Mapping[str, str | None] | None = None) -> None:
        self.store = store
        self._stated = stated or {}
        self._quiet = False
        self._singles: set[str] | None = None
        self._fetched: dict[str, pa.Table | str | None] = {}
        self._files: dict[str, tuple[pq.ParquetFile | None, Listed]] = {}
        self._places: dict[str, tuple[str, int]] = {}
        self._indexed: list[str] | None = None
        self._damaged: list[tuple[str, str]] = []
        self._blocks: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()

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

    def fetch(self, keys: Iterable[str]) -> None:
        """Read those of `keys` that have a file of their own side by side, for whoever asks for
        all of them next. A local folder is read as fast one by one, and left alone.
        """
        if not self.store.local:
            wanted = [k for k in keys if k in self._own_files() and self._stated.get(k) != ""]
            read = self.store.each(lambda key: read_one(self.store, key), wanted)
            self._fetched.update(zip(wanted, read, strict=True))

    def checked(self, key: str) -> pa.Table:
        """As `table`, leaving no note of what is damaged."""
        stated = self._stated.get(key)
        name = f"{FOLDER}/{key}.parquet"
        if stated == "":
            raise FileNotFoundError(name)
        wrong: DamagedPredictions | None = None
        for find in (self._own, self.compacted, self._come_since):
            try:
                table = find(key)
            except FileNotFoundError:
                continue
            except DamagedPredictions as error:
                wrong = wrong or error
                continue
            if stated in (None, digest(table)):
                return table
            wrong = wrong or _damaged(self.store, name, "not what the cell's row states")
        if wrong is None and stated is None:
            raise FileNotFoundError(name)
        raise wrong or _damaged(self.store, name, "missing")

    def _own_files(self) -> set[str]:
        if self._singles is None:
            self._singles = single_keys(self.store, FOLDER)
        return self._singles

    def _own(self, key: str) -> pa.Table:
        """Of the cell's own file, where there was one when this reader first looked."""
        name = f"{FOLDER}/{key}.parquet"
        if key not in self._own_files():
            raise FileNotFoundError(name)
        found = self._fetched.pop(key) if key in self._fetched else read_one(self.store, key)
        return _there(self.store, name, found)

    def _come_since(self, key: str) -> pa.Table:
        """Of the cell's own file, where it has come since this reader first looked."""
        name = f"{FOLDER}/{key}.parquet"
        if key in self._own_files():
            raise FileNotFoundError(name)
        return read_single(self.store, name)

    def compacted(self, key: str) -> pa.Table:
        """As `table`, of what is compacted alone."""
        while True:
            if key not in self._places and key not in self.places():
                if self._damaged:  # the cell's predictions may be in what cannot be read
                    where, why = self._damaged[0]
                    raise _damaged(self.store, where, why)
                raise FileNotFoundError(f"{FOLDER}/{key}.parquet")
            leaf, block = self._places[key]
            try:
                return of_cell(self._block(leaf, block), key)
            except FileNotFoundError:  # it is part of a larger file now
                self._places, self._indexed = {}, None
                self._files.pop(leaf, None)
            except StoreError:
                raise
            except UNREADABLE as error:
                raise _damaged(self.store, f"{FOLDER}/{leaf}", reason(error)) from None

    def _block(self, leaf: str, block: int) -> pa.Table:
        found = self._blocks.pop((leaf, block), None)
        if found is None:
            file, cells = self._files[leaf]
            found = block_of(file or opened(self.store, leaf), block, cells[block])
        self._blocks[leaf, block] = found
        if len(self._blocks) > BLOCKS_KEPT:
            self._blocks.popitem(last=False)
        return found

    def places(self) -> Mapping[str, tuple[str, int]]:
        """Key → (file, block) of all that is compacted and lists what it holds."""
        # Compaction may have taken a single file away since the last look.
        leaves = compact_names(self.store, FOLDER)
        while leaves != self._indexed:
            self._places, self._damaged = {}, []
            for leaf, found in zip(leaves, self.store.each(self._looked_at, leaves), strict=True):
                if isinstance(found, str):
                    self._damaged.append((f"{FOLDER}/{leaf}", found))
                elif found is not None:
                    self._files[leaf] = found
                    of = ((key, at) for at, block in enumerate(found[1]) for key, _ in block)
                    self._places.update((key, (leaf, at)) for key, at in of)
            self._indexed = leaves
            leaves = compact_names(self.store, FOLDER)
        return self._places

    def _looked_at(self, leaf: str) -> tuple[pq.ParquetFile | None, Listed] | str | None:
        """A compacted file and what it lists; why it does not; None where it has gone."""
        if leaf in self._files:
            return self._files[leaf]
        try:
            file = opened(self.store, leaf)
            # Of an object store what is known of the file saves asking; a local one stays closed.
            return None if self.store.local else file, listed(file, leaf)
        except StoreError:
            raise
        except FileNotFoundError:
            return None
        except (*UNREADABLE, TypeError) as error:
            return reason(error)

    def broken(self) -> set[str]:
        """Leaf names of the compacted files of which something is not what it should be."""
        self.places()
        found = {name.rpartition("/")[2] for name, _ in self._damaged}
        leaves = [leaf for leaf in self._indexed or () if leaf not in found]
        return found.union(*self.store.each(self._wrong_keys, leaves))

    def _wrong_keys(self, leaf: str) -> set[str]:
        """`leaf`, where a block of it does not hold the cells it lists."""
        file, blocks = self._files[leaf]
        try:
            file = file or opened(self.store, leaf)
            for number in range(max(file.num_row_groups, len(blocks))):
                check_keys(file, number, blocks[number])
        except StoreError:
            raise
        except (*UNREADABLE, IndexError):
            return {leaf}
        return set()


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
    keys = single_keys(store, FOLDER)
    # After the single ones: whatever compaction removes meanwhile is in a compacted file by then.
    return keys.union(PredictionReader(store).places())


def listed_keys(store: Store, leaf: str) -> set[str]:
    """The cells that a compacted file lists; none where that cannot be read."""
    return set(listed_rows(store, leaf))


def read_single(store: Store, name: str) -> pa.Table:
    """The predictions in the single file `name`.

    Raises:
        FileNotFoundError: it is not there.
        DamagedPredictions: damaged, or another file.
        StoreError: it cannot be read, which says nothing about it.
    """
    return _there(store, name, _made(store, name))


def read_one(store: Store, key: str) -> pa.Table | str | None:
    """What the cell's own file holds, why it is damaged, or None where there is none."""
    return _made(store, f"{FOLDER}/{key}.parquet")


def _made(store: Store, name: str) -> pa.Table | str | None:
    """The predictions in a single file, why it is damaged, or None where it is not there."""

    def make(content: bytes) -> pa.Table:
        file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        table = file.read(use_threads=False)
        if table.schema.names != PREDICTION_SCHEMA.names:
            raise LedgerError(f"columns {', '.join(table.schema.names)}")
        return table.cast(PREDICTION_SCHEMA)

    return made_of(store, name, make)


def _there(store: Store, name: str, found: pa.Table | str | None) -> pa.Table:
    if found is None:
        raise FileNotFoundError(name)
    if isinstance(found, str):
        raise _damaged(store, name, found)
    return found


def _damaged(store: Store, name: str, why: str) -> DamagedPredictions:
    return DamagedPredictions(
        f"{name} in {store.root} is damaged ({why}); run the study's script again, which computes "
        "the cell anew"
    )


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
        write_keyed(store, cells)
