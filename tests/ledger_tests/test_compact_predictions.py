"""Compacted predictions and failures: read as before, never doubled, lost or taken for others."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from toy_ledgers import Part, row_of

from sweeps.ledger import keyed, shelves
from sweeps.ledger.cells import compact_names, failed_keys, read_rows, single_names
from sweeps.ledger.commit import commit_cell, commit_failure
from sweeps.ledger.compact import compact
from sweeps.ledger.files import Store, parquet_bytes
from sweeps.ledger.predictions import PredictionReader, read_predictions
from sweeps.ledger.schema import LedgerError, PlannedCell, cell_key

KEYS = [cell_key("selection_core", 1, {"k_shot": 16, "a": "b"}, n, "f00d") for n in range(12)]
"""By seed."""


def part(split: str, seed: int, size: int) -> Part:
    rng = np.random.default_rng(seed)
    return Part(
        split=split,
        ids=np.array([f"image{i}" for i in range(size)]),
        groups=np.array([f"patient{i // 3}" for i in range(size)]),
        labels=rng.integers(0, 3, size),
        probabilities=rng.dirichlet(np.ones(3), size).astype(np.float32),
    )


def commit(store: Store, row: dict, key: str) -> None:
    seed = KEYS.index(key)
    parts = (part("validation", seed, 5), part("test", 99 - seed, 7 + seed)) if seed else ()
    commit_cell(store, {**row, "key": key, "seed": seed}, parts)


@pytest.fixture
def row() -> dict:
    cell = PlannedCell(key=KEYS[0], arm="a", levels={"a": "b"}, seed=0)
    return row_of(cell, {"accuracy": 0.5}, {"reward": [0.1]})


@pytest.fixture
def store(tmp_path: Path, row: dict, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Twelve cells, the first without predictions; files of about four cells, blocks of two."""
    monkeypatch.setattr(shelves, "FILE_ROWS", 70)
    monkeypatch.setattr(keyed, "BLOCK_ROWS", 30)
    made = Store(tmp_path / "study")
    for key in KEYS:
        commit(made, row, key)
    return made


def everything(store: Store) -> dict[str, pd.DataFrame]:
    reader = PredictionReader(store)
    return {key: reader.read(key) for key in KEYS[1:]}


def same(found: dict[str, pd.DataFrame], expected: dict[str, pd.DataFrame]) -> None:
    assert found.keys() == expected.keys()
    for key, frame in expected.items():
        pd.testing.assert_frame_equal(found[key], frame)


def test_predictions_read_the_same_after_compaction(store: Store) -> None:
    before = everything(store)
    compact(store)  # too few to be worth it
    assert len(single_names(store, "predictions")) == 11
    compact(store, minimum=1)
    assert single_names(store, "predictions") == []
    assert len(compact_names(store, "predictions")) == 3
    same(everything(store), before)
    pd.testing.assert_frame_equal(read_predictions(store, KEYS[5]), before[KEYS[5]])
    with pytest.raises(FileNotFoundError):
        read_predictions(store, KEYS[0])


def test_a_cell_computed_again_after_compaction_is_read_from_its_own_file(
    store: Store,
) -> None:
    before = everything(store)
    compact(store, minimum=1)
    again = PredictionReader(store).table(KEYS[3])
    store.write(f"predictions/{KEYS[3]}.parquet", parquet_bytes(again))
    same(everything(store), before)
    compact(store, minimum=1)  # both files hold it now
    assert single_names(store, "predictions") == []
    same(everything(store), before)


def test_a_crash_before_the_single_files_go_changes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(store)

    delete = Store.delete

    def crash(self: Store, name: str) -> None:
        if name.startswith("predictions/"):
            raise KeyboardInterrupt
        delete(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "delete", crash)
        with pytest.raises(KeyboardInterrupt):
            compact(store, minimum=1)
    assert len(single_names(store, "predictions")) == 11
    assert len(compact_names(store, "predictions")) == 1
    same(everything(store), before)
    compact(store, minimum=1)
    assert len(compact_names(store, "predictions")) == 3
    same(everything(store), before)


def test_a_flipped_bit_in_compacted_predictions_is_refused_or_changes_nothing(
    store: Store,
) -> None:
    before = everything(store)
    compact(store, minimum=1)
    path = Path(store.path(f"predictions/{compact_names(store, 'predictions')[0]}"))
    content = path.read_bytes()
    pages = pq.ParquetFile(path).metadata.row_group(0).column(4)
    end = pages.data_page_offset + pages.total_compressed_size
    refused = 0
    for at in np.random.default_rng(0).choice(end, size=12, replace=False):
        changed = bytearray(content)
        changed[at] ^= 1 << (at % 8)
        path.write_bytes(bytes(changed))
        for key, frame in before.items():
            try:
                found = read_predictions(store, key)
            except LedgerError:
                refused += 1
                continue
            pd.testing.assert_frame_equal(found, frame)
    assert refused > 4


def test_a_damaged_single_file_stays_where_it_is(store: Store) -> None:
    path = Path(store.path(f"predictions/{KEYS[4]}.parquet"))
    path.write_bytes(path.read_bytes()[:-20])
    compact(store, minimum=1)
    assert single_names(store, "predictions") == [path.name]
    with pytest.raises(LedgerError, match=f"predictions/{KEYS[4]}.parquet .* is damaged"):
        read_predictions(store, KEYS[4])


def test_a_compacted_file_without_a_footer_is_named_for_every_cell_it_may_hold(
    store: Store,
) -> None:
    compact(store, minimum=1)
    (leaf, *_) = compact_names(store, "predictions")
    path = Path(store.path(f"predictions/{leaf}"))
    path.write_bytes(path.read_bytes()[:-20])
    reader = PredictionReader(store)
    held = [key for key in KEYS[1:] if not readable(reader, key, leaf)]
    assert len(held) in (2, 4, 5)
    assert not readable(reader, KEYS[0], leaf)  # it has none, or they are lost: nobody can say


def readable(reader: PredictionReader, key: str, leaf: str) -> bool:
    try:
        reader.read(key)
    except LedgerError as error:
        return leaf not in str(error)
    return True


def test_failures_are_compacted_and_a_later_success_or_failure_counts(
    tmp_path: Path, row: dict
) -> None:
    store = Store(tmp_path / "study")

    def fail(key: str, error: str) -> None:
        values = {"status": "failed", "error_type": "ValueError", "error": error}
        commit_failure(store, {**row, "key": key, "seed": KEYS.index(key), **values})

    for key in KEYS:
        fail(key, "first")
    before, _ = read_rows(store, "failures", set(KEYS))
    compact(store, minimum=1)
    assert single_names(store, "failures") == []
    assert read_rows(store, "failures", set(KEYS)) == (before, [])
    assert failed_keys(store) == set(KEYS)
    commit_cell(store, {**row, "key": KEYS[0]})
    fail(KEYS[1], "second")
    assert failed_keys(store) == set(KEYS[1:])
    for _ in range(2):
        found, _ = read_rows(store, "failures", set(KEYS[1:]))
        assert {found[key]["error"] for key in KEYS[2:]} == {"first"}
        assert found[KEYS[1]]["error"] == "second"
        compact(store, minimum=1)
        assert len(compact_names(store, "failures")) == 1
        assert failed_keys(store) == set(KEYS[1:])
