"""The ledger's files: damage is named and never read as data; compaction loses nothing."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toy_ledgers import make_ledger

from sweeps.ledger.cells import compact_names, single_names
from sweeps.ledger.compact import compact
from sweeps.ledger.files import Store
from sweeps.ledger.read import (
    committed_keys,
    quarantine_damaged,
    read_ledger,
    read_predictions,
    read_rows,
)
from sweeps.ledger.schema import LedgerError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ledger(tmp_path_factory.mktemp("whole") / "study", predictions=True)


@pytest.fixture
def study(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "study"))


def foreign(path: Path) -> None:
    pq.write_table(pa.table({"a": [1, 2]}), path)


def other_version(path: Path) -> None:
    table = pq.read_table(path)
    at = table.schema.get_field_index("schema_version")
    later = table.set_column(at, table.schema.field(at), pa.array([2], pa.int32()))
    pq.write_table(later, path)


def extra_column(path: Path) -> None:
    pq.write_table(pq.read_table(path).append_column("mood", pa.array(["good"])), path)


DAMAGE = {
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-100]), "footer"),
    "empty": (lambda p: p.write_bytes(b""), "0 bytes"),
    "text": (lambda p: p.write_text("not parquet"), "footer"),
    "foreign": (foreign, "not a cell's columns: a, arm"),
    "renamed": (
        lambda p: p.write_bytes(next(q for q in p.parent.iterdir() if q != p).read_bytes()),
        "holds the cell",
    ),
    "later version": (other_version, "schema version 2, this code reads 1"),
    "extra column": (extra_column, "not a cell's columns: mood"),
}


@pytest.mark.long
@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_files_are_named_quarantined_and_counted_as_missing(study: Path, kind: str) -> None:
    do, reason = DAMAGE[kind]
    store = Store(study)
    path = sorted((study / "cells").iterdir())[3]
    do(path)
    content = path.read_bytes()
    ledger = read_ledger(str(study))
    ((name, said),) = ledger.damaged
    assert name == f"cells/{path.name}"
    assert reason in said
    assert (ledger.cells["status"] == "missing").sum() == 1
    assert quarantine_damaged(store, {c.key for c in ledger.manifest.cells}) == [(name, said)]
    assert (study / "quarantine" / path.name).read_bytes() == content
    assert path.stem not in committed_keys(store)
    assert not read_ledger(str(study)).damaged


def test_a_flipped_bit_is_refused_or_changes_nothing(study: Path) -> None:
    store = Store(study)
    path = sorted((study / "cells").iterdir())[0]
    content = path.read_bytes()
    before, _ = read_rows(store, "cells", {path.stem})
    refused = 0
    for at in np.random.default_rng(0).choice(len(content), size=120, replace=False):
        changed = bytearray(content)
        changed[at] ^= 1 << (at % 8)
        path.write_bytes(bytes(changed))
        rows, damaged = read_rows(store, "cells", {path.stem})
        refused += bool(damaged)
        assert damaged or rows == before
    assert refused > 15


def test_a_flipped_bit_in_predictions_is_refused_or_changes_nothing(study: Path) -> None:
    store = Store(study)
    path = sorted((study / "predictions").iterdir())[0]
    content = path.read_bytes()
    before = read_predictions(store, path.stem)
    refused = 0
    for at in np.random.default_rng(0).choice(len(content), size=80, replace=False):
        changed = bytearray(content)
        changed[at] ^= 1 << (at % 8)
        path.write_bytes(bytes(changed))
        try:
            found = read_predictions(store, path.stem)
        except LedgerError:
            refused += 1
            continue
        pd.testing.assert_frame_equal(found, before)
    assert refused > 8


def test_compaction_changes_no_number_and_no_key(study: Path) -> None:
    store = Store(study)
    before, keys = read_ledger(str(study)).cells, committed_keys(store)
    rows, _ = read_rows(store, "cells", keys)
    assert compact(store) == 0  # too few to be worth it
    assert compact(store, minimum=1, batch=8) == 30
    assert single_names(store, "cells") == []
    assert len(compact_names(store)) == 4
    assert committed_keys(store) == keys
    assert read_rows(store, "cells", keys)[0] == rows
    pd.testing.assert_frame_equal(read_ledger(str(study)).cells, before)


def test_a_crash_between_the_compacted_file_and_the_deletions_loses_and_doubles_nothing(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(study)
    before = read_ledger(str(study)).cells

    def crash(self: Store, name: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "delete", crash)
        with pytest.raises(KeyboardInterrupt):
            compact(store, minimum=1)
    assert len(single_names(store, "cells")) == 30
    assert len(compact_names(store)) == 1
    pd.testing.assert_frame_equal(read_ledger(str(study)).cells, before)
    assert compact(store, minimum=1) == 30
    assert len(compact_names(store)) == 1
    pd.testing.assert_frame_equal(read_ledger(str(study)).cells, before)


def test_damage_in_a_compacted_file_costs_its_block_alone(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.ledger.cells.BLOCK", 5)
    store = Store(study)
    keys = committed_keys(store)
    compact(store, minimum=1)
    (path,) = (study / "cells").iterdir()
    file = pq.ParquetFile(path)
    metric = file.metadata.row_group(2).column(file.schema_arrow.names.index("config") + 1)
    content = bytearray(path.read_bytes())
    content[metric.data_page_offset + metric.total_compressed_size - 3] ^= 1
    path.write_bytes(bytes(content))
    ((name, said),) = quarantine_damaged(store, keys)
    assert name == f"cells/{path.name}"
    assert said.startswith("block 3 of 6, 5 cells: ")
    assert (study / "quarantine" / path.name).exists()
    assert len(committed_keys(store)) == 25
    ledger = read_ledger(str(study))
    assert not ledger.damaged
    assert (ledger.cells["status"] == "missing").sum() == 5


def test_a_compacted_file_without_a_footer_is_named(study: Path) -> None:
    store = Store(study)
    compact(store, minimum=1, batch=15)
    path = sorted((study / "cells").iterdir())[0]
    path.write_bytes(path.read_bytes()[:-10])
    ledger = read_ledger(str(study))
    assert [name for name, _ in ledger.damaged] == [f"cells/{path.name}"]
    assert (ledger.cells["status"] == "missing").sum() == 15


def test_details_can_be_left_out(study: Path) -> None:
    light, full = read_ledger(str(study), details=False).cells, read_ledger(str(study)).cells
    assert "curves" not in light
    assert isinstance(full["curves"][0], dict)
    assert full["versions"][0] == {"numpy": "2.0.0", "torch": "2.15.0"}
    pd.testing.assert_frame_equal(light, full[light.columns])
