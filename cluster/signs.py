"""Signs that work goes on: how often they are sent, and whose silence is worth a word. No Ray."""

import faulthandler
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cluster.traffic import Key, Points

SHARE_EVERY_S = 2.0  # of an item's share done, to the broker; a call between costs a microsecond
SIGN_EVERY_S = 30.0  # of progress, to the broker: a thousand workers are 33 messages a second
QUIET_S = 2 * SIGN_EVERY_S  # a worker that is well may be silent for that long
FELLOWS = 4  # times the longest silence of those that came to their end
OF_DEADLINE = 0.5  # the share of its deadline after which silence is told in any case


class EverySoOften:
    """A core's progress callback: hands on what is new, every `pause_s` seconds at most.

    Args:
        tell: `tell(share, points)`: `share` in [0, 1]; nobody waits for it.
    """

    def __init__(self, tell: Callable[[float, Points], Any], pause_s: float) -> None:
        self._tell, self._pause_s, self._next = tell, pause_s, 0.0
        self._sent: dict[str, int] = {}  # curve → how many of its points were handed on

    def __call__(
        self, done: float, note: str = "", curves: Mapping[str, Sequence[float]] | None = None
    ) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._pause_s
            self._tell(min(max(float(done), 0.0), 1.0), self._fresh(curves or {}))

    def _fresh(self, curves: Mapping[str, Sequence[float]]) -> Points:
        found = {}
        for name, values in curves.items():
            first = self._sent.get(name, 0)
            if len(values) > first:
                found[name] = (first, tuple(float(value) for value in values[first:]))
                self._sent[name] = len(values)
        return found


class Signs:
    """Tells the watchdog at once that work goes on, and the broker from time to time.

    Args:
        deadline_s: after so long without a sign the watchdog ends this process; None: never.
        tell: `tell(saved)` sends it to the broker; nobody waits for it.
    """

    def __init__(self, deadline_s: float | None, tell: Callable[[bool], Any]) -> None:
        self._deadline_s, self._tell = deadline_s, tell
        self._next = time.monotonic() + self._pause_s

    @property
    def _pause_s(self) -> float:
        return SIGN_EVERY_S if self._deadline_s is None else min(SIGN_EVERY_S, self._deadline_s / 4)

    def __call__(self, *, saved: bool) -> None:
        if self._deadline_s is not None:
            faulthandler.dump_traceback_later(self._deadline_s, exit=True)
        now = time.monotonic()
        if saved or now >= self._next:
            self._tell(saved)
            self._next = now + self._pause_s


class Silences:
    """How long each item that runs has given no sign, and for how long its like usually gives none.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[str, float] = {}  # item → when it last gave a sign
        self._longest: dict[str, float] = {}  # item → its longest silence so far
        self._deadline_s: dict[str, float | None] = {}
        self._usual_s: dict[str, float] = {}  # kind → the longest of those that ended well

    def __contains__(self, item: Key) -> bool:
        """Whether it is being computed."""
        return item in self._heard

    def began(self, item: Key, deadline_s: float | None = None) -> None:
        """The item is being computed from now on."""
        self._heard[item], self._longest[item] = self._clock(), 0.0
        self._deadline_s[item] = deadline_s

    def sign(self, item: Key) -> None:
        """The work on it goes on; of one that has not begun it is ignored."""
        if item in self._heard:
            now = self._clock()
            self._longest[item] = max(self._longest[item], now - self._heard[item])
            self._heard[item] = now

    def over(self, item: Key, *, ok: bool) -> None:
        """It has come to its end, or waits again."""
        self.sign(item)
        self._heard.pop(item, None)
        longest = self._longest.pop(item, 0.0)
        if ok:
            self._usual_s[item.kind] = max(longest, self._usual_s.get(item.kind, 0.0))

    def silent_s(self, item: Key) -> float:
        """Seconds since its last sign; 0 where it is not being computed."""
        return self._clock() - self._heard[item] if item in self._heard else 0.0

    def worth_a_word_s(self, item: Key) -> float:
        """The silence after which somebody should hear of it.

        A minute, and four times the longest that its like were silent for and came to their end;
        half its deadline at the latest.
        """
        longest = max(QUIET_S, FELLOWS * self._usual_s.get(item.kind, 0.0))
        deadline_s = self._deadline_s.get(item)
        return longest if deadline_s is None else min(longest, OF_DEADLINE * deadline_s)
