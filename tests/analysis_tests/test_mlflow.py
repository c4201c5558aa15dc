"""MLflow 3, which does not install beside our pins: exported from the analysis-only environment."""

import json
import subprocess
from pathlib import Path

import pytest
from toy_ledgers import make_ledger

from sweeps.ledger.read import read_ledger

ROOT = Path(__file__).parents[2]
PLACE = ".venv-mlflow"
NO_INDEX = ("No matching distribution", "Could not find a version", "Connection", "resolution")
READ = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(tracking_uri=sys.argv[1])
(experiment,) = [e for e in client.search_experiments() if e.name == sys.argv[2]]
runs = client.search_runs([experiment.experiment_id], max_results=1000)
print(json.dumps([
    {"status": r.info.status, "metrics": r.data.metrics, "params": r.data.params,
     "tags": r.data.tags,
     "curves": {name: [[m.step, m.value] for m in client.get_metric_history(r.info.run_id, name)]
                for name in r.data.metrics}}
    for r in runs]))
"""
SHOW = """
import sys
from sweeps.ledger.files import Store
from sweeps.tracking.writers import open_writer
writer = open_writer("mlflow:" + sys.argv[1], "live", Store(sys.argv[2]))
writer.live("arm_1", {"reward": (0, (0.25, 0.5))})
if sys.argv[3] == "killed":
    sys.exit()
writer.live("arm_1", {"reward": (2, (0.75,))})
writer.live("arm_2", {"reward": (0, (0.1,))})
writer.forget("arm_2")
if sys.argv[3] == "whole":
    writer.close()
"""


@pytest.fixture(scope="module")
def python() -> Path:
    """Of the environment, which is built where it is not there (five minutes)."""
    built = subprocess.run(
        ["make", f"{PLACE}/.installed"], cwd=ROOT, capture_output=True, text=True, timeout=1700
    )
    if built.returncode and any(words in built.stderr for words in NO_INDEX):
        pytest.skip(f"no package index can be reached: {built.stderr.strip().splitlines()[-1]}")
    assert built.returncode == 0, built.stderr
    return ROOT / PLACE / "bin" / "python"


def ask(python: Path, *arguments: object) -> str:
    answer = subprocess.run(
        [python, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_mlflow_holds_is_what_the_ledger_holds(python, tmp_path):
    code = "import importlib.util as u; print([n for n in ('ray', 'torch') if u.find_spec(n)])"
    assert ask(python, "-c", code).strip() == "[]"
    study, uri = str(make_ledger(tmp_path / "s", seeds=(0, 1))), f"sqlite:///{tmp_path}/ml.db"
    for written in (12, 0):
        said = ask(python, "analysis/export.py", study, "--to", f"mlflow:{uri}")
        assert f"{written} of 12 cells written; MLflow experiment" in said
    ledger = read_ledger(study)
    name = ledger.manifest.study
    runs = {r["tags"]["cell"]: r for r in json.loads(ask(python, "-c", READ, uri, name))}
    cells = ledger.cells
    assert set(runs) == set(cells["key"])
    for _, row in cells.iterrows():
        run = runs[row["key"]]
        assert run["status"] == "FINISHED"
        assert run["params"]["seed"] == str(row["seed"])
        metrics = {n.removeprefix("metric."): v for n, v in row.items() if n.startswith("metric.")}
        assert {n: v for n, v in run["metrics"].items() if not n.startswith("curve/")} == {
            n: v for n, v in metrics.items() if v == v
        }
        for name, values in row["curves"].items():
            assert run["curves"][f"curve/{name.replace('=', '_')}"] == [
                [step, value] for step, value in enumerate(values)
            ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_runs_is_shown_and_what_a_killed_run_left_goes(python, tmp_path):
    uri = f"sqlite:///{tmp_path}/ml.db"
    ask(python, "-c", SHOW, uri, tmp_path, "killed")
    ask(python, "-c", SHOW, uri, tmp_path, "running")
    (run,) = json.loads(ask(python, "-c", READ, uri, "live"))
    assert run["curves"] == {"curve/reward": [[0, 0.25], [1, 0.5], [2, 0.75]]}
    ask(python, "-c", SHOW, uri, tmp_path, "whole")
    assert json.loads(ask(python, "-c", READ, uri, "live")) == []
