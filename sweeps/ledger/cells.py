"""The files of cells: single ones, compacted ones, and what of them is whole."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sweeps.ledger.checks import misfits
from sweeps.ledger.fetched import read_fetched
from sweeps.ledger.files import Store, parquet_bytes
from sweeps.ledger.schema import (
    CELL_SCHEMA,
    LATER_COLUMNS,
    SCHEMA_VERSION,
    LedgerError,
    without_empty,
)

Answer = TypeVar("Answer")

COMPACT = "_compact-"
"""Prefix of the files that hold many cells."""
BLOCK = 256
"""Cells in a block of a compacted file: what one damaged byte can cost."""
UNREADABLE = (LedgerError, pa.ArrowException, OSError, ValueError, KeyError, MemoryError)
"""What a truncated, altered or foreign file raises when its bytes, read whole, are made sense of.
Reading them is no part of it: that raises StoreError, and a StoreError is an OSError too."""


def committed_keys(store: Store) -> set[str]:
    """Keys of the cells that are there: of single files from their names alone, of compacted
    files from their key column. A compacted file that cannot be read counts as not there.
    """
    keys = single_keys(store, "cells")
    # After the single ones: whatever compaction removes meanwhile is in a compacted file by then.
    return keys | _compacted_keys(store, "cells")


def _compacted_keys(store: Store, folder: str) -> set[str]:
    found = (tables for _, tables, _ in read_compacts(store, folder, ["key"]))
    return {key for tables in found for table in tables for key in table["key"].to_pylist()}


def failed_keys(store: Store, committed: set[str] | None = None) -> set[str]:
    """Keys of the cells that failed and have not succeeded since.

    Args:
        store: the study's folder.
        committed: what `committed_keys` says, where it has been asked already.
    """
    failed = single_keys(store, "failures") | _compacted_keys(store, "failures")
    return failed - (committed_keys(store) if committed is None else committed)


def has_failure(store: Store, key: str) -> bool:
    """Whether a row says that the cell failed, which is not compacted yet: a question about one
    cell that asks nothing about the others.
    """
    return store.exists(f"failures/{key}.parquet")


def single_keys(store: Store, folder: str) -> set[str]:
    """Keys of the cells that have a file of their own in `folder`."""
    return {name.removesuffix(".parquet") for name in single_names(store, folder)}


def single_names(store: Store, folder: str) -> list[str]:
    """Leaf names of the files in `folder` that hold one cell each."""
    return [n for n in store.names(folder, ".parquet") if not n.startswith(COMPACT)]


def compact_names(store: Store, folder: str = "cells") -> list[str]:
    """Leaf names of the files in `folder` that hold many cells (`sweeps.ledger.compact`)."""
    return [n for n in store.names(folder, ".parquet") if n.startswith(COMPACT)]


def reason(error: Exception) -> str:
    """The first line of what an unreadable file raised."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _open(content: bytes | pa.Buffer) -> pq.ParquetFile:
    """A file of cells, its columns compared with the schema.

    Raises:
        LedgerError: another file's columns.
        ArrowException, OSError, ValueError: damaged.
    """
    file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
    names = file.schema_arrow.names
    expected = [n for n in CELL_SCHEMA.names if n in names or n not in LATER_COLUMNS]
    if names != expected:
        odd = sorted(set(names) ^ set(expected))
        raise LedgerError(f"not a cell's columns: {', '.join(odd)}")
    return file


def _checked(table: pa.Table, columns: list[str]) -> pa.Table:
    """`table` in the schema's types, its version being ours."""
    schema = pa.schema([CELL_SCHEMA.field(name) for name in columns])
    for name in LATER_COLUMNS:
        if name in columns and name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table), CELL_SCHEMA.field(name).type))
    table = table.select(columns)
    if not table.schema.equals(schema):
        table = table.cast(schema)
    for field in schema:
        if not field.nullable and table[field.name].null_count:
            raise LedgerError(f"column {field.name} must not be empty")
    versions = set(pc.unique(table["schema_version"]).to_pylist())
    if versions - {SCHEMA_VERSION}:
        shown = ", ".join(str(v) for v in sorted(versions))
        raise LedgerError(f"schema version {shown}, this code reads {SCHEMA_VERSION}")
    return table


def _read_single(content: bytes, name: str, columns: list[str], every: bool) -> pa.Table:
    """The one row of the file `name` (a path in the store), which must be the cell it names."""
    file = _open(content)
    if file.metadata.num_rows != 1:
        raise LedgerError(f"{file.metadata.num_rows} rows instead of 1")
    table = _checked(file.read(columns=columns, use_threads=False), columns)
    if table["key"][0].as_py() != name.rpartition("/")[2].removesuffix(".parquet"):
        raise LedgerError(f"holds the cell {table['key'][0].as_py()}")
    for why in misfits(table, name.partition("/")[0], every=every).values():
        raise LedgerError(why)
    return table


def made_of(store: Store, name: str, make: Callable[[bytes], Answer | str]) -> Answer | str | None:
    """What `make` says of the bytes of a file that stands for cells; a text: why it is damaged;
    None: there is no such file.

    Such a file hardly ever changes, so it is read as one that does only where it makes no sense.
    """
    why = ""
    for changes in (True,) if store.local else (False, True):
        try:
            content = store.read(name) if changes else read_fetched(store, name)
        except FileNotFoundError:
            return None  # compacted, or quarantined, since the listing
        except IsADirectoryError as error:
            return reason(error)
        try:
            made = make(content)
        except UNREADABLE as error:
            made = reason(error)
        if not isinstance(made, str):
            return made
        why = made
    return why


def _blocks(
    content: bytes, name: str, columns: list[str], every: bool
) -> tuple[list[pa.Table], list[tuple[str, str]]]:
    """The rows of a compacted file that are what their keys say, and what is wrong with others."""
    file = _open(content)
    tables, damaged = [], []
    blocks = file.num_row_groups
    for block in range(blocks):
        try:
            table = file.read_row_group(block, columns=columns, use_threads=False)
            tables.append(_checked(table, columns))
        except UNREADABLE as error:
            rows = file.metadata.row_group(block).num_rows
            where = f"block {block + 1} of {blocks}, {rows} cells"
            damaged.append((name, f"{where}: {reason(error)}"))
    if not tables:
        return [], damaged
    table = pa.concat_tables(tables)
    wrong = misfits(table, name.partition("/")[0], every=every)
    damaged += [(name, f"cell {table['key'][at]}: {why}") for at, why in wrong.items()]
    if wrong:
        table = table.take(np.setdiff1d(np.arange(len(table)), list(wrong)))
    return [table], damaged


def read_compact(
    store: Store, leaf: str, columns: list[str], folder: str = "cells", *, every: bool = False
) -> tuple[list[pa.Table], list[tuple[str, str]]] | None:
    """The rows of a compacted file that are what their keys say; of a damaged one, those of every
    block that is still whole. And what is wrong with the others. None: the file is not there.

    Args:
        every: as in `misfits`.
    """
    name = f"{folder}/{leaf}"
    columns = list(dict.fromkeys(["schema_version", "key", *columns]))
    found = made_of(store, name, lambda content: _blocks(content, name, columns, every))
    return ([], [(name, found)]) if isinstance(found, str) else found


def read_compacts(
    store: Store, folder: str, columns: list[str], *, every: bool = False
) -> Iterator[tuple[str, list[pa.Table], list[tuple[str, str]]]]:
    """Every compacted file of `folder`: its leaf name, its whole rows, and what is wrong with it.

    Compaction may put small ones into a large one meanwhile. The large one is there before they
    go, so whoever misses one looks again; rows may then come twice.

    Args:
        every: as in `misfits`.
    """
    read: set[str] = set()
    missed = True
    while missed:
        leaves = [leaf for leaf in compact_names(store, folder) if leaf not in read]
        read.update(leaves)
        missed = False
        of = partial(read_compact, store, columns=columns, folder=folder, every=every)
        for leaf, found in zip(leaves, store.each(of, leaves), strict=True):
            if found is None:
                missed = True
            else:
                yield leaf, *found


def read_singles(
    store: Store, folder: str, leaves: Sequence[str], columns: list[str], *, every: bool = False
) -> Iterator[tuple[str, pa.Table | str | None]]:
    """Leaf name → its row, why it is damaged, or None where there is no such file any more.

    Args:
        every: as in `misfits`.
    """

    def read(leaf: str) -> pa.Table | str | None:
        name = f"{folder}/{leaf}"
        return made_of(store, name, lambda content: _read_single(content, name, columns, every))

    return zip(leaves, store.each(read, leaves), strict=True)


def read_each(
    store: Store, folder: str, keys: set[str], columns: list[str], *, every: bool = False
) -> Iterator[tuple[str, list[pa.Table], list[tuple[str, str]]]]:
    """File by file: its name, what of it `read_table` puts together, and what is damaged.

    Args:
        every: as in `misfits`.

    Raises:
        StoreError: a file cannot be read, which says nothing about it.
    """
    leaves = [x for x in single_names(store, folder) if x.removesuffix(".parquet") in keys]
    for leaf, found in read_singles(store, folder, leaves, columns, every=every):
        name = f"{folder}/{leaf}"
        if isinstance(found, str):
            yield name, [], [(name, found)]
        elif found is not None:  # else compacted since the listing, and found below
            yield name, [found], []
    for leaf, tables, damaged in read_compacts(store, folder, columns, every=every):
        yield f"{folder}/{leaf}", tables, damaged


def read_table(
    store: Store, folder: str, keys: set[str], columns: list[str] | None = None
) -> tuple[pa.Table, list[tuple[str, str]]]:
    """The cells of `folder` among `keys` as one table (each key once), and the damaged files.

    Args:
        store: the study's folder.
        folder: "cells" or "failures".
        keys: which cells.
        columns: which columns of the schema; all by default. `key` always comes along.

    Raises:
        StoreError: a file cannot be read, which says nothing about it.
    """
    columns = list(dict.fromkeys(["schema_version", "key", *(columns or CELL_SCHEMA.names)]))
    tables: list[pa.Table] = []
    damaged: list[tuple[str, str]] = []
    for _, found, broken in read_each(store, folder, keys, columns):
        tables += found
        damaged += broken
    schema = pa.schema([CELL_SCHEMA.field(name) for name in columns])
    table = pa.concat_tables([schema.empty_table(), *tables]).combine_chunks()
    wanted = pc.is_in(table["key"], value_set=pa.array(list(keys), pa.string())).to_numpy()
    codes = pc.dictionary_encode(table["key"]).combine_chunks().indices.to_numpy()
    first = np.zeros(len(codes), dtype=bool)
    first[np.unique(codes, return_index=True)[1]] = True
    chosen = np.flatnonzero(wanted & first)
    return (table if len(chosen) == len(codes) else table.take(chosen)), damaged


def read_rows(
    store: Store, folder: str, keys: set[str]
) -> tuple[dict[str, dict[str, Any]], list[tuple[str, str]]]:
    """Rows of `folder` by key, and the files that could not be read with the reason."""
    table, damaged = read_table(store, folder, keys)
    rows = table.select(CELL_SCHEMA.names).to_pylist(maps_as_pydicts="strict")
    return {row["key"]: row for row in rows}, damaged


def write_compact(store: Store, table: pa.Table, folder: str = "cells") -> str:
    """`table` (cells, every column of the schema) as one compacted file; returns its leaf name.

    The name is a hash of the keys it holds, so the same cells give the same file.
    """
    table = table.sort_by("key").combine_chunks()
    keys = "\n".join(table["key"].to_pylist()).encode()
    leaf = f"{COMPACT}{hashlib.sha256(keys).hexdigest()[:32]}.parquet"
    store.write(f"{folder}/{leaf}", parquet_bytes(without_empty(table), row_group_size=BLOCK))
    return leaf
