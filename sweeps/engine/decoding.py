"""What the person at the terminal sees while a dataset is decoded or fetched."""

import sys
import time
from typing import TextIO

FIRST_AFTER_S = 1.0  # most datasets are there sooner, and nobody wants a line on those
LINE_EVERY_S, REDRAW_EVERY_S = 10.0, 0.2


class DecodingLine:
    """A callback for `imaging_core.datasets.load`: one line that is redrawn, on a terminal; else a
    line from time to time.

    Args:
        stream: stderr by default, as stdout may be read by a program.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._redraw = self._stream.isatty()
        self._next = time.monotonic() + FIRST_AFTER_S
        self._drawn = ""

    def __call__(self, done: float, note: str = "") -> None:
        """`done` in [0, 1]."""
        now = time.monotonic()
        over = done >= 1 and bool(self._drawn)
        if now < self._next and not over:
            return
        self._next = now + (REDRAW_EVERY_S if self._redraw else LINE_EVERY_S)
        line = f"{note} ({done:.0%})" if done else note
        if self._redraw:
            self._stream.write(f"\r{line.ljust(len(self._drawn))}" + ("\n" if over else ""))
        elif line != self._drawn:
            self._stream.write(f"{line}\n")
        self._stream.flush()
        self._drawn = "" if over else line
