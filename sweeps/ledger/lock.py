"""One controller per ledger: the second refuses, naming the first; a dead holder is taken over.

On a local or shared folder the kernel holds the lock (`flock`), so it is free the moment its
holder dies. On an object store the holder writes a beat, and a newcomer that sees the beat stand
still for a while takes over; no two clocks are compared. It watches for a shorter time where the
store's own clock says that the beat has stood still for long already, and not at all where the
holder was a process of this machine that has ended. Either way the lock names the holder by a
token, and a worker that reads another's token there must not commit.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from sweeps.ledger.alive import has_ended, here, started
from sweeps.ledger.books import LOCK_BOOK, Damaged
from sweeps.ledger.files import Store
from sweeps.ledger.schema import LedgerError

LOCK = "lock.json"
BEAT_S = 2.0
STILL_S = 20.0
WATCH_BEATS = 1.5
"""So many beats are watched for whatever the store's clock says: two machines of a store may differ
in the time they have, and a holder that lives beats meanwhile. Who comes long after a machine was
lost waits for no more than these."""
ROUNDED_S = 1.0
"""To which a store may round when an object was written."""
CLOCK = "lock.clock"
"""Written to see what time the store has."""
SETTLE_S = 1.0  # of two that came to a free object store at once, the one that wrote last stays
WIDTH = 256
"""Bytes of the lock, filled up with blanks: its length never changes while the beat counts up, so
a reader that asks for the length first and for the bytes then gets all of them."""


NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""What `flock` answers on a file system that has no locks, or is mounted without."""


class _NoLocks(Exception):
    """The file system has no locks."""


class LateCommit(LedgerError):
    """Another controller holds the ledger, or nobody does any more."""


class Lock:
    """Held while a controller runs; a context manager.

    Raises (on entry):
        LedgerError: another controller holds the ledger, or the folder cannot be written.
        StoreError: the file system or the store does not answer.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.token = uuid.uuid4().hex
        self._handle: int | None = None
        self._stop = threading.Event()
        self._beat = 0
        self._thread: threading.Thread | None = None

    def _say(self) -> None:
        holder = {
            "token": self.token,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "beat": self._beat,
            "where": here(),
            "since": started(os.getpid()),
        }
        self.store.write(LOCK, json.dumps(holder).encode().ljust(WIDTH))

    def _refuse(self) -> None:
        holder = holder_of(self.store) or {"pid": "?", "host": "?"}
        raise LedgerError(
            f"{self.store.root} is in use by process {holder['pid']} on {holder['host']}; wait "
            "for it, stop it, or use another --results folder"
        )

    def _holds(self) -> bool:
        return (holder_of(self.store) or {}).get("token") == self.token

    def _opened(self) -> int:
        folder = Path(self.store.path(""))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
                raise
            raise LedgerError(f"cannot write to {self.store.root}: {error.strerror}") from None

    def __enter__(self) -> "Lock":
        if self.store.local:
            handle = self._handle = self.store.patiently("opened", "lock", self._opened)
            try:
                taken = self.store.patiently("locked", "lock", lambda: _take(handle))
            except _NoLocks as error:
                os.close(handle)
                raise LedgerError(
                    f"the file system of {self.store.root} must have locks, it has none ({error}): "
                    "two studies could write there at once; use another --results folder (a local "
                    "disk) or an s3:// URI, or mount it with locks (Lustre: -o flock, NFS: without "
                    "nolock)"
                ) from None
            if not taken:
                os.close(handle)
                self._refuse()
            self._say()
            return self
        before = _content(self.store)
        if before is not None and not _has_ended(before):
            self._stop.wait(self._watched_s())
            if _content(self.store) not in (before, None):
                self._refuse()
        self._say()
        self._stop.wait(SETTLE_S)
        if not self._holds():
            self._refuse()
        self._thread = threading.Thread(target=self._keep_beating, daemon=True)
        self._thread.start()
        return self

    def _watched_s(self) -> float:
        """How long the lock that is there is watched before it is taken over."""
        self.store.write(CLOCK, b"")
        now, written = self.store.modified(CLOCK), self.store.modified(LOCK)
        self.store.delete(CLOCK)
        if now is None or written is None:
            return STILL_S
        still = (now - written).total_seconds() - ROUNDED_S
        return min(STILL_S, max(STILL_S - still, WATCH_BEATS * BEAT_S))

    def _keep_beating(self) -> None:
        while not self._stop.wait(BEAT_S):
            self._beat += 1
            # A request that failed must not end the beat; the next one may pass.
            with contextlib.suppress(OSError):
                # A lock that somebody removed is written again: nobody else holds the ledger.
                if _content(self.store) is None or self._holds():
                    self._say()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        # A lock that stays is taken over; it must not hide how the run itself ended.
        with contextlib.suppress(OSError):
            if self._holds():
                self.store.delete(LOCK)
        if self._handle is not None:
            os.close(self._handle)


def _has_ended(content: bytes) -> bool:
    """Whether the lock names a process of this machine that runs no more."""
    holder = _named(content)
    return holder is not None and has_ended(holder["pid"], holder["where"], holder["since"])


def _take(handle: int) -> bool:
    """Lock the open file, if nobody has; `is_alive` of another process may have it for a moment."""
    for attempt in range(3):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05 * (attempt < 2))
        except OSError as error:
            if error.errno in NO_LOCKS:
                raise _NoLocks(error.strerror) from None
            raise
        else:
            return True
    return False


def _content(store: Store) -> bytes | None:
    """The lock as it is written, or None where there is none.

    Raises:
        StoreError: that cannot be told.
    """
    try:
        return store.read(LOCK)
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        return b""  # as damaged as an empty file


def holder_of(store: Store) -> dict[str, Any] | None:
    """What the lock says of its holder, or None where nobody holds it or the lock is damaged.

    Raises:
        StoreError: the lock cannot be read.
    """
    return _named(_content(store) or b"")


def _named(content: bytes) -> dict[str, Any] | None:
    try:
        return LOCK_BOOK.parse(LOCK, content).model_dump()
    except Damaged:
        return None


def is_alive(store: Store) -> bool:
    """Whether the holder that the lock names still runs.

    On an object store: whether its last beat is younger than STILL_S, by the store's clock against
    ours. That is good enough to tell a person, and never decides who may write.

    Raises:
        StoreError: that cannot be told.
    """
    if not store.local:
        modified = store.modified(LOCK)
        if modified is None:
            return False
        age = datetime.datetime.now(datetime.UTC) - modified
        return age.total_seconds() < STILL_S
    path = Path(store.path("lock"))
    try:
        handle = store.patiently("opened", "lock", lambda: os.open(path, os.O_RDONLY))
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return _content(store) is not None  # whoever holds it took it where there are locks
    finally:
        os.close(handle)
    return False


def must_hold(store: Store, token: str) -> None:
    """Refuse a commit for a controller that no longer holds the ledger.

    A lock that is there but damaged names nobody, so nobody else's work is in danger.

    Raises:
        LateCommit: the lock is gone or names another controller.
        StoreError: the lock cannot be read.
    """
    content = _content(store)
    holder = _named(content or b"")
    if content is not None and (holder is None or holder["token"] == token):
        return
    now = f"process {holder['pid']} on {holder['host']}" if holder else "nobody"
    raise LateCommit(
        f"late commit refused: the controller of this work has stopped, and {now} holds "
        f"{store.root}"
    )
