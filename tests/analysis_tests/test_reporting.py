"""What every study ends with: tables, figures, the report of all studies, and the account."""

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console
from toy_ledgers import make_ledger

import analysis
from analysis import figures, reading, report, reporting
from sweeps import ablation_controller
from sweeps.ledger.read import Ledger

SMALL = {"factors": {"method": ("a", "b")}, "seeds": (0, 1), "tables": ()}


def run(results: Path, study: str, **options: bool) -> str:
    console = Console(file=io.StringIO(), width=120)
    reporting.run(str(results), study, console, **options)
    return console.file.getvalue()


@pytest.mark.slow
def test_a_study_ends_with_what_the_four_commands_do(tmp_path: Path) -> None:
    root = make_ledger(tmp_path / "controller_ablation", **SMALL, failed=(3,))
    make_ledger(tmp_path / "other", study="other", **SMALL)
    said = run(tmp_path, "controller_ablation")
    assert (root / "tables" / "arms.tex").exists()
    assert (root / "figures" / "curve_reward.pdf").exists()
    page = (tmp_path / "report.html").read_text()
    assert '<section id="study-controller_ablation">' in page
    assert '<section id="study-other">' in page
    assert f"{root}/tables/, {root}/figures/, {tmp_path}/report.html" in said.replace("\n", "")
    assert "controller_ablation: 4 planned = 3 committed + 1 failed + 0 missing" in said
    assert "failed: method=b, seed 1: ValueError: loss is NaN" in said
    assert "every arm on" in said


@pytest.mark.slow
def test_quiet_prints_nothing_unless_cells_are_missing(tmp_path: Path) -> None:
    make_ledger(tmp_path / "one", study="one", **SMALL)
    assert run(tmp_path, "one", quiet=True) == ""
    make_ledger(tmp_path / "two", study="two", **SMALL, missing=(0,))
    said = run(tmp_path, "two", quiet=True)
    assert said == "two: 4 planned = 3 committed + 0 failed + 1 missing\n"


@pytest.mark.slow
def test_a_search_is_accounted_for_with_its_tuning_cells(tmp_path: Path) -> None:
    make_ledger(tmp_path / "one", study="one", **SMALL)
    make_ledger(tmp_path / "one_tuning", study="one_tuning", **SMALL)
    assert "one_tuning: 4 planned = 4 committed" in run(tmp_path, "one")


@pytest.mark.long
def test_without_a_plotting_library_the_rest_still_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_ledger(tmp_path / "one", study="one", **SMALL)
    for name in [m for m in sys.modules if m.startswith("analysis.")]:
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr(analysis, name.split(".")[1], raising=False)
    monkeypatch.setitem(sys.modules, "seaborn", None)  # what Python does where it is not installed
    said = run(tmp_path, "one")
    assert (root / "tables" / "arms.md").exists()
    assert "4 planned = 4 committed" in said
    errors = capsys.readouterr().err
    assert "no figures: ModuleNotFoundError" in errors
    assert f"again: python analysis/figures.py {root}" in errors


@pytest.mark.slow
def test_the_other_studies_sections_are_made_only_when_their_cells_change(tmp_path: Path) -> None:
    one = make_ledger(tmp_path / "one", study="one", **SMALL, missing=(0,))
    make_ledger(tmp_path / "two", study="two", **SMALL)
    report.rebuild(str(tmp_path))
    page = (tmp_path / "report.html").read_bytes()
    kept = one / report.SECTION
    kept.write_text(kept.read_text().replace("Design", "Kept"))
    report.rebuild(str(tmp_path))
    assert (tmp_path / "report.html").read_bytes() == page.replace(b"Design", b"Kept", 1)
    make_ledger(tmp_path / "one", study="one", **SMALL)  # the missing cell is there now
    report.rebuild(str(tmp_path))
    changed = (tmp_path / "report.html").read_text()
    assert "Kept" not in changed
    assert "3 committed" not in changed
    kept.write_text("{")
    report.rebuild(str(tmp_path), redraw=True)
    assert (tmp_path / "report.html").read_text() == changed


@pytest.mark.slow
def test_a_figure_that_fails_costs_the_figures_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_ledger(tmp_path / "one", study="one", **SMALL)

    def out_of_disk(*_args, **_values):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figures.plots, "means", out_of_disk)
    said = run(tmp_path, "one")
    assert (root / "tables" / "arms.md").exists()
    assert "one: 4 planned = 4 committed" in said
    assert "no figures: OSError" in (tmp_path / "report.html").read_text()


def test_the_scripts_end_with_it() -> None:
    scripts = sorted(Path(ablation_controller.__file__).parent.glob("*.py"))
    declaring = ("STUDY = Study(", "SEARCH = Search(")
    mains = [path for path in scripts if any(word in path.read_text() for word in declaring)]
    assert len(mains) == 10
    for path in mains:
        assert ", reporting.run, __doc__)" in path.read_text(), path.name


@pytest.mark.slow
def test_the_last_step_reads_its_study_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = reading.read_ledger

    def counted(root: str, **options: bool) -> Ledger:
        read.append(Path(root).name)
        return real(root, **options)

    monkeypatch.setattr(reading, "read_ledger", counted)
    make_ledger(tmp_path / "one", study="one", **SMALL)
    make_ledger(tmp_path / "other", study="other", **SMALL)
    run(tmp_path, "one")
    assert read.count("one") == 1
    assert read.count("other") == 2  # for the report, and for its figures


def test_a_study_is_the_same_however_its_folder_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_ledger(tmp_path / "one", study="one", **SMALL)
    monkeypatch.chdir(tmp_path)
    with reading.read_once(str(root)):
        kept = reading.ledger_of("one", details=False)
        assert reading.ledger_of(f"{root}/") is kept
        assert "versions" in kept.cells, "whoever asks next may need all of it"
    assert reading.ledger_of("one") is not reading.ledger_of("one"), "only in a last step"
