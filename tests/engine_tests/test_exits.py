"""Every way out of a command, and its exit code; what is said at each is in `test_session`."""

import errno
import signal
import subprocess
import sys

import pytest
import toy_study
from studies import ROOT, here, study_environment

from cluster.errors import ClusterError, ClusterLost
from imaging_core.datasets import DataError
from imaging_core.fields import ConfigError
from sweeps.engine.session import Interrupted, Session
from sweeps.exits import EXIT_CODES, OK, SOME_FAILED, UNFORESEEN, USAGE, code_of
from sweeps.ledger.files import StoreError
from sweeps.ledger.lock import LateCommit
from sweeps.ledger.schema import LedgerError


class OfOneKind(ClusterLost):
    """A subclass has its ancestor's code."""


WAYS_OUT = [
    (ConfigError("k must be 1, got 2"), USAGE),
    (DataError("an image is empty"), USAGE),
    (LedgerError("no study there"), USAGE),
    (ClusterError("no cluster answers"), USAGE),
    (ClusterLost("the broker died"), SOME_FAILED),
    (OfOneKind("the broker died"), SOME_FAILED),
    (StoreError("the store does not answer"), SOME_FAILED),
    (LateCommit("another controller has the ledger"), SOME_FAILED),
    (OSError(errno.ENOSPC, "No space left on device"), SOME_FAILED),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), SOME_FAILED),
    (OSError(errno.EROFS, "Read-only file system"), SOME_FAILED),
    (OSError(errno.EIO, "Input/output error"), SOME_FAILED),
    (OSError(errno.ESTALE, "Stale file handle"), SOME_FAILED),
    (Interrupted(signal.SIGINT), 130),
    (Interrupted(signal.SIGTERM), 143),
    (Interrupted(signal.SIGHUP), 129),
]


@pytest.mark.parametrize(("error", "code"), WAYS_OUT, ids=lambda value: str(value)[:40])
def test_whatever_ends_a_run_has_its_code(error, code, tmp_path, capfd):
    session = Session()
    session.results = str(tmp_path)

    def work() -> int:
        session.count = lambda: "3 of 12 cells are committed"
        raise error

    assert session.conclude(work) == code
    assert "Traceback" not in "".join(capfd.readouterr())
    assert str(code) in EXIT_CODES


def test_what_nobody_foresaw_has_its_own_code_and_its_traceback():
    code = "from sweeps.engine.session import Session\nSession().conclude(lambda: 1 / 0)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=study_environment(), capture_output=True
    )
    assert (found.returncode, code_of(ZeroDivisionError())) == (UNFORESEEN, UNFORESEEN)
    assert b"ZeroDivisionError" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--plan",), OK),
        (("--inline",), OK),
        (("--inline", "--set", "raise_at_seed=1"), SOME_FAILED),
        (("--seeds", "0"), USAGE),
        (("--no-such-option",), USAGE),
    ],
)
def test_whatever_a_run_comes_to_has_its_code(arguments, code, tmp_path):
    arm = ("--set", "pooling=8", "--set", "ridge=1", "--results", tmp_path)
    assert here(toy_study, *arm, *arguments).returncode == code
