"""A search without Ray: what it proposes, writes, refuses, and what kills do to it."""

import csv
import json
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import optuna
import pytest
import toy_search
from studies import ROOT, SUPPORT, command, elsewhere, invoke, study_environment
from typer.testing import CliRunner

from analysis.tables import study_tables
from sweeps import search_apga, search_selection
from sweeps.engine.cli import build_app
from sweeps.ledger.files import Store
from sweeps.ledger.progress import progress_of
from sweeps.ledger.read import read_ledger

SCRIPT = SUPPORT / "toy_search.py"


def trials(results: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((results / "toy_search/search/trials.csv").open()))


def proposals(results: Path) -> dict[str, dict]:
    folder = results / "toy_search_tuning" / "proposals"
    return {
        p.name: json.loads(p.read_text())
        for p in sorted(folder.glob("*/*.json"))
        if "stopped" not in p.name
    }


def optuna_states(results: Path) -> dict[str, int]:
    with sqlite3.connect(results / "toy_search_tuning" / "optuna.db") as connection:
        rows = connection.execute("select state, count(*) from trials group by state").fetchall()
    return dict(rows)


def assert_whole(results: Path, *, asked: int) -> None:
    """Exactly `asked` proposals, all different, all over, their values those of the ledger."""
    rows, written = trials(results), proposals(results)
    assert len(rows) == len(written) == asked
    points = [json.dumps([p["group"], p["point"]], sort_keys=True) for p in written.values()]
    assert len(set(points)) == asked
    assert {row["state"] for row in rows} <= {"complete", "stopped"}
    states = optuna_states(results)
    assert sum(states.values()) == asked
    assert set(states) <= {"COMPLETE", "PRUNED"}
    assert read_ledger(str(results / "toy_search_tuning")).cells["status"].unique() == ["ok"]
    cells = read_ledger(str(results / "toy_search_tuning")).cells
    done = cells[cells["status"] == "ok"]
    for row in rows:
        mine = done[done["arm"] == f"{row['group']},trial={row['number']}"]
        assert len(mine) == int(row["seeds"])
        assert mine["metric.val_best"].mean() == pytest.approx(float(row["objective"]), abs=1e-12)
        values = mine.sort_values("seed")["metric.val_best"]
        assert_shown(results, written, row, values.expanding().mean().tolist())


def assert_shown(results: Path, written: dict, row: dict[str, str], means: list[float]) -> None:
    """Optuna's own reader finds the proposal, how it ended, and its mean after each seed."""
    study = optuna.load_study(
        study_name=f"toy_search: {row['group']}",
        storage=f"sqlite:///{results / 'toy_search_tuning' / 'optuna.db'}",
    )
    (trial,) = (t for t in study.trials if t.user_attrs["proposal"] == int(row["number"]))
    assert trial.params == next(
        p["point"] for p in written.values() if p["number"] == int(row["number"])
    )
    assert trial.state.name == {"complete": "COMPLETE", "stopped": "PRUNED"}[row["state"]]
    assert list(trial.intermediate_values) == list(range(1, len(means) + 1))
    assert list(trial.intermediate_values.values()) == pytest.approx(means, abs=1e-12)
    assert trial.value == pytest.approx(means[-1], abs=1e-12)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    results = tmp_path_factory.mktemp("undisturbed")
    answer = invoke(toy_search, "--inline", "--results", results)
    assert answer.exit_code == 0, answer.output
    assert "12 of 12 proposals" in answer.output
    return results


@pytest.mark.long
def test_the_default_first_then_exactly_the_trials_asked_for(undisturbed):
    assert_whole(undisturbed, asked=12)
    rows = trials(undisturbed)
    assert [row["group"] for row in rows] == ["pooling=8", "pooling=16"] * 6
    assert [(row["ridge"], row["k_shot"]) for row in rows[:2]] == [("1.0", "0"), ("1.0", "")]


def test_the_winner_and_the_default_of_each_level_are_rerun_on_other_seeds(undisturbed):
    cells = read_ledger(str(undisturbed / "toy_search")).cells
    assert cells["arm"].unique().tolist() == [
        f"pooling={p},setting={s}" for p in (8, 16) for s in ("default", "tuned")
    ]
    assert set(cells["seed"]) == {0, 1}
    assert set(cells["status"]) == {"ok"}
    winners = json.loads((undisturbed / "toy_search/search/winners.json").read_text())
    for group, winner in winners.items():
        complete = [
            r for r in trials(undisturbed) if (r["group"], r["state"]) == (group, "complete")
        ]
        assert winner["objective"] == max(float(r["objective"]) for r in complete)
        tuned = cells[cells["arm"] == f"{group},setting=tuned"]["config"].iloc[0]
        assert winner["point"].items() <= json.loads(tuned).items()
    tuning = read_ledger(str(undisturbed / "toy_search_tuning")).cells
    assert set(tuning["seed"]) == {1000, 1001, 1002, 1003}


def test_importance_is_written_per_level_and_sums_to_one(undisturbed):
    rows = list(csv.DictReader((undisturbed / "toy_search/search/importance.csv").open()))
    for group in ("pooling=8", "pooling=16"):
        shares = [float(r["importance"]) for r in rows if r["group"] == group]
        assert sum(shares) == pytest.approx(1.0)


@pytest.mark.long
def test_run_again_it_computes_nothing_and_more_trials_only_add(undisturbed, tmp_path):
    first = invoke(toy_search, "--inline", "--results", tmp_path, "--trials", 2)
    assert first.exit_code == 0
    before = proposals(tmp_path)
    assert (
        "nothing was left"
        in invoke(toy_search, "--inline", "--results", tmp_path, "--trials", 2).output
    )
    invoke(toy_search, "--inline", "--results", tmp_path)
    after = proposals(tmp_path)
    assert before.items() <= after.items()
    assert after == proposals(undisturbed)


@pytest.mark.long
def test_a_default_that_wins_is_shown_as_both_and_computed_once(tmp_path):
    answer = invoke(toy_search, "--inline", "--results", tmp_path, "--trials", 1)
    assert answer.exit_code == 0, answer.output
    assert "8 cells (4 of them shared by two arms)" in answer.output
    assert "4 of 4 cells are committed" in answer.output
    cells = read_ledger(str(tmp_path / "toy_search")).cells
    assert len(cells) == 8
    assert cells["key"].nunique() == 4
    assert set(cells["status"]) == {"ok"}
    progress = progress_of(Store(tmp_path / "toy_search"))
    assert [(arm.done, arm.left) for arm in progress.arms] == [(2, 0)] * 4
    paired = next(
        t for t in study_tables(read_ledger(str(tmp_path / "toy_search"))) if "paired" in t.name
    )
    assert [row.label for row in paired.rows] == ["8, tuned", "16, tuned"]
    assert [row.entries[1].values["value"] for row in paired.rows] == [0.0, 0.0]


@pytest.mark.long
def test_other_ranges_or_fields_start_another_sequence(tmp_path):
    invoke(toy_search, "--inline", "--results", tmp_path, "--trials", 2)
    answer = invoke(toy_search, "--plan", "--results", tmp_path, "--trials", 2)
    assert "4 of 4 proposals" in answer.output
    for change in (["--set", "wait_s=0.01"], ["--set", "ridge=1,2"], ["--preset", "paper"]):
        other = invoke(toy_search, "--plan", "--results", tmp_path, "--trials", 2, *change)
        assert "0 of 4 proposals" in other.output, change
    alone = ("--inline", "--results", tmp_path, "--trials", 2, "--set", "pooling=16")
    assert "0 of 2 proposals" in invoke(toy_search, "--plan", *alone[1:]).output
    before = set((tmp_path / "toy_search_tuning" / "cells").iterdir())
    assert "2 of 2 proposals (2 complete)" in invoke(toy_search, *alone).output
    assert optuna_states(tmp_path) == {"COMPLETE": 2}
    assert set((tmp_path / "toy_search_tuning" / "cells").iterdir()) == before


@pytest.mark.long
def test_a_failed_cell_ends_its_proposal_and_a_level_without_one_left_is_named(tmp_path):
    answer = invoke(
        toy_search, "--inline", "--results", tmp_path, "--trials", 2,
        "--set", "raise_at_seed=1001",
    )  # fmt: skip
    assert answer.exit_code == 3
    assert "no proposal of pooling=8, pooling=16 is complete" in answer.output
    assert [(r["state"], r["seeds"]) for r in trials(tmp_path)] == [("failed", "1")] * 4
    assert optuna_states(tmp_path) == {"FAIL": 4}
    alone = ("--inline", "--results", tmp_path, "--trials", 2, "--set", "raise_at_seed=1001")
    again = invoke(toy_search, *alone, "--set", "pooling=8")  # another sequence, the same cells
    assert "2 of 2 proposals (2 failed)" in again.output
    retried = invoke(toy_search, *alone, "--retry-failed")
    assert "4 of 4 proposals (4 failed)" in retried.output


REFUSALS = {
    "overlap": (
        ["--seeds", "1001,5", "--tuning-seeds", "3"],
        "tuning and reporting seeds must differ, got 1001 in both",
    ),
    "default outside": (
        ["--set", "ridge=2,3"],
        "the default ridge=1.0 is proposed first and must be in the search's space (2.0, 3.0)",
    ),
    "a round below none": (["--rounds-of", "-1"], "--rounds-of must be at least 0, got -1"),
    "no trials": (["--trials", "0"], "--trials must be at least 1, got 0"),
    "space too small": (
        ["--set", "ridge=1,2", "--set", "pooling=16", "--trials", "3"],
        "the space of pooling=16 has 2 points, so --trials must be at most 2, got 3",
    ),
    "unknown field": (["--set", "rigde=1"], 'did you mean "ridge"?'),
    "two datasets": (["--set", "data=ihc-colon,phantom-xray"], "a search runs on one dataset"),
    "unknown protocol": (["--protocol", "x"], "protocol must be one of held-out, paper, got"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_input_is_refused_by_rule_value_and_remedy(name, tmp_path):
    arguments, message = REFUSALS[name]
    answer = invoke(toy_search, "--results", tmp_path, *arguments)
    assert answer.exit_code == 2
    assert message in " ".join(answer.stderr.split())
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("script", [search_selection, search_apga])
@pytest.mark.parametrize("preset", ["demo", "paper"])
def test_the_real_searches_plan_in_both_presets(script, preset, tmp_path):
    apga_of_the_paper = script is search_apga and preset == "paper"
    names = ("weights", "policy_weights") if apga_of_the_paper else ()
    no_download = [word for name in names for word in ("--set", f"{name}=none")]
    answer = CliRunner().invoke(
        build_app(script.SEARCH, None, script.__doc__),
        ["--plan", "--results", str(tmp_path), "--preset", preset, *no_download],
    )
    assert answer.exit_code == 0, answer.output
    assert "tuning:" in answer.output
    assert "reporting:" in answer.output


def test_a_search_that_would_see_the_test_set_is_refused(tmp_path):
    from dataclasses import replace

    from imaging_core.fields import ConfigError
    from sweeps.engine.search import prepare
    from sweeps.engine.study import Request

    search = replace(toy_search.SEARCH, objective="accuracy")
    with pytest.raises(ConfigError, match=r"must be a validation metric \(val…\), got accuracy"):
        prepare(search, Request(), results=str(tmp_path), trials=None, tuning_seeds=None)


def kill_after(results: Path, cells: int, *arguments: object) -> None:
    """Run the search in a process of its own, and `kill -9` it after `cells` cells."""
    process = subprocess.Popen(
        command("--results", results, *arguments, script=SCRIPT),
        cwd=ROOT,
        env=study_environment(),
        stdout=subprocess.DEVNULL,
    )
    folder = results / "toy_search_tuning" / "cells"
    deadline = time.monotonic() + 200
    try:
        while len(list(folder.glob("[!.]*.parquet"))) < cells:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_told_to_stop_it_says_what_is_there_and_how_to_resume(start, tmp_path):
    process = start("--results", tmp_path, "--inline", "--set", "wait_s=0.2", script=SCRIPT)
    folder = tmp_path / "toy_search_tuning" / "cells"
    while len(list(folder.glob("[!.]*.parquet"))) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143, out
    assert "interrupted (SIGTERM); toy_search: 1 of 12 proposals (1 open)" in out
    assert "To resume: python" in out


@pytest.mark.slow
def test_killed_three_times_it_is_the_undisturbed_search(tmp_path):
    slowly = ("--inline", "--set", "wait_s=0.1")
    for cells in (3, 14, 25):
        kill_after(tmp_path / "killed", cells, *slowly)
    last = elsewhere("--results", tmp_path / "killed", *slowly, script=SCRIPT)
    assert last.returncode == 0, last.stdout + last.stderr
    assert_whole(tmp_path / "killed", asked=12)
    calm = elsewhere("--results", tmp_path / "calm", *slowly, script=SCRIPT)
    assert calm.returncode == 0
    assert trials(tmp_path / "killed") == trials(tmp_path / "calm")
    assert proposals(tmp_path / "killed") == proposals(tmp_path / "calm")
