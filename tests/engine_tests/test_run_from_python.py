"""`run` from Python has the guarantees of the command line; the example notebook works."""

import json
import subprocess
import sys

import pytest
import toy_study
from studies import ROOT, study_environment

from analysis import figures
from sweeps import open_study, run
from sweeps.api import StudyRefused


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch):
    """Slow, and beside the point; the notebook, in a process of its own, draws them."""
    monkeypatch.setattr(figures, "rebuild", lambda root: [])


@pytest.mark.long
def test_a_run_resumes_and_refuses_as_the_command_line_does(tmp_path):
    small = {"ridge": [1, 10], "pooling": 16}
    first = run(toy_study.STUDY, seeds=1, settings=small, results=str(tmp_path), inline=True)
    assert first.cells["status"].tolist() == ["ok", "ok"]
    more = run(toy_study.STUDY, seeds=[0, 4], settings=small, results=str(tmp_path), inline=True)
    assert sorted(more.cells["seed"]) == [0, 0, 4, 4]
    same = more.cells.set_index("key").loc[first.cells["key"], "started"]
    assert same.tolist() == first.cells["started"].tolist()  # computed once
    one = run(toy_study.STUDY, seeds=[4], settings=small, results=str(tmp_path), inline=True)
    assert set(one.cells["seed"]) == {4}
    for wrong in ({"settings": {"rigde": 1}}, {"options": ["--no-such-option"]}):
        with pytest.raises(StudyRefused, match="toy was not started"):
            run(toy_study.STUDY, results=str(tmp_path / "other"), inline=True, **wrong)
    assert not (tmp_path / "other" / "toy").exists()


def test_failed_cells_are_rows_of_what_comes_back(tmp_path):
    found = run(
        toy_study.STUDY, seeds=2, settings={"ridge": 1, "pooling": 16, "raise_at_seed": 1},
        results=str(tmp_path), inline=True,
    )  # fmt: skip
    assert sorted(found.cells["status"]) == ["failed", "ok"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_example_notebook_runs_from_top_to_bottom(tmp_path):
    notebook = json.loads((ROOT / "docs" / "example.ipynb").read_text())
    code = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    assert not any(c["outputs"] for c in notebook["cells"] if c["cell_type"] == "code")
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(code)], cwd=tmp_path, capture_output=True, text=True,
        env=study_environment(PYTHONPATH=str(ROOT)), timeout=880,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    study = open_study(str(tmp_path / "results" / "apga_methods"))
    assert set(study.cells["status"]) == {"ok"}
