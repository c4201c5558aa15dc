"""`--prune`: Optuna's pruner ends a running cell of a search, which never counts as a result."""

import csv
import json
import shutil
from pathlib import Path

import learning_search
import pytest
from studies import SUPPORT, elsewhere, invoke

from sweeps import search_selection
from sweeps.ledger.files import Store
from sweeps.ledger.progress import progress_of
from sweeps.ledger.read import read_ledger

PRUNE = ("--prune", "median:n_startup_trials=2")


def here(results: Path, *arguments: object, search=learning_search):
    steps, options = learning_search, ("--results", results, *arguments)
    return invoke(search, *options, steps=steps, columns=250)


def trials(results: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((results / "learning_search/search/trials.csv").open()))


def ended(results: Path) -> dict[str, dict]:
    folder = results / "learning_search_tuning/proposals"
    return {p.stem: json.loads(p.read_text()) for p in sorted(folder.glob("*/ended/*.json"))}


@pytest.fixture(scope="module")
def pruned(tmp_path_factory) -> Path:
    results = tmp_path_factory.mktemp("pruned")
    answer = here(results, "--inline", *PRUNE)
    assert answer.exit_code == 0, answer.output
    assert "and --prune median:n_startup_trials=2 a running cell" in answer.output
    assert "of them in a running cell" in answer.output
    return results


def test_a_cell_that_is_ended_is_written_down_and_is_no_result(pruned):
    rows, records = trials(pruned), ended(pruned)
    over = [row for row in rows if row["ended_in"]]
    assert 0 < len(over) < 7
    assert {(row["state"], row["seeds"], row["objective"], row["ended_in"]) for row in over} == {
        ("stopped", "0", "", "1000")
    }
    assert {f"trial={row['number']}" for row in over} == {r["arm"] for r in records.values()}
    cells = read_ledger(str(pruned / "learning_search_tuning")).cells
    assert not set(records) & set(cells["key"])
    assert set(cells["status"]) == {"ok"}
    progress = progress_of(Store(pruned / "learning_search_tuning"))
    assert (progress.left, progress.failed) == (0, 0)
    for record in records.values():
        assert record["by"] == PRUNE[1]
        assert record["seed"] == 1000
        assert len(record["values"]) == record["step"] < 10


def test_what_is_ended_was_below_the_median_of_those_before_it(pruned):
    cells = read_ledger(str(pruned / "learning_search_tuning")).cells
    done = {row.arm: row.curves["validation_accuracy"] for row in cells.itertuples()
            if row.seed == 1000}  # fmt: skip
    for record in ended(pruned).values():
        number = int(record["arm"].removeprefix("trial="))
        step = record["step"] - 1
        before = sorted(c[step] for arm, c in done.items() if int(arm[6:]) < number)
        assert max(record["values"]) < before[len(before) // 2]


@pytest.mark.long
def test_resumed_anywhere_it_decides_as_the_search_that_was_not_disturbed(pruned, tmp_path):
    here(tmp_path, "--inline", *PRUNE, "--trials", 4)
    folder = tmp_path / "learning_search_tuning"
    assert here(tmp_path, "--inline", *PRUNE, "--trials", 6).exit_code == 0
    # Killed before its end was on file: the cell is computed again, and ends at the same step.
    last = sorted(folder.glob("proposals/*/ended/*.json"))[-1]
    kept = last.read_text()
    last.unlink()
    shutil.rmtree(tmp_path / "learning_search")
    assert here(tmp_path, "--inline", *PRUNE).exit_code == 0
    assert last.read_text() == kept
    assert trials(tmp_path) == trials(pruned)
    assert ended(tmp_path) == ended(pruned)
    again = here(tmp_path, "--inline", *PRUNE)
    assert "nothing was left" in again.output


def test_without_it_the_search_is_another_sequence_and_has_the_columns_it_had(pruned, tmp_path):
    shutil.copytree(pruned, tmp_path / "r")
    answer = here(tmp_path / "r", "--plan")
    assert "0 of 9 proposals" in answer.output
    assert "9 of 9 proposals" in here(tmp_path / "r", "--plan", *PRUNE).output
    assert here(tmp_path / "r", "--inline", "--trials", 3).exit_code == 0
    assert "ended_in" not in trials(tmp_path / "r")[0]


@pytest.mark.parametrize(
    ("search", "prune", "words"),
    [
        (learning_search, "medain", '--prune must be one of median, halving, hyperband, got "med'),
        (learning_search, "median:x=1", 'median has no option "x"; it has n_startup_trials'),
        (search_selection, "median", "the cells of search_selection have none (they learn in sta"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_runs(search, prune, words, tmp_path):
    answer = here(tmp_path, "--prune", prune, search=search)
    assert answer.exit_code == 2
    assert words in " ".join(answer.stderr.split())
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_on_ray_it_is_the_same_search_in_rounds(tmp_path):
    rounds = (*PRUNE, "--rounds-of", "3")
    assert here(tmp_path / "alone", "--inline", *rounds).exit_code == 0
    script = SUPPORT / "learning_search.py"
    answer = elsewhere("--results", tmp_path / "ray", *rounds, "--workers", "2", script=script)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "of them in a running cell" in answer.stdout
    assert trials(tmp_path / "ray") == trials(tmp_path / "alone")
    assert ended(tmp_path / "ray") == ended(tmp_path / "alone")
