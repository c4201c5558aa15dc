"""The sections of a checkpoint that are open. No torch here: the command line does not load it."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from imaging_core.task import Arrays

WITHIN, OF = ":", "@"  # between the names of sections, and before the name of an array
OPEN = "open"  # of every section, so that one without arrays is known to have been open


class Sections:
    """The sections that are open, and what a killed attempt left: all of a checkpoint but its file.

    Args:
        left: what `arrays` gave when the killed attempt was last saved.
    """

    def __init__(self, left: Mapping[str, np.ndarray] | None = None) -> None:
        self._left = dict(left or {})
        self._open: list[tuple[str, Callable[[], Arrays]]] = []

    @contextlib.contextmanager
    def section(self, name: str, state: Callable[[], Arrays]) -> Iterator[Arrays | None]:
        """See `Checkpoint.section`."""
        around = self._open[-1][0] if self._open else ""
        full = f"{around}{name}{WITHIN}"
        left = self._take(full)
        self._open.append((full, state))
        try:
            yield left
        finally:
            self._open.pop()
            # What was left deeper and not asked for belongs to nothing that comes.
            self._left = {k: v for k, v in self._left.items() if not k.startswith(full)}

    def tick(self) -> None:
        """Nothing; whoever keeps checkpoints decides when."""

    def arrays(self) -> Arrays:
        """The state of every open section."""
        return {
            f"{full}{OF}{name}": value
            for full, state in self._open
            for name, value in {OPEN: np.zeros(1), **state()}.items()
        }

    def _take(self, full: str) -> Arrays | None:
        own = f"{full}{OF}"
        found = {k.removeprefix(own): v for k, v in self._left.items() if k.startswith(own)}
        self._left = {k: v for k, v in self._left.items() if not k.startswith(own)}
        return found if found.pop(OPEN, None) is not None else None
