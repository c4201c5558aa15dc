"""Many small files into few, so that 100,000 cells stay quick to read.

    python sweeps/ledger/compact.py results/controller_ablation

Cells, predictions and failures. The compacted file is committed before the single files go. A crash
in between leaves both, which say the same; the next call removes what is left over. Readers take
either, and prefer a cell's own file.
"""

import sys

import pyarrow as pa

from sweeps.ledger.cells import (
    compact_names,
    failed_keys,
    read_compact,
    read_table,
    single_names,
    write_compact,
)
from sweeps.ledger.files import Store, StoreError
from sweeps.ledger.lock import Lock
from sweeps.ledger.predictions import compact_predictions
from sweeps.ledger.schema import CELL_SCHEMA, LedgerError

MINIMUM = 1000
"""Fewer single files than this are left alone."""
BATCH = 4096
"""Cells in one compacted file."""


def compact(store: Store, *, minimum: int = MINIMUM, batch: int = BATCH) -> int:
    """Put the single files of `store` into compacted ones, wherever there are enough of them.

    Call it while holding the ledger's lock. Damaged files are left where they are, for
    `quarantine_damaged` and `check` to name.

    Returns:
        how many single files of cells went.

    Raises:
        LedgerError: a compacted file does not hold what was written; no single file is gone then.
    """
    gone = _compact_cells(store, minimum, batch)
    if len(single_names(store, "predictions")) >= minimum:
        compact_predictions(store)
    if len(single_names(store, "failures")) >= minimum:
        _compact_failures(store)
    return gone


def _compact_failures(store: Store) -> None:
    """Every failure that still is one into one file, which takes the place of earlier ones."""
    singles, earlier = single_names(store, "failures"), compact_names(store, "failures")
    table, damaged = read_table(store, "failures", failed_keys(store))
    leaf = _write_whole(store, table, "failures") if table.num_rows else ""
    unreadable = {name.rpartition("/")[2] for name, _ in damaged}
    for name in {*singles, *earlier} - {leaf} - unreadable:
        store.delete(f"failures/{name}")


def _write_whole(store: Store, table: pa.Table, folder: str) -> str:
    """A compacted file of `table` that reads back as written; returns its leaf name."""
    table = table.select(CELL_SCHEMA.names)
    leaf = write_compact(store, table, folder)
    written, damaged = read_compact(store, leaf, CELL_SCHEMA.names, folder)
    if damaged or not pa.concat_tables(written).select(CELL_SCHEMA.names).equals(
        table.sort_by("key")
    ):
        raise LedgerError(
            f"{folder}/{leaf} does not read back as written; the single files are still there. "
            "Check the disk, remove that file and run again"
        )
    return leaf


def _compact_cells(store: Store, minimum: int, batch: int) -> int:
    keys = [name.removesuffix(".parquet") for name in single_names(store, "cells")]
    if len(keys) < minimum:
        return 0
    gone = 0
    for start in range(0, len(keys), batch):
        table, _ = read_table(store, "cells", set(keys[start : start + batch]))
        if not table.num_rows:
            continue
        _write_whole(store, table, "cells")
        for key in table["key"].to_pylist():
            store.delete(f"cells/{key}.parquet")
            gone += 1
    return gone


def main(root: str) -> None:
    """Compact the study in `root`, alone on its ledger."""
    store = Store(root)
    try:
        with Lock(store):
            print(f"{compact(store, minimum=1)} cell files compacted")
    except LedgerError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except StoreError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(3) from None


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python sweeps/ledger/compact.py results/<study>")
    main(sys.argv[1])
