"""A compacted file of predictions: many cells' rows, each with its cell's key, in blocks."""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sweeps.ledger.cells import COMPACT, UNREADABLE, made_of, reason
from sweeps.ledger.files import Store, StoreError
from sweeps.ledger.schema import PREDICTION_SCHEMA, LedgerError

FOLDER = "predictions"
KEYED_SCHEMA = pa.schema([pa.field("key", pa.string(), nullable=False), *PREDICTION_SCHEMA])
"""Its columns: whose prediction it is, then those of a single file."""
BLOCK_ROWS = 65_536
"""Rows in a block, whole cells: what one damaged byte can cost."""
LISTED = b"cells"
"""In its metadata: for each block the keys it holds, with their rows."""

Listed = Sequence[Sequence[tuple[str, int]]]
"""For each block the keys it holds, with their rows."""


def leaf_of(keys: Sequence[str]) -> str:
    """What the file of these cells, in this order, is called."""
    name = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:32]
    return f"{COMPACT}{name}.parquet"


def opened(store: Store, leaf: str) -> pq.ParquetFile:
    """The file, of which only what is asked for is fetched.

    Raises:
        FileNotFoundError: it is not there.
        LedgerError, ArrowException, OSError, ValueError: damaged.
        StoreError: it cannot be read, which says nothing about it.
    """
    source = store.open(f"{FOLDER}/{leaf}")
    file = pq.ParquetFile(source, page_checksum_verification=True, read_dictionary=["key"])
    return _checked(file)


def _checked(file: pq.ParquetFile) -> pq.ParquetFile:
    if file.schema_arrow.names != KEYED_SCHEMA.names:
        raise LedgerError(f"columns {', '.join(file.schema_arrow.names)}")
    return file


def listed(file: pq.ParquetFile, leaf: str) -> Listed:
    """What the file says it holds. Its footer has no checksum, its name is one of the keys.

    Raises:
        LedgerError, ValueError, TypeError, KeyError: it does not say that.
    """
    found = json.loads(file.schema_arrow.metadata[LISTED])
    if leaf_of([key for block in found for key, _ in block]) != leaf:
        raise LedgerError("it does not list the cells that its name stands for")
    return [[(str(key), int(rows)) for key, rows in block] for block in found]


def block_of(file: pq.ParquetFile, block: int, cells: Sequence[tuple[str, int]]) -> pa.Table:
    """The rows of one block, which must be those of the cells it lists.

    Raises:
        LedgerError, ArrowException, OSError, ValueError: damaged.
    """
    table = file.read_row_group(block, use_threads=False)
    _compare(table["key"], block, cells)
    return table


def check_keys(file: pq.ParquetFile, block: int, cells: Sequence[tuple[str, int]]) -> None:
    """As `block_of`, of the keys alone."""
    keys = file.read_row_group(block, columns=["key"], use_threads=False)["key"]
    _compare(keys, block, cells)


def _compare(keys: pa.ChunkedArray, block: int, cells: Sequence[tuple[str, int]]) -> None:
    keys = keys.combine_chunks()
    counted = pc.value_counts(
        keys.dictionary_decode() if pa.types.is_dictionary(keys.type) else keys
    )
    # A page's header has no checksum: what it says is held against the list.
    if [tuple(pair.values()) for pair in counted.to_pylist()] != list(map(tuple, cells)):
        raise LedgerError(f"block {block + 1} does not hold the cells it lists")


def of_cell(block: pa.Table, key: str) -> pa.Table:
    """One cell's rows of a block, in the schema's types."""
    rows = block.filter(pc.equal(block["key"], key))
    return rows.drop_columns("key").cast(PREDICTION_SCHEMA).combine_chunks()


def listed_rows(store: Store, leaf: str) -> dict[str, int]:
    """Key → rows of the cells that the file lists; nothing where that cannot be read."""
    try:
        found = listed(opened(store, leaf), leaf)
    except StoreError:
        raise
    except (*UNREADABLE, TypeError):
        return {}
    return {key: rows for block in found for key, rows in block}


def cells_in(store: Store, leaf: str) -> dict[str, pa.Table] | str | None:
    """Key → its predictions, of the whole file; a text: why it is damaged; None: it has gone."""

    def make(content: bytes) -> dict[str, pa.Table]:
        try:
            return dict(_cells(content, leaf))
        except TypeError as error:
            raise LedgerError(reason(error)) from None

    return made_of(store, f"{FOLDER}/{leaf}", make)


def _cells(content: bytes, leaf: str) -> Iterator[tuple[str, pa.Table]]:
    file = _checked(pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True))
    for number, cells in enumerate(listed(file, leaf)):
        block = block_of(file, number, cells).drop_columns("key").cast(PREDICTION_SCHEMA)
        start = 0
        for key, rows in cells:  # a cell's rows lie together, in the order of the list
            yield key, block.slice(start, rows).combine_chunks()
            start += rows


def write_keyed(store: Store, cells: Mapping[str, pa.Table]) -> str:
    """One compacted file of these predictions, its blocks holding whole cells; its leaf name."""
    blocks: list[dict[str, pa.Table]] = []
    rows = BLOCK_ROWS
    for key, table in cells.items():
        if rows >= BLOCK_ROWS:
            blocks.append({})
            rows = 0
        blocks[-1][key] = table
        rows += table.num_rows
    held = [[[key, table.num_rows] for key, table in block.items()] for block in blocks]
    schema = KEYED_SCHEMA.with_metadata({LISTED: json.dumps(held).encode()})
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
    leaf = leaf_of(list(cells))
    store.write(f"{FOLDER}/{leaf}", sink.getvalue())
    return leaf
