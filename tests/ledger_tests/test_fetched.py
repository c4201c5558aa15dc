"""Files of cells on an object store are asked for once before a run's first cell, and then anew."""

from collections import Counter
from pathlib import Path

import pytest
from far_store import FarFolder, far_store, far_stores
from plain_ledgers import commit, key_of, plan

from sweeps.ledger.compact import compact
from sweeps.ledger.fetched import fetched_once, forget_fetched
from sweeps.ledger.files import Store
from sweeps.ledger.quarantine import quarantine_damaged
from sweeps.ledger.read import committed_keys, read_metric, read_table

SEEDS = 5
KEYS = {key_of(seed) for seed in range(SEEDS)}


@pytest.fixture
def far(monkeypatch) -> FarFolder:
    return far_stores(monkeypatch)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A compacted file of two cells, and three single ones."""
    near = Store(tmp_path)
    for seed in range(SEEDS):
        commit(near, seed)
        if seed == 1:
            assert compact(near, minimum=1) == 2
    plan(near, SEEDS)
    return tmp_path


@pytest.fixture
def asked(far, monkeypatch) -> Counter[str]:
    """How often each file of cells was opened."""
    found, before = Counter[str](), far.open_input_file

    def open_input_file(path: str):
        if "/cells/" in path:
            found[path] += 1
        return before(path)

    monkeypatch.setattr(far, "open_input_file", open_input_file)
    return found


def read_all(store: Store) -> None:
    """What a run asks of its ledger before its first cell."""
    assert committed_keys(store) == KEYS
    assert quarantine_damaged(store, KEYS) == []
    assert read_table(store, "cells", KEYS, ["wall_s"])[0].num_rows == SEEDS
    assert len(read_metric(store, KEYS, "accuracy")) == SEEDS


def test_each_file_is_asked_for_once_until_cells_come(folder, asked):
    with fetched_once():
        read_all(far_store(folder))
        assert list(asked.values()) == [1] * 4
        forget_fetched()
        read_table(far_store(folder), "cells", KEYS)
        assert list(asked.values()) == [2] * 4
    read_table(far_store(folder), "cells", KEYS)
    assert list(asked.values()) == [3] * 4


def test_what_comes_or_goes_meanwhile_is_seen_and_damage_is_read_again(folder, asked):
    store, near = far_store(folder), Store(folder)
    name = f"cells/{key_of(4)}.parquet"
    whole = near.read(name)
    near.write(name, whole[: len(whole) // 2])
    with fetched_once():
        found, ((where, _),) = read_table(store, "cells", KEYS)
        assert (found.num_rows, where) == (SEEDS - 1, name)
        near.write(name, whole)  # a worker that was thought dead, say
        assert read_table(store, "cells", KEYS)[1] == []
        near.delete(f"cells/{key_of(3)}.parquet")
        commit(near, SEEDS)
        assert committed_keys(store) == KEYS - {key_of(3)} | {key_of(SEEDS)}
        assert read_table(store, "cells", committed_keys(store))[0].num_rows == SEEDS
