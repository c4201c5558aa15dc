"""What compaction puts together: cells and predictions, which are kept in one way each."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeGuard

import pyarrow as pa

from sweeps.ledger import keyed
from sweeps.ledger.cells import read_compact, read_singles, write_compact
from sweeps.ledger.files import Store
from sweeps.ledger.predictions import read_one
from sweeps.ledger.schema import CELL_SCHEMA, LedgerError

FILE_ROWS = 1_000_000
"""Rows in a compacted file of predictions, which bounds the memory that compaction takes."""
CHUNK = 512
"""Single files read at a time."""


class Shelf(Protocol):
    """A folder of single files, one a cell, and of compacted ones.

    Attributes:
        folder: its name.
        full: the size of a compacted file that is not put together with others any more.
    """

    folder: str
    full: int

    def singles(self, keys: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
        """Key and content of the single files that are whole and hold something."""

    def sizes(self, leaf: str) -> Mapping[str, int]:
        """Key → its part of the size of a compacted file; nothing where that cannot be read."""

    def content(self, leaf: str) -> tuple[dict[str, pa.Table], bool]:
        """Key → what a compacted file holds of it, and whether all of the file is in order."""

    def same(self, one: pa.Table, other: pa.Table) -> bool:
        """Whether two files of a cell say the same, so that one of them may go."""

    def write(self, cells: Mapping[str, pa.Table]) -> str:
        """One compacted file; returns its leaf name."""


class Cells:
    """Rows of cells: one each."""

    folder = "cells"

    def __init__(self, store: Store, full: int) -> None:
        self._store, self.full = store, full

    def singles(self, keys: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
        for start in range(0, len(keys), CHUNK):
            some = keys[start : start + CHUNK]
            leaves = [f"{key}.parquet" for key in some]
            found = read_singles(self._store, self.folder, leaves, CELL_SCHEMA.names)
            for key, (_, row) in zip(some, found, strict=True):
                if _is_table(row):
                    yield key, row.select(CELL_SCHEMA.names)

    def sizes(self, leaf: str) -> Mapping[str, int]:
        tables, _ = read_compact(self._store, leaf, ["key"], self.folder) or ([], [])
        return {key: 1 for table in tables for key in table["key"].to_pylist()}

    def content(self, leaf: str) -> tuple[dict[str, pa.Table], bool]:
        found = read_compact(self._store, leaf, CELL_SCHEMA.names, self.folder)
        tables, damaged = found or ([], [("", "gone")])
        rows = {
            key: table.slice(place, 1)
            for table in (part.select(CELL_SCHEMA.names) for part in tables)
            for place, key in enumerate(table["key"].to_pylist())
        }
        return rows, not damaged

    def same(self, one: pa.Table, other: pa.Table) -> bool:
        return True  # the first commit wins

    def write(self, cells: Mapping[str, pa.Table]) -> str:
        return write_compact(self._store, pa.concat_tables(cells.values()), self.folder)


class Predictions:
    """Predictions of cells: as many rows as each has examples."""

    folder = keyed.FOLDER

    def __init__(self, store: Store) -> None:
        self._store, self.full = store, FILE_ROWS

    def singles(self, keys: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
        for start in range(0, len(keys), CHUNK):
            some = keys[start : start + CHUNK]
            found = self._store.each(partial(read_one, self._store), some)
            for key, table in zip(some, found, strict=True):
                if _is_table(table) and table.num_rows:
                    yield key, table.combine_chunks()

    def sizes(self, leaf: str) -> Mapping[str, int]:
        return keyed.listed_rows(self._store, leaf)

    def content(self, leaf: str) -> tuple[dict[str, pa.Table], bool]:
        found = keyed.cells_in(self._store, leaf)
        return (found, True) if isinstance(found, dict) else ({}, False)

    def same(self, one: pa.Table, other: pa.Table) -> bool:
        return bool(one.equals(other))  # which of two is right is what the cell's row says

    def write(self, cells: Mapping[str, pa.Table]) -> str:
        return keyed.write_keyed(self._store, dict(sorted(cells.items())))


def _is_table(found: Any) -> TypeGuard[pa.Table]:
    """Whether it was read: neither damaged (a text), which `check` names, nor gone (None)."""
    return isinstance(found, pa.Table)


def write_whole(shelf: Shelf, cells: Mapping[str, pa.Table]) -> str:
    """A compacted file of `cells` that reads back as written; returns its leaf name.

    Raises:
        LedgerError: it does not.
    """
    leaf = shelf.write(cells)
    written, whole = shelf.content(leaf)
    if (
        not whole
        or written.keys() != cells.keys()
        or not all(_equal(written[key], table) for key, table in cells.items())
    ):
        raise LedgerError(
            f"{shelf.folder}/{leaf} does not read back as written; the files it was made of are "
            "still there. Check the disk, remove that file and run again"
        )
    return leaf


def _equal(one: pa.Table, other: pa.Table) -> bool:
    """As `Table.equals`, but that NaN is equal to itself."""
    return one.equals(other) or (
        one.schema == other.schema and repr(one.to_pylist()) == repr(other.to_pylist())
    )
