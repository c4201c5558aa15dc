"""How a run ends, in this process: what is said, in which order, and the exit code."""

import errno
import os
import signal
from functools import partial

import pytest

from cluster.errors import ClusterError, ClusterLost
from imaging_core.fields import ConfigError
from sweeps.engine.session import Session
from sweeps.ledger.files import StoreError
from sweeps.ledger.lock import LateCommit
from sweeps.ledger.schema import LedgerError


def ended(error: BaseException, session: Session | None = None) -> tuple[int, list[str]]:
    """The exit code of a session whose work raises `error`, and the steps that it takes."""
    steps: list[str] = []
    session = session or Session()
    session.count = lambda: "3 of 12 cells are committed"
    session.tables = partial(steps.append, "tables")

    def work() -> int:
        raise error

    return session.conclude(work), steps


@pytest.mark.parametrize(
    "error",
    [
        ClusterLost("the broker died"),
        StoreError("the broker died"),
        LateCommit("the broker died"),
    ],
)
def test_what_ends_a_run_is_named_after_the_tables_with_the_way_back(error, capfd):
    assert ended(error) == (3, ["tables"])
    out, err = capfd.readouterr()
    words = "error: the broker died; 3 of 12 cells are committed. Nothing committed is lost. "
    assert f"{words}To resume: python " in err.replace("\n", " ")
    assert "Traceback" not in out + err


@pytest.mark.parametrize("kind", [ConfigError, LedgerError, ClusterError])
def test_what_was_never_started_is_refused(kind, capfd):
    assert ended(kind("k must be 1, got 2")) == (2, [])
    assert "error: k must be 1, got 2" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_counts_whatever_the_code_that_it_meets_makes_of_it(number, code, capfd):
    before = signal.getsignal(number)
    session = Session()
    session.count = lambda: "3 of 12 cells are committed"

    def work() -> int:
        try:
            os.kill(os.getpid(), number)
        finally:
            raise SystemExit(15)  # as the handler of Ray does

    assert session.conclude(work) == code
    out = capfd.readouterr().out
    assert f"interrupted ({number.name}); 3 of 12 cells are committed. Nothing" in out
    assert signal.getsignal(number) == before


def test_a_folder_that_cannot_be_read_any_more_is_named_and_not_counted(capfd):
    session = Session()
    session.results = "/nowhere/results"

    def work() -> int:
        session.count = partial(os.listdir, "/nowhere")
        raise OSError(errno.EROFS, "Read-only file system", "/nowhere/results/toy/x")

    assert session.conclude(work) == 3
    err = capfd.readouterr().err.replace("\n", " ")
    assert "/nowhere/results cannot be used any more: Read-only file system of /nowhere" in err
    assert "how many cells are committed cannot be read (FileNotFoundError). To resume:" in err


def test_what_nobody_foresaw_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        ended(ZeroDivisionError())
