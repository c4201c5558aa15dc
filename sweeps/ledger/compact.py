"""Many small files into few, so that 100,000 cells stay quick to read.

    python sweeps/ledger/compact.py results/controller_ablation

Cells, predictions and failures, while a study runs (`sweeps.ledger.background`) and at its end.
What is put together is committed as one file, and reads back as written, before its parts go. A
crash in between leaves both, which say the same; the next call removes what is left over. Readers
take either, and prefer a cell's own file.

Single files become a compacted one where there are enough of them, and small compacted ones a large
one. So a ledger of n cells is n ÷ BATCH large files, fewer than MERGE small ones and the files of
the last few cells, at any moment.
"""

import sys
from collections.abc import Callable, Iterator, Mapping

import pyarrow as pa

from sweeps.exits import code_of
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
from sweeps.ledger.schema import CELL_SCHEMA, LedgerError
from sweeps.ledger.shelves import Cells, Predictions, Shelf, write_whole

MINIMUM = 1000
"""In a local folder fewer single files than this are left alone."""
MINIMUM_FAR = 256
"""The same for an object store, where each file read is a request or two."""
BATCH = 4096
"""Cells in one compacted file."""
MERGE = 16
"""So many small compacted files make a large one."""


def _nothing() -> None:
    pass


class Compactor:
    """Compacts one ledger, again and again while it grows.

    What compacted files hold is remembered: they never change, and only whoever holds the lock adds
    or removes any. So a call costs requests for what is new, not for the whole ledger.

    Args:
        store: the study's folder. Its lock is held.
        minimum: fewer single files are left alone; by default MINIMUM or MINIMUM_FAR.
        batch: cells in one compacted file.
        must_hold: called before anything is removed; raises where the lock is held no more.
    """

    def __init__(
        self,
        store: Store,
        *,
        minimum: int | None = None,
        batch: int = BATCH,
        must_hold: Callable[[], None] = _nothing,
    ) -> None:
        self._store = store
        self._minimum = minimum or (MINIMUM if store.local else MINIMUM_FAR)
        self._batch = batch
        self._must_hold = must_hold
        self._sizes: dict[str, dict[str, Mapping[str, int]]] = {}  # folder → leaf → key → size

    def work(self) -> Iterator[int]:
        """All that there is to do, a compacted file at a time.

        Damaged files are left where they are, for `quarantine_damaged` and `check` to name.

        Yields:
            how many single files of cells went.

        Raises:
            LedgerError: a compacted file does not hold what was written; what it was made of is
                still there then. And what `must_hold` raises.
            StoreError: the disk or the store does not answer.
        """
        cells, predictions = Cells(self._store, self._batch), Predictions(self._store)
        yield from self._singles(cells)
        for _ in self._singles(predictions):
            yield 0
        if len(single_names(self._store, "failures")) >= self._minimum:
            self._failures()
            yield 0
        for shelf in (cells, predictions):
            for _ in self._merge(shelf):
                yield 0

    def _known(self, shelf: Shelf) -> dict[str, Mapping[str, int]]:
        """Compacted file → key → size."""
        known = self._sizes.setdefault(shelf.folder, {})
        there = compact_names(self._store, shelf.folder)
        new = [leaf for leaf in there if leaf not in known]
        for leaf in known.keys() - set(there):
            del known[leaf]
        known.update(zip(new, self._store.each(shelf.sizes, new), strict=True))
        return known

    def _singles(self, shelf: Shelf) -> Iterator[int]:
        names = single_names(self._store, shelf.folder)
        if len(names) < self._minimum:
            return
        held = {key: leaf for leaf, sizes in self._known(shelf).items() for key in sizes}
        keys = [name.removesuffix(".parquet") for name in names]
        cells: dict[str, pa.Table] = {}
        size = 0
        for key, table in shelf.singles(keys):
            cells[key] = table
            size += table.num_rows
            if size >= shelf.full:
                yield self._put(shelf, cells, held)
                cells, size = {}, 0
        if cells:
            yield self._put(shelf, cells, held)

    def _put(self, shelf: Shelf, cells: dict[str, pa.Table], held: Mapping[str, str]) -> int:
        """`cells` into one compacted file, but for those that one holds already: a crash came
        before their files went, or a worker that was thought dead committed once more.
        """
        over: list[str] = []
        for leaf in {held[key] for key in cells if key in held}:
            there, _ = shelf.content(leaf)
            for key in cells.keys() & there.keys():
                table = cells.pop(key)
                if shelf.same(table, there[key]):
                    over.append(key)
        if cells:
            self._commit(shelf, cells)
        self._must_hold()
        over += cells
        self._store.delete_all(f"{shelf.folder}/{key}.parquet" for key in over)
        return len(over)

    def _commit(self, shelf: Shelf, cells: Mapping[str, pa.Table]) -> str:
        leaf = write_whole(shelf, cells)
        self._sizes[shelf.folder][leaf] = {key: table.num_rows for key, table in cells.items()}
        return leaf

    def _merge(self, shelf: Shelf) -> Iterator[None]:
        """Small compacted files into large ones; one that is not in order stays as it is."""
        small = {
            leaf: sum(sizes.values())
            for leaf, sizes in self._known(shelf).items()
            if sizes and 2 * sum(sizes.values()) < shelf.full
        }
        while len(small) >= MERGE:
            parts, size = [], 0
            while small and size < shelf.full:
                leaf = next(iter(small))
                parts.append(leaf)
                size += small.pop(leaf)
            self._put_together(shelf, parts)
            yield

    def _put_together(self, shelf: Shelf, parts: list[str]) -> None:
        cells: dict[str, pa.Table] = {}
        whole = []
        for leaf, (found, in_order) in zip(
            parts, self._store.each(shelf.content, parts), strict=True
        ):
            twice = found.keys() & cells.keys()
            if in_order and all(shelf.same(found[key], cells[key]) for key in twice):
                cells |= {key: table for key, table in found.items() if key not in twice}
                whole.append(leaf)
        if len(whole) < 2:
            return
        made = self._commit(shelf, cells)
        self._must_hold()
        self._store.delete_all(f"{shelf.folder}/{leaf}" for leaf in whole if leaf != made)

    def _failures(self) -> None:
        """Every failure that still is one into one file, which takes the place of earlier ones."""
        store = self._store
        singles, earlier = single_names(store, "failures"), compact_names(store, "failures")
        table, damaged = read_table(store, "failures", failed_keys(store))
        leaf = _write_failures(store, table) if table.num_rows else ""
        unreadable = {name.rpartition("/")[2] for name, _ in damaged}
        self._must_hold()
        over = {*singles, *earlier} - {leaf} - unreadable
        store.delete_all(f"failures/{name}" for name in over)


def _write_failures(store: Store, table: pa.Table) -> str:
    table = table.select(CELL_SCHEMA.names).sort_by("key")
    leaf = write_compact(store, table, "failures")
    written, damaged = read_compact(store, leaf, CELL_SCHEMA.names, "failures") or ([], [])
    if damaged or not pa.concat_tables(written).select(CELL_SCHEMA.names).equals(table):
        raise LedgerError(
            f"failures/{leaf} does not read back as written; the single files are still there. "
            "Check the disk, remove that file and run again"
        )
    return leaf


def compact(store: Store, *, minimum: int | None = None, batch: int = BATCH) -> int:
    """Put the files of `store` together, wherever there are enough of them.

    Call it while holding the ledger's lock. Damaged files are left where they are, for
    `quarantine_damaged` and `check` to name.

    Returns:
        how many single files of cells went.

    Raises:
        LedgerError: a compacted file does not hold what was written; no single file is gone then.
        StoreError: the disk or the store does not answer.
    """
    return sum(Compactor(store, minimum=minimum, batch=batch).work())


def main(root: str) -> None:
    """Compact the study in `root`, alone on its ledger."""
    store = Store(root)
    try:
        with Lock(store):
            print(f"{compact(store, minimum=1)} cell files compacted")
    except (LedgerError, StoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(code_of(error)) from None


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python sweeps/ledger/compact.py results/<study>")
    main(sys.argv[1])
