"""Every way out of a run: what is killed, or which signal comes when; what is said, and the code.

Always: one line on what died, how many cells are committed and what to run; no traceback; tables
from what is there where a run did not end by a signal; over in 30 s; and the display never says
"starting" once something has run.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import toy_study
from processes import below
from small_disks import read_only
from studies import SUPPORT, TOY, elsewhere, here, study_environment

from sweeps.ledger.read import read_ledger

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]

TABLES = SUPPORT / "toy_tables.py"
SEARCH = SUPPORT / "toy_search.py"
OVER_S = 30.0
SLACK_S = 30.0  # of a machine that does other things too


@dataclass
class Run:
    """A study in a process of its own, where its results are, and the file of what it said."""

    process: subprocess.Popen
    results: Path
    out: Path

    @property
    def said(self) -> str:
        return self.out.read_text()

    @property
    def cells(self) -> int:
        return len(list(self.results.glob("*/cells/[!.]*.parquet")))

    def wait_until(self, reached, what: str) -> None:
        deadline = time.monotonic() + 150
        while not reached():
            assert self.process.poll() is None, f"over before {what}: {self.said}"
            assert time.monotonic() < deadline, f"never {what}: {self.said}"
            time.sleep(0.05)

    def wait_for_cells(self, at_least: int) -> None:
        self.wait_until(lambda: self.cells >= at_least, f"{at_least} cells")

    def kill(self, title: str) -> None:
        found: list[int] = []
        self.wait_until(lambda: found.extend(below(self.process.pid, title)) or found, title)
        for process in found:
            os.kill(process, signal.SIGKILL)

    def end(self, within_s: float = OVER_S) -> tuple[int, str]:
        """(exit code, what was said), once it is over."""
        try:
            self.process.wait(timeout=within_s + SLACK_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode, self.said


@pytest.fixture
def begin(start, tmp_path) -> Callable[..., Run]:
    """Starts a study whose results are in `tmp_path / name`."""

    def begin(
        *arguments: object, script: Path = TABLES, name: str = "r", **environment: str
    ) -> Run:
        results, out = tmp_path / name, tmp_path / f"{name}.out"
        process = start(
            *("--results", results, *arguments),
            script=script,
            env=study_environment(**environment),
            stdout=out.open("w"),
            stderr=subprocess.STDOUT,
        )
        return Run(process, results, out)

    return begin


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The results of the undisturbed study, without Ray (a cell's waiting changes no number)."""
    results = tmp_path_factory.mktemp("finished") / "r"
    assert here(toy_study, "--inline", "--results", results).returncode == 0
    return results


def hears_signals(process: subprocess.Popen) -> bool:
    """Whether the process has a handler for SIGHUP, which Python itself has not."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return False
    caught = int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16)
    return bool(caught >> (signal.SIGHUP - 1) & 1)


def assert_last_words(out: str, *words: str, committed: bool = True) -> None:
    """The last line tells all, and there is no traceback anywhere."""
    assert "Traceback" not in out, out
    assert "╭" not in out, out
    last = out.strip().splitlines()[-1]
    for expected in (*words, "To resume: python "):
        assert expected in last, out
    if committed:
        assert re.search(r"; .*\b\d+ .*cells (are )?committed\. Nothing committed is lost\.", last)


def assert_display_moved_on(out: str) -> None:
    """No line says "starting" after one that counted something."""
    lines = [line for line in out.splitlines() if line.startswith("cells ")]
    ran = False
    for line in lines:
        ran = ran or not re.match(r"cells 0/\d+ done, 0 running, 0 failed(; stages 0/\d+)?;", line)
        assert not (ran and "starting" in line), out


CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.mark.parametrize(
    ("moment", "signals"),
    [
        *((moment, tuple(CODES)) for moment in ("0.2", "1", "4", "9", "the last step")),
        *(("a cell", (number,)) for number in CODES),
    ],
)
def test_a_signal_at_any_moment(moment, signals, begin, finished, tmp_path):
    """Each signal to a study of its own; side by side where none of them gets to a cell."""
    runs = {}
    for number in signals:
        if moment == "the last step":  # no Ray: nothing is left to compute
            shutil.copytree(finished, tmp_path / number.name)
            runs[number] = begin(name=number.name, TOY_TABLES_S="100")
        else:
            runs[number] = begin("--set", "wait_s=2", name=number.name)
    if moment not in ("a cell", "the last step"):
        time.sleep(float(moment))
    for number, run in runs.items():
        if moment == "a cell":
            run.wait_for_cells(1)
        elif moment == "the last step":
            run.wait_until(lambda run=run: "tables of" in run.said, "in its last step")
        else:
            run.wait_until(lambda run=run: hears_signals(run.process), "listening")
        if moment == "9":
            run.wait_until(lambda run=run: "to compute" in run.said, "planned")
        run.process.send_signal(number)
    for number, run in runs.items():
        returned, out = run.end()
        assert returned == CODES[number], out
        assert_last_words(out, f"interrupted ({number.name})", committed=moment in ("9", "a cell"))
        assert_display_moved_on(out)
        if moment == "the last step":
            assert "12 of 12 cells are committed" in out
        elif moment == "a cell":
            assert "failed" not in read_ledger(str(run.results / "toy")).cells["status"].tolist()


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("gcs/gcs_server", "Ray's head (its GCS) died"),
        ("raylet/raylet", "Ray's node on this machine (its raylet) died"),
        ("ray::Broker", "the broker died: its process was ended"),
        ("ray::Supervisor", "the supervisor of the fleet died"),
    ],
)
def test_what_a_study_cannot_do_without_dies(title, words, begin):
    run = begin("--set", "wait_s=7")
    run.wait_for_cells(1)
    run.kill(title)
    code, out = run.end()
    assert code == 3, out
    assert_last_words(out, "error: ", words, "of 12 cells are committed")
    assert_display_moved_on(out)
    assert re.search(r"^tables of [1-9]\d* cells$", out, re.MULTILINE), out
    assert "failed" not in read_ledger(str(run.results / "toy")).cells["status"].tolist()


def test_what_a_study_can_do_without_dies_and_it_goes_on(begin, finished):
    run = begin("--set", "wait_s=3")
    for cells, title in enumerate(
        ["ray::ResourceTrainable", "ray::RayTrainWorker", "ray::TrainController", "ray::_call"],
        start=1,
    ):
        run.wait_for_cells(cells)
        run.kill(title)
    code, out = run.end(within_s=200)  # without the controller's room given back: 8 minutes
    assert code == 0, out
    assert "Tune's driver died; the study goes on without it" in out
    assert_display_moved_on(out)
    columns = ["arm", "seed", "status", "metric.accuracy"]
    ours, theirs = (
        read_ledger(str(results / "toy")).cells[columns].to_dict("records")
        for results in (run.results, finished)
    )
    assert ours == theirs


def test_the_driver_of_a_search_dies(begin):
    run = begin("--set", "wait_s=2", script=SEARCH)
    run.wait_for_cells(1)
    run.kill("ray::_call")
    code, out = run.end()
    assert code == 3, out
    assert_last_words(out, "Tune's driver died", "tuning cells committed")
    assert_display_moved_on(out)


def test_the_ledger_becomes_read_only(begin):
    run = begin("--set", "wait_s=3")
    run.wait_for_cells(1)
    with read_only(run.results):
        code, out = run.end()
    assert code == 3, out
    assert_last_words(out, "error: ", "could not be written (Read-only", "of 12 cells")
    assert_display_moved_on(out)
    kept = {p.name: p.stat().st_mtime_ns for p in run.results.glob("toy/cells/[!.]*.parquet")}
    again = elsewhere("--results", run.results, "--set", "wait_s=3", script=TOY)
    assert again.returncode == 0, again.stdout + again.stderr
    after = {p.name: p.stat().st_mtime_ns for p in run.results.glob("toy/cells/[!.]*.parquet")}
    assert {name: after[name] for name in kept} == kept
