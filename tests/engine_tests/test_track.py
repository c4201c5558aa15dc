"""--track in a run: the tables do not notice, and whatever is committed is told."""

from pathlib import Path

import learning_search
import pytest
import toy_study
from studies import here
from typer.testing import CliRunner

from sweeps.engine import run
from sweeps.engine.cli import build_app
from sweeps.ledger.read import read_ledger
from sweeps.tracking.writers import TensorBoard

SMALL = ["--inline", "--seeds", "1", "--set", "ridge=1,10", "--set", "pooling=16"]


def tracked(root: Path) -> set[str]:
    return {path.name.rpartition("_")[2] for path in (root / "toy/tensorboard/toy").iterdir()}


def test_cells_are_told_as_they_come_and_those_of_before_too(tmp_path):
    plain = here(toy_study, *SMALL, "--results", tmp_path / "a")
    first = here(toy_study, *SMALL, "--results", tmp_path / "b")
    assert not (tmp_path / "b/toy/tensorboard").exists()
    more = [*SMALL[:1], "--seeds", "2", *SMALL[3:], "--track", "tensorboard"]
    second = here(toy_study, *more, "--results", tmp_path / "b")
    assert plain.returncode == first.returncode == second.returncode == 0
    assert "tracked: tensorboard --logdir" in second.stdout
    cells = read_ledger(str(tmp_path / "b/toy")).cells
    assert tracked(tmp_path / "b") == {key[:8] for key in cells["key"]}
    assert len(cells) == 4
    # A study with nothing left to compute is told too.
    done = here(toy_study, *SMALL, "--results", tmp_path / "a", "--track", "tensorboard")
    assert "nothing was left to compute" in done.stdout
    assert len(tracked(tmp_path / "a")) == 2


def test_the_curves_of_a_running_cell_reach_the_trackers(tmp_path, monkeypatch):
    heard = []
    monkeypatch.setattr(run, "SHARE_EVERY_S", 0.0)
    monkeypatch.setattr(TensorBoard, "live", lambda _, name, points: heard.append((name, points)))
    answer = CliRunner().invoke(
        build_app(learning_search.SEARCH, learning_search.reporting, ""),
        ["--inline", "--trials", "1", "--tuning-seeds", "1", "--results", str(tmp_path),
         "--track", "tensorboard"],
    )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    tuning = read_ledger(str(tmp_path / "learning_search_tuning")).cells
    name = f"trial=0_{tuning['key'][0][-8:]}"
    steps = [points["validation_accuracy"] for of, points in heard if of == name]
    assert [first for first, _ in steps] == list(range(10))
    curve = tuning["curves"][0]["validation_accuracy"]
    assert [value for _, (value,) in steps] == list(curve)


def test_a_tracker_that_cannot_be_used_is_refused_before_anything_runs(tmp_path):
    for spec, message in (
        ("tensorbord", '--track must be one of tensorboard, mlflow, wandb, got "tensorbord"; did'),
        ("mlflow", "--track mlflow needs the package mlflow"),
    ):
        answer = here(toy_study, *SMALL, "--results", tmp_path, "--track", spec)
        assert answer.returncode == 2
        assert message in " ".join(answer.stderr.split())
    assert not list(tmp_path.rglob("cells/*.parquet"))


@pytest.mark.slow
def test_tables_and_cells_are_the_same_with_and_without(tmp_path):
    from sweeps import apga_methods

    small = [
        "--inline", "--quiet", "--seeds", "2", "--data", "phantom-xray", "--set", "k_shot=8",
        "--set", "method=baseline,baseline_matched", "--set", "base_epochs=1", "--set", "epochs=1",
        "--set", "base_min_steps=2", "--set", "min_steps=2",
    ]  # fmt: skip
    for name, more in (("a", ()), ("b", ("--track", f"tensorboard:{tmp_path}/tb"))):
        answer = here(apga_methods, *small, *more, "--results", tmp_path / name)
        assert answer.returncode == 0, answer.stderr
    first, second = (sorted((tmp_path / x / "apga_methods/tables").iterdir()) for x in "ab")
    assert [p.name for p in first] == [p.name for p in second]
    assert all(p.read_bytes() == q.read_bytes() for p, q in zip(first, second, strict=True))
    assert len(list((tmp_path / "tb").glob("*/*"))) == 4
