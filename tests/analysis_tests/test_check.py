"""check.py: planned = committed + listed failures, damaged files named, documented exit codes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from toy_ledgers import make_ledger

from analysis.check import account
from analysis.discover import studies_in
from sweeps.ledger.schema import LedgerError

SMALL = {"factors": {"method": ("a", "b")}, "seeds": (0, 1, 2), "tables": ()}


def run(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "analysis/check.py", str(path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.long
def test_a_complete_study_with_a_listed_failure_is_accounted_for(tmp_path: Path) -> None:
    make_ledger(tmp_path / "one", **SMALL, failed=(4,), predictions=True)
    make_ledger(tmp_path / "two", study="two", **SMALL)
    found = run(tmp_path)
    assert found.returncode == 0
    assert "controller_ablation: 6 planned = 5 committed + 1 failed + 0 missing" in found.stdout
    assert "failed: method=b, seed 1: ValueError: loss is NaN" in found.stdout
    assert "two: 6 planned = 6 committed + 0 failed + 0 missing" in found.stdout


@pytest.mark.long
def test_missing_cells_and_damaged_files_end_with_code_1(tmp_path: Path) -> None:
    root = make_ledger(tmp_path / "one", **SMALL, missing=(4,), predictions=True)
    cell = sorted((root / "cells").iterdir())[0]
    cell.write_bytes(cell.read_bytes()[:50])
    predictions = root / "predictions" / sorted((root / "cells").iterdir())[1].name
    predictions.write_bytes(b"PAR1")
    (root / "quarantine").mkdir()
    shutil.copy(cell, root / "quarantine" / "old.parquet")
    found = run(root)
    assert found.returncode == 1
    assert "6 planned = 4 committed + 0 failed + 2 missing" in found.stdout
    assert f"damaged: cells/{cell.name}: " in found.stdout
    assert f"damaged: predictions of {predictions.stem}: " in found.stdout
    assert "in quarantine: old.parquet" in found.stdout
    assert "run the study's script again" in found.stderr


def test_cells_of_an_earlier_plan_are_counted_apart(tmp_path: Path) -> None:
    root = make_ledger(tmp_path / "one", **SMALL)
    make_ledger(root, **{**SMALL, "seeds": (0, 1)})
    found = account(str(root))
    assert (found.planned, found.committed, found.unplanned) == (4, 4, 2)
    assert found.complete


def test_no_study_anywhere(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"no study in .* name a folder of results"):
        studies_in(str(tmp_path / "nowhere"))
