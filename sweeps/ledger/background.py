"""Compaction while a study runs, so that whoever reads its ledger finds few files at any moment."""

import contextlib
import threading
from functools import partial
from types import TracebackType

from sweeps.ledger.compact import Compactor
from sweeps.ledger.files import Store, StoreError
from sweeps.ledger.lock import LateCommit, must_hold

LOOK_S = 10.0
"""Seconds between two looks at how many single files there are."""


class Compacting:
    """A context manager: a thread compacts `store` until the block is left.

    Leaving waits for the file it is at, a few seconds at most. What is left over then is for the
    next run; nothing depends on its having been done.

    Args:
        store: the study's folder.
        token: of the lock that this controller holds. Where another controller holds the ledger,
            compaction ends without a word: the run hears of it at its next commit.

    Raises (on leaving, where nothing else is raised):
        LedgerError: a compacted file does not read back as written.
    """

    def __init__(self, store: Store, token: str) -> None:
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._compactor = Compactor(store, must_hold=partial(must_hold, store, token))
        self._thread = threading.Thread(target=self._run, name="compacting", daemon=True)

    def __enter__(self) -> threading.Thread:
        self._thread.start()
        return self._thread

    def _run(self) -> None:
        try:
            while not self._stop.wait(LOOK_S):
                # A disk or a store that does not answer ends the run where a commit needs it.
                with contextlib.suppress(StoreError):
                    for _ in self._compactor.work():
                        if self._stop.is_set():
                            return
        except LateCommit:
            return
        except Exception as error:
            self._error = error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error
