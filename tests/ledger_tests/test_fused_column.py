"""The column that says a cell was fused: only in the files of such cells, readable beside all."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from plain_ledgers import key_of, row_of

from sweeps.ledger.cells import read_rows
from sweeps.ledger.commit import commit_cell
from sweeps.ledger.compact import compact
from sweeps.ledger.files import Store

SEPARATE, FUSED = key_of(0), key_of(1)


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(str(tmp_path))
    commit_cell(store, row_of(0))
    commit_cell(store, row_of(1, fused=5))
    return store


def columns(store: Store, name: str) -> list[str]:
    return pq.read_schema(pa.BufferReader(store.read(name))).names


def test_a_cell_that_was_not_fused_is_the_file_it_always_was(store):
    assert "fused" not in columns(store, f"cells/{SEPARATE}.parquet")
    assert "fused" in columns(store, f"cells/{FUSED}.parquet")


def test_both_kinds_are_read_apart_and_after_compaction(store):
    for _ in range(2):
        rows, damaged = read_rows(store, "cells", {SEPARATE, FUSED})
        assert not damaged
        assert {key: values["fused"] for key, values in rows.items()} == {SEPARATE: None, FUSED: 5}
        compact(store, minimum=1)


def test_a_compacted_file_without_fused_cells_has_no_such_column(tmp_path):
    store = Store(str(tmp_path))
    commit_cell(store, row_of(0))
    compact(store, minimum=1)
    (name,) = store.names("cells", ".parquet")
    assert "fused" not in columns(store, f"cells/{name}")
    assert read_rows(store, "cells", {SEPARATE})[0][SEPARATE]["fused"] is None
