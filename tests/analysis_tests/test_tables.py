"""Tables: the papers' layouts, what is missing, and bytes that depend on the cells alone."""

import csv
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from toy_ledgers import make_ledger

from analysis import tables
from analysis.layouts import rebuilt
from analysis.published import published_tables
from analysis.rises import rise_table
from sweeps.ledger.read import read_ledger

T3 = "ye2020_t3_cervical_ablation_test"


def entries(table):
    return {
        (row.label, column): entry
        for row in table.rows
        for column, entry in zip(table.columns, row.entries, strict=True)
    }


def test_controller_ablation_in_the_papers_layout(controller_study: Path) -> None:
    (table,) = rebuilt(read_ledger(str(controller_study)), published_tables()[T3])
    assert [row.label for row in table.rows] == [
        "GRU-REINFORCE",
        "GRU-Attn-REINFORCE",
        "Transformer-REINFORCE",
        "GRU-PPO",
        "GRU-Attn-PPO",
        "Transformer-PPO",
    ]
    assert table.columns == ("Accuracy", "AUC", "Sensitivity", "Specificity")
    assert "different data" in table.title
    assert all(row.under == ("  printed",) for row in table.rows)


def test_numbers_are_mean_and_sample_std_of_the_seeds(tmp_path: Path) -> None:
    values = {0: 0.70, 1: 0.72, 2: 0.74, 3: 0.76, 4: 0.78}
    root = make_ledger(tmp_path / "s", value=lambda _levels, seed, _metric: values[seed])
    (table,) = rebuilt(read_ledger(str(root)), published_tables()[T3])
    entry = entries(table)["Transformer-PPO", "AUC"]
    assert entry.text == ".740 ± .032"  # std of five equally spaced values: 0.02·sqrt(2.5)
    assert entry.under == (".890 ± .005",)
    assert entry.values["std"] == pytest.approx(0.02 * np.sqrt(2.5))
    assert len(entry.keys) == 5


def test_missing_and_failed_cells_are_seen_and_never_averaged(tmp_path: Path) -> None:
    def value(_levels, seed, _metric):
        return 0.9 if seed == 4 else 0.5

    root = make_ledger(tmp_path / "s", value=value, failed=(4,), missing=(5, 6, 7, 8, 9, 14))
    (table,) = rebuilt(read_ledger(str(root)), published_tables()[T3])
    found = entries(table)
    failed = found["GRU-REINFORCE", "Accuracy"]
    assert failed.text == ".500 ± .000"
    assert failed.under == (".789 ± .011", "n = 4/5")
    assert failed.values["n_failed"] == 1
    assert found["GRU-Attn-REINFORCE", "Accuracy"].text == "—"
    assert found["GRU-Attn-REINFORCE", "Accuracy"].under == (".804 ± .019", "n = 0/5")
    assert found["Transformer-REINFORCE", "Accuracy"].under == (".812 ± .008", "n = 4/5")
    assert found["GRU-PPO", "Accuracy"].under == (".792 ± .017",)


@pytest.mark.long
def test_every_format_is_written_and_holds_the_same_numbers(controller_study: Path) -> None:
    paths = [Path(p) for p in tables.rebuild(str(controller_study))]
    mine = {p.suffix: p.read_text() for p in paths if p.stem == T3}
    assert set(mine) == {".md", ".tex", ".csv", ".html"}
    rows = list(csv.DictReader(mine[".csv"].splitlines()))
    assert len(rows) == 24
    for row in rows:
        assert row["text"] in mine[".md"]
        assert row["text"] in mine[".html"]
        assert row["text"].replace("±", r"$\pm$") in mine[".tex"]
        printed = published_tables()[T3].values[row["row"], row["column"]]
        assert float(row["published_mean"]) == printed.mean


def test_terminal_table_fits_80_columns(controller_study: Path) -> None:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    tables.print_tables(str(controller_study), console)
    lines = console.export_text().splitlines()
    (row,) = [line for line in lines if "Transformer-PPO" in line]
    assert row.count("±") == 4


@pytest.mark.long
def test_a_folder_that_is_no_study_ends_with_code_2(tmp_path: Path) -> None:
    repository = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "analysis/tables.py", str(tmp_path)],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 2
    assert "no study.json" in run.stderr
    assert "Traceback" not in run.stderr


def test_rows_of_our_own_stand_below_the_papers_six(tmp_path: Path) -> None:
    """A method without a controller is planned once: its name is its row, without a group."""
    factors = {
        "policy_gradient": ("reinforce", "ppo"),
        "controller": ("gru", "gru_attention", "transformer"),
        "method": ("controller", "baseline", "true_half"),
    }
    arms = list(itertools.product(*factors.values()))
    own, values = ("ppo", "transformer"), {"controller": 0.6, "baseline": 0.5, "true_half": 0.9}
    keep = [i for i, arm in enumerate(arms) if arm[2] == "controller" or arm[:2] == own]
    root = make_ledger(
        tmp_path / "s",
        factors=factors,
        keep=keep,
        seeds=(0, 1),
        value=lambda levels, _seed, _m: values[levels["method"]],
    )
    (table,) = rebuilt(read_ledger(str(root)), published_tables()[T3])
    assert [row.label for row in table.rows][5:] == ["Transformer-PPO", "baseline", "true_half"]
    assert [row.group for row in table.rows] == ["reinforce"] * 3 + ["ppo"] * 3 + ["", ""]
    found = entries(table)
    assert found["true_half", "AUC"].values["mean"] == pytest.approx(0.9)
    assert found["Transformer-PPO", "AUC"].values["mean"] == pytest.approx(0.6)


def test_the_rise_of_the_reward_has_its_interval_over_seeds(tmp_path: Path) -> None:
    rises = {0: 0.01, 1: 0.02, 2: 0.03}
    root = make_ledger(
        tmp_path / "s",
        seeds=(0, 1, 2),
        metrics=("accuracy", "reward_rise"),
        value=lambda levels, seed, _m: rises[seed] * (1 if levels["controller"] == "gru" else -1),
    )
    table = rise_table(read_ledger(str(root), details=False))
    rise, interval, seeds = table.rows[0].entries
    assert (rise.text, seeds.text) == (".0200", "3")
    half = 4.302653 * 0.01 / np.sqrt(3)  # t at 97.5 %, two degrees of freedom
    assert interval.values["low"] == pytest.approx(0.02 - half, rel=1e-5)
    assert table.rows[1].entries[0].text == "−.0200"
    assert rise_table(read_ledger(str(make_ledger(tmp_path / "none")), details=False)) is None
