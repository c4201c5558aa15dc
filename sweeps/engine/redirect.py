"""The terminal for the user's lines alone, while all others write to a log."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from sweeps.process import stream_to


@contextmanager
def redirect_output(log: Path | None) -> Iterator[Console]:
    """A console on the real terminal while everything else (Ray, C++, warnings) goes to `log`.

    File descriptors 1 and 2 are redirected, because Ray's own processes inherit them.
    """
    if log is None:
        yield Console()
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    terminal = stream_to(saved[0], getattr(sys.stdout, "encoding", None))
    try:
        os.dup2(file, 1)
        os.dup2(file, 2)
        yield Console(file=terminal, force_terminal=os.isatty(saved[0]))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        terminal.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for descriptor in (*saved, file):
            os.close(descriptor)
