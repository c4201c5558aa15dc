"""Feeding trackers from the driver while a study runs: never from workers, never in its way."""

import queue
import threading
from collections.abc import Callable, Iterable

from sweeps.ledger.files import Store
from sweeps.tracking.runs import runs_of
from sweeps.tracking.writers import TrackerError, Writer, _first, open_writer

AT_ONCE = 64
"""Cells that are read from the ledger together."""


class Follower:
    """Writes committed cells to the trackers, in a thread of its own.

    A tracker that fails is given up with one warning; the study does not notice.

    Args:
        specs: as `open_writer` takes them.
        study, ledger: the study's name and folder.
        warn: says a line to the user.

    Raises:
        LedgerError: a tracker that there is not, or whose package is not installed.
    """

    def __init__(
        self, specs: Iterable[str], study: str, ledger: Store, warn: Callable[[str], None]
    ) -> None:
        self._ledger, self._warn = ledger, warn
        self._writers: list[Writer] = []
        for spec in specs:
            try:
                self._writers.append(open_writer(spec, study, ledger))
            except TrackerError as error:
                warn(f"{error}; the study goes on without it")
        self._keys: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="trackers", daemon=True)
        if self._writers:
            self._thread.start()

    @property
    def where(self) -> list[str]:
        """What the user looks at."""
        return [writer.where for writer in self._writers]

    def committed(self, keys: Iterable[str]) -> None:
        """These cells are in the ledger; returns at once."""
        for key in keys:
            self._keys.put(key)

    def close(self, timeout_s: float | None = None) -> None:
        """Wait until everything is written, or `timeout_s`."""
        if self._thread.is_alive():
            self._keys.put(None)
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                self._warn("a tracker did not end in time; export what it lacks from the ledger")

    def _run(self) -> None:
        over = False
        while not over:
            keys = [self._keys.get()]
            while len(keys) < AT_ONCE and not self._keys.empty():
                keys.append(self._keys.get())
            over = None in keys
            wanted = [key for key in keys if key is not None]
            try:
                runs = runs_of(self._ledger, wanted) if wanted and self._writers else []
            except Exception as error:  # what the ledger has to say the study says itself
                self._warn(f"trackers could not read {len(wanted)} cells ({_first(error)})")
                continue
            for writer in list(self._writers):
                try:
                    for run in runs:
                        if not writer.has(run):
                            writer.write(run)
                    if over:
                        writer.close()
                except Exception as error:
                    self._writers.remove(writer)
                    self._warn(
                        f"{type(writer).__name__} failed ({_first(error)}); the study goes on "
                        "without it, and analysis/export.py makes up for it"
                    )
