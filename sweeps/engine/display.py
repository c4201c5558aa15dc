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
SHARE_EVERY_S = 0.5  # from this process
TELL_SHARE_EVERY_S = 3.0  # to whoever looks from elsewhere: a file that is written anew
SHOWN = 10  # items that run, a line each
TELLING = 0.05  # the share that must be done before it says how long the rest takes


class Display:
    """Counts cells and stages as events arrive, and shows them.

    Args:
        total: cells planned; `committed` of them were there before this run.
        stages: keys of the stages to compute; None where nobody knows yet, as in a search.
        tell: `tell(slots, started, left_s, shares)` is called every `tell_every_s` seconds or so
            with what runs, since when (time.time()), `compute_left_s`, and how much of what runs is
            done, for whoever looks from elsewhere.
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
        tell: Callable[[int, Mapping[str, float], float | None, Mapping[str, float]], None],
        tell_every_s: float,
    ) -> None:
        self.console = console
        self._tell, self._tell_every_s, self._told = tell, tell_every_s, 0.0
        self._since: dict[str, float] = {}
        self._shared = 0.0
        self.total, self.done = total, committed
        self.todo = todo
        self.finished = 0
        self.failed = 0
        self.stages_left = None if stages is None else Counter(Key(key).stage for key in stages)
        self.stages = self.stages_left.total() if self.stages_left else 0
        self.stages_done = 0
        self.running: dict[str, str] = {}
        self.shares: Mapping[str, float] = {}  # item that runs → how much of it is done, in [0, 1]
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
        left -= sum(s for item, s in self.shares.items() if item in self.running and _is_cell(item))
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
        told = [item for item in self.running if item in self.shares][:SHOWN]
        for item in told:
            line = f"  {self._share(item)}"[: self.console.width]
            text.append(f"\n{line}", style="cyan")
        if arms and not told:
            text.append(f"\n  {arms}", style="cyan")
        elif more := len(self.running) - len(told):
            text.append(f"\n  and {more} more", style="cyan")
        return text

    def _share(self, item: str) -> str:
        """One line on an item that runs: how much of it is done, and how long it may take yet."""
        share = self.shares[item]
        filled = round(8 * share)
        line = f"{'━' * filled}{'╌' * (8 - filled)} {share:4.0%} "
        if share >= TELLING:
            so_far = time.time() - self._since.get(item, time.time())
            line += f"{duration(so_far * (1 - share) / share)} left, "
        return f"{line}{self.running[item]}"

    def share_done(self, item: Key, done: float, note: str = "") -> None:
        """A core's progress callback, in this process: so much of `item` is done."""
        now = time.monotonic()
        if now - self._shared >= SHARE_EVERY_S:
            self._shared = now
            self.shares = {item: min(max(float(done), 0.0), 1.0)}
            if now - self._told >= TELL_SHARE_EVERY_S:
                self.refresh()
            else:
                self._show()

    def refresh(self) -> None:
        """Show the present state, and tell it to whoever looks from elsewhere."""
        if time.monotonic() - self._told >= self._tell_every_s:
            self._told = time.monotonic()
            shares = {item: s for item, s in self.shares.items() if item in self.running}
            self._tell(self.slots, self._since, self.compute_left_s, shares)
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


def _is_cell(item: str) -> bool:
    return Key(item).stage is None
