"""How long things take, and how that is written."""

from collections import Counter


def duration(seconds: float) -> str:
    """`75` → "1:15"; `3700` → "1:01:40"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def no_sign(silent_s: float) -> str:
    """What is said of an item that has been silent for so long."""
    return f"no sign of progress for {duration(silent_s)}"


class Pace:
    """Seconds that each kind of stage took in this run, and those of the cells."""

    def __init__(self) -> None:
        self._seconds: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()

    def note(self, kind: str, seconds: float) -> None:
        self._seconds[kind] += seconds
        self._counts[kind] += 1

    @property
    def total_s(self) -> float:
        return self._seconds.total()

    def knows(self, kind: str) -> bool:
        return self._counts[kind] > 0

    def mean_s(self, kind: str) -> float:
        """Of a kind that was not seen: the mean over everything else; 0 before there is any."""
        if self._counts[kind]:
            return self._seconds[kind] / self._counts[kind]
        return self.total_s / max(1, self._counts.total())
