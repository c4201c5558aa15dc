"""A ledger written by schema version 1 stays readable for ever, here and in a clean environment."""

import datetime
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.check import account
from analysis.tables import rebuild
from sweeps.ledger.read import committed_keys, read_ledger, read_predictions

REPOSITORY = Path(__file__).parents[2]
FIXTURE = REPOSITORY / "tests" / "assets" / "ledger_v1"


def test_every_value_of_the_ledger_of_version_1_is_read() -> None:
    ledger = read_ledger(str(FIXTURE))
    cells = ledger.cells
    assert not ledger.damaged
    assert cells["status"].tolist() == ["ok", "ok", "failed", "ok", "ok", "missing"]
    assert cells["seed"].tolist() == [0, 1, 2, 0, 1, 2]
    assert cells["factor.policy_gradient"].tolist() == ["reinforce"] * 3 + ["ppo"] * 3
    done = cells[cells["status"] == "ok"]
    assert done["metric.accuracy"].tolist() == [0.70, 0.71, 0.74, 0.75]
    assert done["metric.auc"].tolist() == [0.75, 0.76, 0.79, 0.80]
    first = done.iloc[0]
    assert first["config"] == '{"controller":"gru","k_shot":16,"policy_gradient":"reinforce"}'
    assert first["versions"] == {"numpy": "2.0.0", "torch": "2.15.0"}
    assert first["stage_keys"] == {"pool": "abc123"}
    assert first["started"] == datetime.datetime(2026, 11, 21, 3, 0, tzinfo=datetime.UTC)
    assert first["curves"]["reward"][0] == pytest.approx(0.14)
    assert (first["git_commit"], first["host"]) == ("0123456789abcdef", "bench-1")
    failed = cells[cells["status"] == "failed"].iloc[0]
    assert (failed["error_type"], failed["error"]) == ("ValueError", "loss is NaN")
    assert committed_keys(ledger.store) == set(done["key"])
    predictions = read_predictions(ledger.store, first["key"])
    assert len(predictions) == 60
    assert predictions["group"].nunique() == 12
    assert predictions["label"].sum() == 30
    assert predictions["probabilities"][0].tolist() == pytest.approx([0.8, 0.2])


def test_its_account_and_its_table(tmp_path: Path) -> None:
    found = account(str(FIXTURE))
    assert (found.planned, found.committed, found.failed, found.missing) == (6, 4, 1, 1)
    study = Path(shutil.copytree(FIXTURE, tmp_path / "study"))
    rebuild(str(study))
    text = (study / "tables" / "ye2020_t3_cervical_ablation_test.csv").read_text()
    assert "GRU-REINFORCE,Accuracy,.705 ± .007,.789 ± .011; n = 2/3" in text
    assert "GRU-PPO,Specificity,.765 ± .007,.912 ± .010; n = 2/3" in text


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_clean_environment_without_ray_or_torch_makes_every_output(tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True, timeout=120)
    python = str(environment / "bin" / "python")
    source = tmp_path / "source"
    kept = ("analysis", "sweeps", "pyproject.toml")
    for name in (*kept, "apga_core", "cluster", "imaging_core", "selection_core"):
        path = REPOSITORY / name
        copy = shutil.copytree if path.is_dir() else shutil.copyfile
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        copy(path, source / name)
    (source / "README.md").write_text("")  # pyproject.toml names it
    install = [python, "-m", "pip", "install", "--quiet", f"{source}[analysis]"]
    run = subprocess.run(install, capture_output=True, text=True, timeout=780)
    assert run.returncode == 0, run.stderr[-2000:]
    for module in ("torch", "ray", "optuna"):
        there = subprocess.run(
            [python, "-c", f"import {module}"], cwd=tmp_path, capture_output=True
        )
        assert there.returncode != 0, f"{module} came along with the analysis extra"
    study = shutil.copytree(FIXTURE, tmp_path / "results" / "study")
    for script, code in (("tables", 0), ("figures", 0), ("report", 0), ("check", 1)):
        run = subprocess.run(
            [python, str(REPOSITORY / "analysis" / f"{script}.py"), str(study)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert run.returncode == code, run.stderr[-2000:]
    assert (study / "tables" / "arms.tex").exists()
    assert (study / "figures" / "curve_reward.pdf").exists()
    assert "<section" in (study / "report.html").read_text()
