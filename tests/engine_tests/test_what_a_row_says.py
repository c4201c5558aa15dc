"""A row is what its key says and its predictions are its own: else set aside, named, made again."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy_study
from studies import here

from analysis import check, tables
from sweeps.ledger import predictions, shelves
from sweeps.ledger.compact import compact
from sweeps.ledger.files import Store
from sweeps.ledger.quarantine import quarantine_damaged
from sweeps.ledger.read import read_ledger, read_predictions, read_rows

FLAGS = ("--inline", "--quiet", "--set", "pooling=16", "--seeds", 3)


def reporting(results, study, console, *, quiet) -> None:
    tables.rebuild(str(Path(results) / study))


STUDY = SimpleNamespace(
    STUDY=toy_study.STUDY, reporting=SimpleNamespace(run=reporting), __doc__="toy"
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("finished")
    answer = here(STUDY, *FLAGS, "--results", results)
    assert answer.returncode == 0, answer.stderr
    return results


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "results"))


def numbers(results: Path) -> dict[str, tuple]:
    ledger = read_ledger(str(results / "toy"))
    cells = ledger.cells
    reader = ledger.predictions()
    return {
        row.key: (row.status, row.accuracy, predictions.digest(reader.checked(row.key)))
        for row in cells.rename(columns={"metric.accuracy": "accuracy"}).itertuples()
    }


def altered(path: Path, **columns) -> None:
    table = pq.read_table(path)
    for name, value in columns.items():
        at = table.schema.get_field_index(name)
        field = table.schema.field(at)
        values = pa.array([value] * len(table), field.type)
        table = table.set_column(at, field, values)
    pq.write_table(table, path)


def another_cells(path: Path) -> None:
    *_, other = sorted(path.parent.iterdir())
    shutil.copy(other, path)


def one_label(path: Path) -> None:
    table = pq.read_table(path)
    labels = table["label"].to_pylist()
    labels[3] = 1 - labels[3]
    at = table.schema.get_field_index("label")
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array(labels, pa.int32())), path)


def shorter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


KEY = "its key is not that of its core, version, configuration, seed and data"
ROWS: dict[str, tuple[Callable[[Path], None], str]] = {
    "NaN": (
        lambda p: altered(p, metrics=[("accuracy", float("nan")), ("val_best", 0.5)]),
        "metrics must be finite, got accuracy=nan",
    ),
    "no value": (
        lambda p: altered(p, metrics=[("accuracy", None), ("val_best", 0.5)]),
        "metrics must be finite, got accuracy=None",
    ),
    "a metric twice": (
        lambda p: altered(p, metrics=[("accuracy", 0.9), ("val_best", 0.5), ("accuracy", 0.5)]),
        "its metric accuracy is there twice",
    ),
    "configuration": (lambda p: altered(p, config='{"ridge":0.3}'), KEY),
    "seed": (lambda p: altered(p, seed=7), KEY),
    "data": (lambda p: altered(p, data_fingerprint="f00d"), KEY),
    "version": (lambda p: altered(p, core_version=2), KEY),
    "status": (lambda p: altered(p, status="failed"), "its status is failed, cells/ holds ok"),
}
PREDICTIONS: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (lambda p: p.unlink(), "its predictions are missing"),
    "truncated": (shorter, "is damaged"),
    "another cell's": (another_cells, "not what the cell's row states"),
    "one label": (one_label, "not what the cell's row states"),
    "a folder": (lambda p: (p.unlink(), p.mkdir()), "is damaged"),
}


@pytest.mark.long
def test_rows_that_are_not_their_keys_are_set_aside_named_and_computed_again(results):
    before = numbers(results)
    paths = sorted((results / "toy" / "cells").iterdir())
    expected = {}
    for path, (do, reason) in zip(paths, ROWS.values(), strict=False):
        do(path)
        expected[f"cells/{path.name}"] = reason
    ledger = read_ledger(str(results / "toy"))
    assert dict(ledger.damaged) == expected
    assert (ledger.cells["status"] == "missing").sum() == len(ROWS)
    answer = here(STUDY, *FLAGS, "--results", results)
    assert answer.returncode == 0
    for name, reason in expected.items():
        assert f"damaged: {name} ({reason}) moved to quarantine/, computed again" in answer.stderr
    assert "nothing was left" not in answer.stdout
    kept = {path.name for path in (results / "toy" / "quarantine").iterdir()}
    assert kept == {path.name for path in paths[: len(ROWS)]}
    assert numbers(results) == before


@pytest.mark.long
def test_predictions_that_are_not_the_cells_end_nothing_and_are_made_again(results):
    before = numbers(results)
    paths = sorted((results / "toy" / "predictions").iterdir())
    for path, (do, _) in zip(paths, PREDICTIONS.values(), strict=False):
        do(path)
    answer = here(STUDY, *FLAGS, "--results", results)
    assert answer.returncode == 0
    said = answer.stderr.splitlines()
    for path, (_, reason) in zip(paths, PREDICTIONS.values(), strict=False):
        (line,) = [line for line in said if line.startswith(f"damaged: cells/{path.name} (")]
        assert reason in line
    assert len(said) == len(PREDICTIONS)
    assert "nothing was left" not in answer.stdout
    assert numbers(results) == before
    assert "nothing was left" in here(STUDY, *FLAGS, "--results", results).stdout
    assert not list((results / "toy" / "suspects").glob("*"))


@pytest.mark.long
def test_what_a_reader_finds_damaged_the_next_run_computes_again(results):
    before = numbers(results)
    path = sorted((results / "toy" / "predictions").iterdir())[2]
    one_label(path)
    found = check.account(str(results / "toy"))
    ((name, why),) = found.damaged
    assert name == f"predictions of {path.stem}"
    assert "run the study's script again" in why
    written = tables.rebuild(str(results / "toy"))
    variance = Path(next(p for p in written if p.endswith("variance.md"))).read_text()
    assert f"left out: predictions/{path.name}" in variance
    answer = here(toy_study, *FLAGS, "--results", results)  # its last step reads none
    assert f"damaged: cells/{path.name}" in answer.stderr
    assert numbers(results) == before
    assert check.account(str(results / "toy")).complete


def test_a_note_without_cause_costs_nothing(results):
    key = next(iter(numbers(results)))
    Store(results / "toy").write(f"suspects/{key}", b"?")
    Store(results / "toy").write(f"suspects/{'0' * 32}", b"?")
    assert "nothing was left" in here(toy_study, *FLAGS, "--results", results).stdout
    assert not list((results / "toy" / "suspects").iterdir())


def test_a_failure_that_is_none_is_set_aside_and_its_cell_computed(results):
    before = numbers(results)
    path = sorted((results / "toy" / "cells").iterdir())[0]
    failures = results / "toy" / "failures"
    failures.mkdir(exist_ok=True)
    path.rename(failures / path.name)
    answer = here(toy_study, *FLAGS, "--results", results)
    assert f"damaged: failures/{path.name} (its status is ok, failures/ holds failed)" in (
        answer.stderr
    )
    assert numbers(results) == before


@pytest.fixture
def compacted(results, monkeypatch) -> Store:
    monkeypatch.setattr(shelves, "FILE_ROWS", 1)  # a file a cell
    store = Store(results / "toy")
    compact(store, minimum=1)
    return store


def test_of_a_compacted_file_the_row_that_is_not_its_keys_goes_alone(results, compacted):
    before = numbers(results)
    (path,) = (results / "toy" / "cells").iterdir()
    table = pq.read_table(path)
    seeds = table["seed"].to_pylist()
    at = table.schema.get_field_index("seed")
    forged = pa.array([9, *seeds[1:]], pa.int64())
    pq.write_table(table.set_column(at, table.schema.field(at), forged), path)
    key = table["key"][0].as_py()
    answer = here(toy_study, *FLAGS, "--results", results)
    assert f"damaged: cells/{path.name} (cell {key}: {KEY})" in answer.stderr
    rows, damaged = read_rows(compacted, "cells", set(before))
    assert not damaged
    assert numbers(results) == before
    assert len(rows) == len(before)


def test_compacted_predictions_that_are_gone_or_damaged_are_made_again(results, compacted):
    before = numbers(results)
    gone, cut, *_ = sorted((results / "toy" / "predictions").iterdir())
    (lost,) = predictions.listed_keys(compacted, gone.name)
    gone.unlink()
    (unread,) = predictions.listed_keys(compacted, cut.name)
    shorter(cut)
    told = quarantine_damaged(compacted, set(before))
    assert sorted(why.split(":")[0] for _, why in told) == sorted(
        f"cell {key}" for key in (lost, unread)
    )
    answer = here(toy_study, *FLAGS, "--results", results)
    assert "9 of 9 cells are committed" in answer.stdout
    assert numbers(results) == before
    read_predictions(compacted, lost)
