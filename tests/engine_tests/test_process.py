"""Where people start a study: notebooks, plain terminals, full disks, folders that are gone."""

import io
import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest
from studies import ROOT, TOY, study_environment

from analysis import figures, plots
from sweeps.engine import worker
from sweeps.process import command_line, headless, stream_to

NOTEBOOK = "module://matplotlib_inline.backend_inline"
PLAIN = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
WITH_FIGURES = """
import toy_study
from analysis import reporting
from sweeps.engine.cli import main
main(toy_study.STUDY, reporting.run, __doc__)
"""


def start(
    *arguments: object, code: str = "", script: Path = TOY, **options
) -> subprocess.CompletedProcess:
    """The toy study (another script, `code`) in its own process; `env` adds to the environment."""
    what = ["-c", code] if code else [str(script)]
    return subprocess.run(
        [sys.executable, *what, *map(str, arguments)],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": 120}
        | options
        | {"env": study_environment(**options.pop("env", {}))},
    )


@pytest.mark.slow
def test_a_notebooks_command_on_a_plain_terminal_without_docstrings_ends_with_figures(tmp_path):
    """MPLBACKEND of Jupyter, Colab, Kaggle; LC_ALL=C; PYTHONOPTIMIZE=2: each ended in a traceback,
    the first after the training of every cell."""
    answer = start(
        *("--inline", "--seeds", "2", "--set", "pooling=8", "--results", tmp_path),
        code=WITH_FIGURES,
        env={"MPLBACKEND": NOTEBOOK, "PYTHONOPTIMIZE": "2", **PLAIN},
    )
    assert answer.returncode == 0, answer.stderr
    assert "6 of 6 cells are committed" in answer.stdout
    assert "3 arms x 2 seeds = 6 cells" in answer.stdout
    assert "+/-" in answer.stdout
    assert answer.stderr == ""
    assert (tmp_path / "report.html").exists()
    assert list((tmp_path / "toy" / "figures").glob("*.png"))


@pytest.mark.parametrize("value", [NOTEBOOK, "nonsense", "TkAgg"])
def test_whatever_the_environment_says_a_worker_can_import_matplotlib(value, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", value)
    monkeypatch.setenv("MATPLOTLIBRC", "/somebody/elses")
    monkeypatch.setattr(worker, "_threads_set", False)
    worker.prepare_process()
    assert os.environ["MPLBACKEND"] == "Agg"
    assert os.environ["MATPLOTLIBRC"] == os.devnull


NO_TEXT = b"lines.linewidth: 6 # caf\xe9\n"


def _leave(folder: Path, what: str) -> None:
    """What a user's matplotlib may find in `folder`, its configuration and working directory."""
    if what == "a folder":
        (folder / "matplotlibrc").mkdir()
    elif what == "a style that is no text":
        (folder / "stylelib").mkdir()
        (folder / "stylelib" / "mine.mplstyle").write_bytes(NO_TEXT)
    else:
        (folder / "matplotlibrc").write_bytes(NO_TEXT)
    if what == "a file that cannot be read":
        (folder / "matplotlibrc").chmod(0)


@pytest.mark.slow
@pytest.mark.parametrize("script", ["figures", "report"])
@pytest.mark.parametrize(
    "what", ["no text", "a folder", "a file that cannot be read", "a style that is no text"]
)
def test_a_script_run_alone_draws_whatever_a_user_left_for_matplotlib(tmp_path, what, script):
    _leave(tmp_path, what)
    answer = start(
        "--help", script=ROOT / "analysis" / f"{script}.py",
        env={"MPLBACKEND": NOTEBOOK, "MPLCONFIGDIR": str(tmp_path)}, cwd=tmp_path,
    )  # fmt: skip
    assert (answer.returncode, answer.stderr) == (0, "")


def test_a_users_style_that_is_no_text_stops_no_worker(tmp_path):
    """Whoever imports pyplot next, torchmetrics for one, would read it."""
    _leave(tmp_path, "a style that is no text")
    code = "from sweeps.process import headless; headless(); import matplotlib.pyplot as p; "
    code += "import matplotlib; print('ggplot' in p.style.available, matplotlib.get_configdir())"
    answer = start(code=code, env={"MPLCONFIGDIR": str(tmp_path)})
    assert answer.stdout.split() == ["True", str(tmp_path)], answer.stderr


def test_a_matplotlibrc_that_is_no_text_in_the_working_directory_stops_nothing(tmp_path):
    (tmp_path / "matplotlibrc").write_bytes(b"lines.linewidth: 6 # caf\xe9\n")
    code = "from sweeps.process import headless; headless(); import matplotlib, os; "
    code += "print(matplotlib.rcParams['lines.linewidth'], os.getcwd())"
    answer = start(code=code, cwd=tmp_path)
    assert answer.stdout.split() == ["1.5", str(tmp_path)], answer.stderr


def test_a_users_matplotlibrc_changes_no_byte_and_stops_no_figure():
    def drawn() -> bytes:
        with plots.style():
            figure, axes = mpl.pyplot.subplots()
            axes.plot([0, 1], [1, 0], label="a")
            axes.legend()
            figure.canvas.draw()
            pixels = bytes(figure.canvas.buffer_rgba())
            mpl.pyplot.close(figure)
        return pixels

    plain = drawn()
    theirs = {"lines.linewidth": 6.0, "text.usetex": True, "font.size": 20.0, "figure.dpi": 50}
    with mpl.rc_context(theirs):
        assert drawn() == plain
        assert mpl.rcParams["lines.linewidth"] == 6.0  # and theirs is back afterwards


@pytest.mark.slow
def test_a_redraw_that_fails_leaves_the_older_figures(tmp_path, toy_results, monkeypatch):
    before = {path: Path(path).read_bytes() for path in figures.rebuild(toy_results)}
    assert before

    def fails_late(ledger):
        yield from list(figures_of(ledger))[:1]
        raise RuntimeError("no LaTeX here")

    figures_of = figures.study_figures
    monkeypatch.setattr(figures, "study_figures", fails_late)
    with pytest.raises(RuntimeError, match="no LaTeX here"):
        figures.rebuild(toy_results, redraw=True)
    assert {path: Path(path).read_bytes() for path in before} == before


@pytest.fixture
def toy_results(tmp_path) -> str:
    import toy_study
    from studies import here

    chosen = ["--inline", "--seeds", "2", "--set", "pooling=8", "--set", "k_shot=16"]
    assert here(toy_study, *chosen, "--results", tmp_path).returncode == 0
    return str(tmp_path / "toy")


@pytest.mark.slow
def test_a_full_device_at_standard_output_stops_no_cell_and_is_said(tmp_path):
    with open("/dev/full", "w") as full:
        answer = start("--inline", "--results", tmp_path, "--seeds", "1", stdout=full)
    assert answer.returncode == 3
    assert answer.stderr.startswith("error: standard output cannot be written (No space left")
    assert "Traceback" not in answer.stderr
    assert len(list((tmp_path / "toy" / "cells").iterdir())) == 6
    # The disk of the results is not blamed.
    assert str(tmp_path) not in answer.stderr


@pytest.mark.long
def test_standard_output_that_was_closed_takes_no_other_file_with_it(tmp_path):
    answer = start(*("--plan", "--results", tmp_path), stdout=None, preexec_fn=lambda: os.close(1))
    assert (answer.returncode, answer.stderr) == (0, "")


@pytest.mark.long
def test_a_reader_who_has_read_enough_stops_nothing(tmp_path):
    read, write = os.pipe()
    os.close(read)
    answer = start("--plan", "--results", tmp_path, stdout=write)
    os.close(write)
    assert (answer.returncode, answer.stderr) == (0, "")


def test_a_stream_of_a_notebook_stays(monkeypatch, capsys):
    """`%run sweeps/….py` shows its output in the cell, not where the server was started."""
    mine, before = io.StringIO(), sys.stderr
    monkeypatch.setattr(sys, "stdout", mine)

    def in_the_cell() -> None:
        with command_line():
            print("in the cell")
            raise SystemExit(0)

    with pytest.raises(SystemExit) as end:
        in_the_cell()
    assert end.value.code == 0
    assert mine.getvalue() == "in the cell\n"
    assert sys.stderr is before


def test_a_working_directory_that_is_gone_is_named(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    answer = start(
        *("--plan", "--results", tmp_path / "r"), cwd=gone, preexec_fn=lambda: os.rmdir(gone)
    )
    assert answer.returncode == 2
    assert "the working directory must be there" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", "a +/- b <= 3 ? caf?\n"),
        ("latin-1", "a ± b <= 3 ? café\n"),
        ("utf-8", "a ± b ≤ 3 図 café\n"),
    ],
)
def test_a_stream_shows_what_its_encoding_can(encoding, shown, tmp_path):
    with (tmp_path / "out").open("wb") as file:
        print("a ± b ≤ 3 図 café", file=stream_to(file.fileno(), encoding), flush=True)
    assert (tmp_path / "out").read_text(encoding=encoding) == shown


def test_a_surrogate_of_an_argument_in_another_encoding_is_shown(tmp_path):
    with (tmp_path / "out").open("wb") as file:
        print("r\udce9sultats", file=stream_to(file.fileno(), "utf-8"), flush=True)
    assert (tmp_path / "out").read_text() == "r?sultats\n"


def test_headless_is_for_processes_of_ours_alone(monkeypatch):
    """A core used in a notebook leaves the notebook's backend alone."""
    monkeypatch.setenv("MPLBACKEND", NOTEBOOK)
    import imaging_core.metrics  # noqa: F401

    assert os.environ["MPLBACKEND"] == NOTEBOOK
    headless()
    assert os.environ["MPLBACKEND"] == "Agg"
