"""What the person at the terminal sees while a study runs: one live line, and a last one."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from cluster.traffic import CELL, Key
from sweeps.engine.pace import Pace, duration

PLAIN_EVERY_S = 15.0


class Display:
    """Counts cells and stages as events arrive, and shows them.

    Args:
        total: cells planned; `committed` of them were there before this run.
        stages: keys of the stages to compute; None where nobody knows yet, as in a search.
        tell: `tell(slots, started, left_s)` is called every `tell_every_s` seconds or so with what
            runs, since when (time.time()), and `compute_left_s`, for whoever looks from elsewhere.
    """

    def __init__(
        self,
        console: Console,
        *,
        total: int,
        committed: int,
        todo: int,
        stages: Iterable[str] | None,
        quiet: bool,
        tell: Callable[[int, Mapping[str, float], float | None], None],
        tell_every_s: float,
    ) -> None:
        self.console = console
        self._tell, self._tell_every_s, self._told = tell, tell_every_s, 0.0
        self._since: dict[str, float] = {}
        self.total, self.done = total, committed
        self.todo = todo
        self.finished = 0
        self.failed = 0
        self.stages_left = None if stages is None else Counter(Key(key).stage for key in stages)
        self.stages = self.stages_left.total() if self.stages_left else 0
        self.stages_done = 0
        self.running: dict[str, str] = {}
        self.pace = Pace()
        self.slots = 1
        self.note = "starting"
        self._began = time.monotonic()
        self._said = 0.0
        self.on_commit: Callable[[list[str]], None] | None = None  # hears each cell's key
        self._quiet = quiet
        self._live = (
            Live(self._text(), console=console, refresh_per_second=4, transient=True)
            if console.is_terminal and not quiet
            else None
        )

    def __enter__(self) -> "Display":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    @property
    def compute_left_s(self) -> float | None:
        """Seconds of one worker that are left, from this run's own; None before its first cell.

        Where the stages are not known a cell is taken to need what a finished one needed, and an
        arm that a search will stop early to be computed to its end.
        """
        if not self.finished:
            return None
        left = self.todo - self.finished - self.failed
        if self.stages_left is None:
            return left * self.pace.total_s / self.finished
        return left * self.pace.mean_s(CELL) + self._stages_left_s

    @property
    def _stages_left_s(self) -> float:
        left = self.stages_left or {}
        return sum(n * self.pace.mean_s(kind) for kind, n in left.items())

    def _left(self) -> str:
        slots, seconds = max(1, self.slots), self.compute_left_s
        if seconds is not None:
            how = "at most" if self.stages_left is None else "about"
            return f"{how} {duration(seconds / slots)} left"
        left = [kind for kind, n in (self.stages_left or {}).items() if n]
        if left and all(self.pace.knows(kind) for kind in left):
            return f"about {duration(self._stages_left_s / slots)} to the last stage"
        return self.note

    def _text(self) -> Text:
        width = 24
        filled = round(width * (self.done + self.failed) / max(self.total, 1))
        arms = ", ".join(sorted(set(self.running.values()))[:2])
        line = (
            f"cells {self.done}/{self.total} done, {len(self.running)} running, "
            f"{self.failed} failed"
        )
        if self.stages:
            line += f"; stages {self.stages_done}/{self.stages}"
        line += f"; {duration(time.monotonic() - self._began)}, {self._left()}"
        text = Text("━" * filled, style="green")
        text.append("━" * (width - filled), style="bright_black")
        text.append(f" {line}")
        if arms:
            text.append(f"\n  {arms}", style="cyan")
        return text

    def refresh(self) -> None:
        """Show the present state, and tell it to whoever looks from elsewhere."""
        if time.monotonic() - self._told >= self._tell_every_s:
            self._told = time.monotonic()
            self._tell(self.slots, self._since, self.compute_left_s)
        self._show()

    def _show(self) -> None:
        """On a terminal at once, in a file now and then."""
        if self._live:
            self._live.update(self._text())
        elif not self._quiet and time.monotonic() - self._said > PLAIN_EVERY_S:
            self._said = time.monotonic()
            line = self._text().plain.partition(" ")[2].partition("\n")[0]
            self.console.print(line, soft_wrap=True)  # a log's lines are whole

    def say(self, text: str, *, always: bool = False) -> None:
        """One line for the user; `always`: though quiet was asked for."""
        if always or not self._quiet:
            self.console.print(escape(text), soft_wrap=True, style="dim")

    def started(self, item: Key, label: str) -> None:
        self.running[item] = label
        self._since[item] = time.time()
        self.note = "the first are running"
        self.refresh()

    def record_end(self, item: Key, *, ok: bool, seconds: float) -> None:
        """One item is finished or failed."""
        self.running.pop(item, None)
        self._since.pop(item, None)
        if item.stage:
            self.stages_done += ok
            self.pace.note(item.stage, seconds)
            if self.stages_left is not None:
                self.stages_left[item.stage] -= 1
        elif ok:
            self.done += 1
            self.finished += 1
            self.pace.note(CELL, seconds)
            if self.on_commit is not None:
                self.on_commit([item])
        else:
            self.failed += 1
        self._show()

    def expect(self, left: int) -> None:
        """So many cells are still to come, at most: a source may want more or fewer than before."""
        change = left - (self.todo - self.finished - self.failed)
        self.todo += change
        self.total += change

    def record_loss(self, item: Key) -> None:
        """The item's worker is gone; it waits again."""
        self.running.pop(item, None)
        self._since.pop(item, None)
        self._show()
