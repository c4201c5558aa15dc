"""What the person at the terminal sees while a study runs: one live line, and a last one."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from cluster.signs import Silences
from cluster.traffic import CELL, Key, Points, Pulse
from sweeps.engine.pace import Pace, duration, no_sign
from sweeps.ledger.progress import Sign

PLAIN_EVERY_S = 15.0
DRAW_EVERY_S = 0.1
TELL_SHARE_EVERY_S = 3.0  # to whoever looks from elsewhere: a file that is written anew
SHOWN = 10  # items that run, a line each
TELLING = 0.05  # the share that must be done before it says how long the rest takes
BAR = 8  # characters
FOR_EVER_S = 1e9  # JSON has no infinity


class Display:
    """Counts cells and stages as events arrive, and shows them.

    Args:
        total: cells planned; `committed` of them were there before this run.
        stages: keys of the stages to compute; None where nobody knows yet, as in a search.
        tell: `tell(slots, started, left_s, signs)` is called every `tell_every_s` seconds or so
            with what runs, since when (time.time()), `compute_left_s`, and what each that runs has
            last said, for whoever looks from elsewhere.
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
        tell: Callable[[int, Mapping[str, float], float | None, Mapping[str, Sign]], None],
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
        self.pulses: dict[str, Pulse] = {}  # item that runs → what is known of it
        self._seen = time.monotonic()  # when they were
        self.silences = Silences()  # of what is computed in this process
        self.pace = Pace()
        self.slots = 1
        self.note = "starting"
        self._began = time.monotonic()
        self._said = 0.0
        self.on_commit: Callable[[list[str]], None] | None = None  # hears each cell's key
        self.on_points: Callable[[Key, str, Points], None] | None = (
            None  # item, its label, new ones
        )
        self.on_end: Callable[[Key], None] | None = None  # hears of each item that runs no more
        self._quiet = quiet
        self._live = (
            Live(get_renderable=self._text, console=console, refresh_per_second=4, transient=True)
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
        left -= sum(
            pulse.share or 0.0
            for item, pulse in list(self.pulses.items())
            if item in self.running and _is_cell(item)
        )
        if self.stages_left is None:
            return left * self.pace.total_s / self.finished
        return left * self.pace.mean_s(CELL) + self._stages_left_s

    @property
    def _stages_left_s(self) -> float:
        left = self.stages_left or {}
        return sum(n * self.pace.mean_s(kind) for kind, n in list(left.items()))

    def _left(self) -> str:
        slots, seconds = max(1, self.slots), self.compute_left_s
        if seconds is not None:
            how = "at most" if self.stages_left is None else "about"
            return f"{how} {duration(seconds / slots)} left"
        left = [kind for kind, n in list((self.stages_left or {}).items()) if n]
        if left and all(self.pace.knows(kind) for kind in left):
            return f"about {duration(self._stages_left_s / slots)} to the last stage"
        return self.note

    def _text(self) -> Text:
        width = 24
        filled = round(width * (self.done + self.failed) / max(self.total, 1))
        running = dict(self.running)  # another thread may draw
        arms = ", ".join(sorted(set(running.values()))[:2])
        # Whoever is silent for too long comes first: he must not be among "and more".
        pulses = {item: self._pulse(item) for item in running}
        hung = [item for item in running if _is_hung(pulses[item])]
        silent = f" ({len(hung)} silent)" if hung else ""
        line = (
            f"cells {self.done}/{self.total} done, {len(running)} running{silent}, "
            f"{self.failed} failed"
        )
        if self.stages:
            line += f"; stages {self.stages_done}/{self.stages}"
        line += f"; {duration(time.monotonic() - self._began)}, {self._left()}"
        text = Text.assemble(("━" * filled, "green"), ("━" * (width - filled), "bright_black"))
        text.append(f" {line}")
        told = [item for item in running if pulses[item].share is not None and item not in hung]
        rest = [item for item in running if item not in hung and item not in told]
        shown = [*hung, *told, *rest][:SHOWN] if hung or told else []
        words = {item: self._word(item, pulses[item]) for item in shown}
        column = max((len(words[item]) for item in shown if item not in hung), default=0)
        for item in shown:
            line = f"  {_bar(pulses[item].share)} {words[item]:{column}}{running[item]}"
            style = "yellow" if item in hung else "cyan"
            text.append(f"\n{shorten(line, self.console.width)}", style=style)
        if arms and not shown:
            text.append(f"\n  {arms}", style="cyan")
        elif more := len(running) - len(shown):
            text.append(f"\n  and {more} more", style="cyan")
        return text

    def _pulse(self, item: str) -> Pulse:
        """What is known of an item, its silence as long as it is by now."""
        pulse, key = self.pulses.get(item, Pulse()), Key(item)
        if key in self.silences:  # computed in this process
            silent_s, word_s = self.silences.silent_s(key), self.silences.worth_a_word_s(key)
            return replace(pulse, silent_s=silent_s, worth_a_word_s=word_s)
        return replace(pulse, silent_s=pulse.silent_s + time.monotonic() - self._seen)

    def _word(self, item: str, pulse: Pulse) -> str:
        """How long an item may take yet, or that it gives no sign."""
        if _is_hung(pulse):
            return f"{no_sign(pulse.silent_s)}, "
        if pulse.share is None or pulse.share < TELLING:
            return ""
        so_far = time.time() - self._since.get(item, time.time())
        return f"{duration(so_far * (1 - pulse.share) / pulse.share)} left, "

    def see(self, pulses: Mapping[str, Pulse]) -> None:
        """What the workers have said of the items that they compute."""
        self.pulses, self._seen = dict(pulses), time.monotonic()
        for item, pulse in pulses.items():
            self._hand_on(Key(item), pulse.points)

    def _hand_on(self, item: Key, points: Points) -> None:
        if points and self.on_points is not None and item in self.running:
            self.on_points(item, self.running[item], points)

    def share_done(self, item: Key, share: float, points: Points) -> None:
        """What is computed in this process says how far it is; see `cluster.signs.EverySoOften`."""
        self.silences.sign(item)
        self.pulses = {item: Pulse(share=share)}
        self._hand_on(item, points)
        if time.monotonic() - self._told >= TELL_SHARE_EVERY_S:
            self.refresh()
        else:
            self._show()

    def signed(self, item: Key, *, saved: bool = False) -> None:
        """What is computed in this process goes on."""
        self.silences.sign(item)
        if time.monotonic() - self._told >= TELL_SHARE_EVERY_S:
            self.refresh()

    def refresh(self) -> None:
        """Show the present state, and tell it to whoever looks from elsewhere."""
        if time.monotonic() - self._told >= self._tell_every_s:
            self._told, now = time.monotonic(), time.time()
            pulses = {item: self._pulse(item) for item in self.running}
            signs = {
                item: Sign(
                    share=pulse.share,
                    heard=now - pulse.silent_s,
                    patience_s=min(pulse.worth_a_word_s, FOR_EVER_S),
                )
                for item, pulse in pulses.items()
            }
            self._tell(self.slots, self._since, self.compute_left_s, signs)
        self._show()

    def _show(self) -> None:
        """On a terminal at once, in a file now and then."""
        if self._live:
            # Not for each of a thousand workers' events: drawing takes 9 ms then.
            if time.monotonic() - self._said > DRAW_EVERY_S:
                self._live.refresh()
                self._said = time.monotonic()
        elif not self._quiet and time.monotonic() - self._said > PLAIN_EVERY_S:
            self._said = time.monotonic()
            line = self._text().plain.partition(" ")[2].partition("\n")[0]
            self.console.print(line, soft_wrap=True)  # a log's lines are whole

    def say(self, text: str, *, always: bool = False) -> None:
        """One line for the user; `always`: though quiet was asked for."""
        if always or not self._quiet:
            self.console.print(escape(text), soft_wrap=True, style="dim")

    def started(self, item: Key, label: str) -> None:
        """An item is being computed from now on."""
        self.running[item] = label
        self._since[item] = time.time()
        self.note = "the first are running"
        self.refresh()

    def record_end(self, item: Key, *, ok: bool, seconds: float, ended: bool = False) -> None:
        """One item is finished or failed, or was `ended` by a pruner and is wanted no more."""
        self._runs_no_more(item, ok=ok)
        if item.stage:
            self.stages_done += ok
            self.pace.note(item.stage, seconds)
            if self.stages_left is not None:
                self.stages_left[item.stage] -= 1
        elif ended:
            self.todo -= 1
            self.total -= 1
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
        self._runs_no_more(item, ok=False)
        self._show()

    def _runs_no_more(self, item: Key, *, ok: bool) -> None:
        self.running.pop(item, None)
        self._since.pop(item, None)
        self.pulses.pop(item, None)
        self.silences.over(item, ok=ok)
        if self.on_end is not None:
            self.on_end(item)


def _is_cell(item: str) -> bool:
    return Key(item).stage is None


def _is_hung(pulse: Pulse) -> bool:
    return pulse.silent_s >= pulse.worth_a_word_s


def _bar(share: float | None) -> str:
    filled = round(BAR * (share or 0.0))
    known = "   ?" if share is None else f"{share:4.0%}"
    return f"{'━' * filled}{'╌' * (BAR - filled)} {known}"


def shorten(line: str, width: int) -> str:
    """The line in so many columns, with a sign that there was more of it."""
    return line if len(line) <= width else f"{line[: max(width - 1, 0)]}…"
