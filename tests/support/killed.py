"""A computation killed again and again at chosen ticks, and gone on with from what it left."""

from collections.abc import Callable
from typing import Any

from safetensors.numpy import load, save

from imaging_core.checkpoint import Checkpoint
from imaging_core.sections import Sections


class Killed(BaseException):
    """In place of SIGKILL: nothing in the product may catch it."""


class KilledAfter(Sections):
    """Saves at every tick, as bytes; at tick number `after` of this attempt it kills."""

    def __init__(self, content: bytes | None, after: int | None) -> None:
        super().__init__(None if content is None else load(content))
        self.content, self._after, self.ticks = content, after, 0

    def tick(self) -> None:
        self.ticks += 1
        if self._after is not None and self.ticks >= self._after:
            self.content = save(self.arrays())
            raise Killed


def undisturbed_and_killed(
    compute: Callable[[Checkpoint], Any], kills: tuple[int, ...]
) -> tuple[Any, Any, int]:
    """What `compute` gives undisturbed, what it gives killed after so many ticks each, and the
    ticks of the undisturbed one. Every attempt must begin with objects of its own.
    """
    quiet = KilledAfter(None, None)
    undisturbed = compute(quiet)
    content = None
    for after in kills:
        attempt = KilledAfter(content, after)
        try:
            compute(attempt)
        except Killed:
            content = attempt.content
        else:
            raise AssertionError(f"it came to its end in {attempt.ticks} ticks, before {after}")
    return undisturbed, compute(KilledAfter(content, None)), quiet.ticks
