"""Feeding trackers from the driver while a study runs: never from workers, never in its way."""

import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from sweeps.ledger.files import Store
from sweeps.tracking.runs import live_name, runs_of
from sweeps.tracking.writers import TrackerError, Writer, _first, open_writer

AT_ONCE = 64
"""Messages that are looked at together."""
Points = Mapping[str, tuple[int, tuple[float, ...]]]
"""Curve → the step of the first of these values, and the values of the steps from there."""


@dataclass(frozen=True)
class _Live:
    """New points of something that runs; None: it runs no more."""

    name: str
    points: Points | None


class Follower:
    """Writes committed cells to the trackers, and what runs meanwhile, in a thread of its own.

    The curves of what runs are shown as runs of their own, which go when it ends: what a tracker
    holds of a committed cell is what the ledger holds. A tracker that fails is given up with one
    warning; the study does not notice.

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
        self._running: dict[str, str] = {}  # what has points → the name of its run
        self._said: queue.SimpleQueue[str | _Live | None] = queue.SimpleQueue()
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
            self._said.put(key)

    def points(self, key: str, label: str, points: Points) -> None:
        """A cell or stage that runs has come further; returns at once.

        Args:
            label: its arm, or the stage's name.
        """
        name = self._running.setdefault(key, live_name(key, label))
        self._said.put(_Live(name, points))

    def ended(self, key: str) -> None:
        """It runs no more, however it ended; returns at once."""
        if (name := self._running.pop(key, None)) is not None:
            self._said.put(_Live(name, None))

    def close(self, timeout_s: float | None = None) -> None:
        """Wait until everything is written, or `timeout_s`."""
        if self._thread.is_alive():
            for key in list(self._running):
                self.ended(key)
            self._said.put(None)
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                self._warn("a tracker did not end in time; export what it lacks from the ledger")

    def _run(self) -> None:
        over = False
        while not over:
            said = [self._said.get()]
            while len(said) < AT_ONCE and not self._said.empty():
                said.append(self._said.get())
            over = None in said
            wanted = [key for key in said if isinstance(key, str)]
            live = [message for message in said if isinstance(message, _Live)]
            try:
                runs = runs_of(self._ledger, wanted) if wanted and self._writers else []
            except Exception as error:  # what the ledger has to say the study says itself
                self._warn(f"trackers could not read {len(wanted)} cells ({_first(error)})")
                runs = []
            for writer in list(self._writers):
                try:
                    for message in live:
                        if message.points is None:
                            writer.forget(message.name)
                        else:
                            writer.live(message.name, message.points)
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
