"""What a user types as a path means the same to a worker, which runs elsewhere."""

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import toy_search
import toy_study
from PIL import Image
from studies import here
from typer.testing import CliRunner

from apga_core.config import APGAConfig
from imaging_core.fields import ConfigError, as_typed
from selection_core.config import SelectionConfig
from sweeps.engine import run
from sweeps.engine.cli import build_app
from sweeps.engine.plan import make_plan
from sweeps.engine.search import prepare
from sweeps.engine.study import Request, expand
from sweeps.ledger.places import whole
from sweeps.ledger.schema import LedgerError


def make_folder(folder: Path) -> None:
    """40 grey images of 8 × 8 in two classes, each its own patient."""
    folder.mkdir(parents=True)
    rows = ["path,label,group"]
    for i in range(40):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
        rows.append(f"{i:02d}.png,{'ab'[i % 2]},p{i}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A working directory with `data/hips`, which is the home directory as well."""
    make_folder(tmp_path / "site" / "data" / "hips")
    monkeypatch.chdir(tmp_path / "site")
    monkeypatch.setenv("HOME", str(tmp_path / "site"))
    return tmp_path / "site"


def data_of(study, request: Request) -> set[str]:
    from sweeps.engine.study import apply

    applied, shared = apply(study, request)
    return {arm.data for arm in expand(applied, shared, request.data or study.data)}


@pytest.mark.parametrize("typed", ["data/hips", "./data/hips", "~/data/hips", "ABSOLUTE"])
@pytest.mark.parametrize("how", ["--data", "--set"])
def test_a_cell_is_computed_wherever_its_worker_stands(typed, how, site, monkeypatch):
    """Workers of Ray Train stand in a folder of their own, so a relative path failed every cell."""
    real = run.execute

    def elsewhere(payload, **options):
        os.chdir("/")
        return real(payload, **options)

    monkeypatch.setattr(run, "execute", elsewhere)
    place = str(site / "data" / "hips") if typed == "ABSOLUTE" else typed
    text = f"folder:{place}?size=8"
    chosen = ["--data", text] if how == "--data" else ["--set", f"data={text}"]
    answer = here(
        toy_study, "--inline", "--seeds", "1", "--set", "ridge=1.0", "--set", "pooling=8",
        "--set", "k_shot=0",
        *chosen, "--results", "results",
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr
    (cell,) = (site / "results" / "toy" / "cells").iterdir()
    assert pq.read_table(cell)["data"].to_pylist() == [f"folder:{site}/data/hips?size=8"]


def test_a_place_has_one_key_however_it_is_typed(site, tmp_path):
    def keys(data: str) -> frozenset[str]:
        request = Request(data=data, seeds="2")
        return make_plan(
            toy_study.STUDY, request, results=str(tmp_path / "r"), retry_failed=False
        ).keys

    typed = keys("folder:data/hips?size=8")
    assert typed == keys(f"folder:{site}/data/hips?size=8")
    # The level of a factor keeps the name that was typed, by which tables call it.
    request = Request(settings=("data=folder:data/hips?size=8,ihc-colon",), seeds="2")
    plan = make_plan(toy_study.STUDY, request, results=str(tmp_path / "r"), retry_failed=False)
    assert {cell.key for cell in plan.cells if "hips" in cell.arm.label} == typed
    assert any("data=folder:data/hips?size=8" in arm.label for arm in plan.arms)


def test_a_search_knows_its_data_everywhere(site):
    tuning = prepare(
        toy_search.SEARCH,
        Request(settings=("data=folder:data/hips?size=8", "k_shot=0")),
        results=str(site / "results"),
        trials=2,
        tuning_seeds=None,
    )
    assert tuning.data == f"folder:{site}/data/hips?size=8"


def test_data_is_named_once(site):
    answer = here(toy_study, "--plan", "--data", "ihc-colon", "--set", "data=phantom-xray")
    assert answer.returncode == 2
    assert "the data must be named once" in answer.stderr


def test_words_that_are_no_places_stay_words():
    request = Request(settings=("data=phantom-xray:hip-whole,ihc-colon",))
    assert data_of(toy_study.STUDY, request) == {"phantom-xray:hip-whole", "ihc-colon"}


@pytest.mark.parametrize("field", ["weights_path", "policy_weights_path"])
def test_weights_are_named_in_full(field, site):
    (site / "w.pt").write_bytes(b"weights")
    for typed in ("w.pt", "~/w.pt", str(site / "w.pt")):
        found = getattr(APGAConfig(**{field: typed}), field)
        assert found.startswith(str(site / "w.pt"))
    assert getattr(APGAConfig(), field) == ""


def test_a_pool_is_named_in_full(site):
    (site / "pool" / "a").mkdir(parents=True)
    for typed in ("./pool", "~/pool", "pool"):
        assert SelectionConfig(pool=typed).pool.startswith(f"{site}/pool#")


@pytest.mark.parametrize("command", [toy_study, toy_search])
@pytest.mark.parametrize(
    ("typed", "rule"),
    [
        ("s3:/bucket/results", "a URI is written s3://bucket/results, a folder of that name ./s3:"),
        ("file:/tmp/x", "a URI is written file:///tmp/x"),
        ("gs:bucket", "a URI is written gs://bucket"),
        ("", '--results must name a folder or a URI, got ""'),
        ("   ", "--results must name a folder or a URI"),
        ("results\\x", "--results must have / between folders"),
        ("~nobody-of-that-name/x", "set HOME, or write the path in full"),
    ],
)
def test_results_that_nobody_means_are_refused(command, typed, rule, site):
    if command is toy_search:
        app = build_app(toy_search.SEARCH, toy_search.reporting, "")
        answer = CliRunner().invoke(app, ["--plan", "--results", typed], env={"COLUMNS": "200"})
        code = answer.exit_code
    else:
        answer = here(command, "--plan", "--results", typed)
        code = answer.returncode
    assert code == 2
    assert rule in " ".join(answer.stderr.split())
    assert sorted(os.listdir(site)) == ["data"]


def test_results_in_the_home_directory_lie_there(site, monkeypatch):
    (site / "elsewhere").mkdir()
    monkeypatch.chdir(site / "elsewhere")
    assert whole("~/medrl") == f"{site}/medrl"
    assert here(toy_study, "--plan", "--results", "~/medrl").returncode == 0
    assert os.listdir(site / "elsewhere") == []
    assert whole("./s3:") == f"{site}/elsewhere/s3:"
    assert whole("s3://bucket/results") == "s3://bucket/results"


def test_a_home_that_nobody_knows_is_named(monkeypatch):
    def unknown(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", unknown)
    with pytest.raises(LedgerError, match="set HOME, or write the path in full"):
        whole("~/x")
    with pytest.raises(ConfigError, match=r"the home directory in .* is not known; set HOME"):
        data_of(toy_study.STUDY, Request(data="folder:~/x"))
    with pytest.raises(ConfigError, match="set HOME"):
        as_typed(SelectionConfig, "pool", "~/x")


@pytest.mark.parametrize(
    ("typed", "rule"),
    [
        ("folder:", "folder needs a folder; write --data folder:PATH"),
        ("folder: ", "the path of folder must name a file or folder"),
        ("folder:data\\hips", "between folders stands /"),
        (f"folder:{'x' * 300}", "must be a folder that can be read"),
        (f"medmnist:{'x' * 300}.npz", "must be a file that can be read"),
    ],
)
def test_data_that_cannot_be_there_is_refused(typed, rule, site):
    answer = here(toy_study, "--plan", "--data", typed, "--results", "r")
    assert answer.returncode == 2
    assert rule in answer.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--results", "r\udce9sultats"),
        ("--data", "folder:donn\udce9es"),
        ("--data", "ihc-colon\udce9"),
        ("--set", "data=folder:donn\udce9es"),
        ("--set", "pooling=\udce9"),
    ],
)
def test_bytes_of_another_encoding_are_refused_before_a_row_cannot_hold_them(arguments, site):
    """As arguments come from a file system in Latin-1, or where LC_ALL=C hides UTF-8."""
    answer = here(toy_study, "--plan", *arguments)
    assert answer.returncode == 2
    assert "must be text in UTF-8" in answer.stderr
    assert set(os.listdir(site)) <= {"data", "results"}


@pytest.mark.parametrize("name", [f"./{'x' * 300}", "x" * 300, "pool"])
def test_a_pool_that_cannot_be_read_is_refused(name, site):
    (site / "pool").write_text("no folder")
    with pytest.raises(ConfigError, match="pool: "):
        as_typed(SelectionConfig, "pool", name)
