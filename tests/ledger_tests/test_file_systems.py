"""File systems of shared machines: without locks, and with quotas."""

import errno
import fcntl
import os
import pickle

import pytest
import toy_study
from studies import here

from sweeps.engine.session import Session
from sweeps.engine.stages import StageStore
from sweeps.ledger import files
from sweeps.ledger.files import Store, StoreError, lack_of_room
from sweeps.ledger.lock import Lock, is_alive
from sweeps.ledger.schema import LedgerError

NO_LOCKS = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP]


@pytest.fixture
def lockless(monkeypatch, request):
    def flock(handle, operation):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize("lockless", NO_LOCKS, indirect=True)
def test_a_study_on_a_file_system_without_locks_is_refused_in_a_line(lockless, tmp_path):
    answer = here(toy_study, "--inline", "--quiet", "--results", tmp_path)
    assert answer.returncode == 2
    (line,) = answer.stderr.splitlines()
    assert f"the file system of {tmp_path}/toy must have locks, it has none" in line
    assert "use another --results folder (a local disk) or an s3:// URI, or mount it" in line


@pytest.mark.parametrize("lockless", NO_LOCKS, indirect=True)
def test_whether_somebody_computes_is_what_the_lock_says_where_nobody_can_try(lockless, tmp_path):
    store = Store(tmp_path)
    (tmp_path / "lock").write_text("")
    assert not is_alive(store)
    (tmp_path / "lock.json").write_text("{}")
    assert is_alive(store)


@pytest.mark.parametrize("lockless", NO_LOCKS, indirect=True)
def test_a_stage_is_computed_without_locks(lockless, tmp_path):
    with StageStore(Store(tmp_path))._single_flight("base-0"):
        pass


def test_another_error_of_a_lock_is_no_lack_of_locks(tmp_path, monkeypatch):
    def flock(handle, operation):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(files, "PAUSES_S", ())
    with pytest.raises(StoreError, match="Input/output error"), Lock(Store(tmp_path)):
        pass


@pytest.mark.long
@pytest.mark.parametrize("number", [errno.EDQUOT, errno.ENOSPC])
@pytest.mark.parametrize("after", [2, 9, 20])
def test_a_quota_ends_a_study_as_a_full_disk_does(number, after, tmp_path, monkeypatch):
    """The disk has room, the user has none: told by fsync, as NFS does."""
    real, calls = os.fsync, []

    def fsync(handle):
        calls.append(handle)
        if len(calls) > after:
            raise OSError(number, os.strerror(number))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    answer = here(toy_study, "--inline", "--quiet", "--results", tmp_path)
    assert answer.returncode == 3
    words = " ".join(answer.stderr.split())
    assert f"no space left in {tmp_path}" in words
    assert os.strerror(number) in words
    assert "Nothing committed is lost. Make room, then: python" in words
    assert "--retry-failed" in words
    monkeypatch.setattr(os, "fsync", real)
    again = here(toy_study, "--inline", "--quiet", "--retry-failed", "--results", tmp_path)
    assert again.returncode == 0


def wrapped(error: BaseException) -> BaseException:
    """As Ray hands over what a task raised."""

    class TaskError(Exception):
        cause = pickle.loads(pickle.dumps(error))

    return TaskError("ray::task() ...")


def test_lack_of_room_is_found_wherever_it_stands():
    full = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    stored = StoreError("x could not be written (Disk quota exceeded)", errno.EDQUOT)
    try:
        try:
            raise full
        except OSError as error:
            raise RuntimeError("tuner.pkl was not written") from error
    except RuntimeError as error:
        led = error
    for error in (full, stored, led, wrapped(full), wrapped(stored), ExceptionGroup("g", [full])):
        assert lack_of_room(error) is not None
    # The text alone comes back from a worker.
    assert lack_of_room(StoreError("a in b could not be written (Disk quota exceeded)"))
    assert lack_of_room(StoreError("a in b could not be read (Stale file handle)")) is None
    loop = RuntimeError("a loop")
    loop.__cause__ = wrapped(loop)
    assert lack_of_room(loop) is None


def test_an_error_about_something_else_is_not_blamed_on_the_disk(tmp_path):
    session = Session()
    session.results = str(tmp_path)
    assert not session._disk_is_full(RuntimeError("something else"))
    refusal = LedgerError("--results must be ...")
    refusal.__context__ = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    assert session._disk_is_full(refusal)
    refusal.__suppress_context__ = True  # raised "from None": it says itself what is wrong
    assert not session._disk_is_full(refusal)


def test_a_full_disk_of_another_folder_is_named(tmp_path, capsys):
    session = Session()
    session.results = str(tmp_path)
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/dev/shm/ray/plasma")
    assert session._out_of_room(error) == 3
    assert "no space left in /dev/shm/ray (OSError: No space left" in capsys.readouterr().err
