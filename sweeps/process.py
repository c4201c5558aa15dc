"""What every process of ours sets up first: it draws to files, and its words survive their stream.

with command_line():     around a command line
    app()
headless()           in a worker, before anything may import matplotlib
"""

import codecs
import errno
import importlib
import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from sweeps.exits import SOME_FAILED, USAGE

PLAIN = {
    "±": "+/-", "×": "x", "−": "-", "–": "-", "—": "-", "·": "-", "…": "...", "→": "->",
    "≤": "<=", "≥": ">=", "≈": "~", "÷": "/", "’": "'", "“": '"', "”": '"', "•": "-", "α": "alpha",
    "λ": "lambda", "ε": "epsilon", "π": "pi", "∞": "inf", "\N{NO-BREAK SPACE}": " ",
}  # fmt: skip
"""What stands for a character where the stream's encoding lacks it; a ? stands for any other."""
TERMINAL_GONE = errno.EIO  # whoever writes must hear of it: there is nobody to say anything to


def headless() -> None:
    """Figures go to files, whatever the environment and the user's own matplotlib file say.

    A notebook sets MPLBACKEND for every command it starts, to a module that only it has, and then
    matplotlib cannot be imported at all (nor torchmetrics, which imports it).
    """
    os.environ["MPLBACKEND"] = "Agg"
    os.environ["MATPLOTLIBRC"] = os.devnull
    if "matplotlib" in sys.modules:
        return
    # What lies in the working directory goes before any variable, the user's styles are read by the
    # first import of pyplot, and neither need be text.
    if os.path.exists("matplotlibrc") or any(map(os.path.exists, _style_folders())):
        _import_matplotlib_undisturbed()


def _style_folders() -> list[str]:
    """Where a user's styles may lie, as matplotlib looks for them."""
    config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    named = os.environ.get("MPLCONFIGDIR")
    folders = [named] if named else [os.path.join(config, "matplotlib"), "~/.matplotlib"]
    return [os.path.join(os.path.expanduser(folder), "stylelib") for folder in folders]


def _import_matplotlib_undisturbed() -> None:
    here = os.open(".", os.O_RDONLY)
    os.chdir(os.sep)
    try:
        matplotlib = importlib.import_module("matplotlib")
        found, matplotlib.get_configdir = matplotlib.get_configdir, lambda: os.devnull
        try:
            importlib.import_module("matplotlib.style")
        finally:
            matplotlib.get_configdir = found
    except ImportError:
        pass  # whoever needs it says so
    finally:
        os.fchdir(here)
        os.close(here)


def _plainly(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(PLAIN.get(character, "?") for character in text), error.end


codecs.register_error("medrl-plainly", _plainly)


class _Kept(io.RawIOBase):
    """A descriptor whose writer goes on where it cannot be written: a full disk, a closed pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.failed: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, content) -> int:  # type: ignore[override,no-untyped-def]
        try:
            return os.write(self._descriptor, content)
        except OSError as error:
            if error.errno == TERMINAL_GONE:
                raise
            self.failed = self.failed or error
            return len(content)


def stream_to(descriptor: int, encoding: str | None = None) -> io.TextIOWrapper:
    """Text to the open `descriptor`, line by line; nothing that is written raises for its content.

    Only a terminal that is gone is an error; the stream does not close the descriptor.
    """
    return io.TextIOWrapper(
        io.BufferedWriter(_Kept(descriptor)),
        encoding=encoding,
        errors="medrl-plainly",
        line_buffering=True,
    )


def open_descriptors() -> None:
    """Standard input, output and error lead somewhere: one that was closed (`>&-`) to nowhere.

    It would be given to the next file that is opened, a log or a cell, and take our words.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _renew_streams() -> _Kept | None:
    """`sys.stdout` and `sys.stderr` as `stream_to` has them; what lies below the first.

    A stream that somebody has put there (a notebook's `%run`) stays.
    """
    open_descriptors()
    output = None
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        before = getattr(sys, name)
        if before is not getattr(sys, f"__{name}__"):
            continue
        if before is not None:
            before.flush()
        stream = stream_to(descriptor, getattr(before, "encoding", None))
        setattr(sys, name, stream)
        if name == "stdout":
            output = stream.buffer.raw
    return output


@contextmanager
def command_line() -> Iterator[None]:
    """Around a command line, which ends with SystemExit.

    Raises:
        SystemExit: as the block; with 2 where the working directory is gone, with 3 instead of 0
            where what it said could not be written.
    """
    headless()
    output = _renew_streams()
    try:
        os.getcwd()
    except OSError as error:
        print(
            "error: the working directory must be there, it was removed "
            f"({error.strerror}); change to another one (cd ~) and run the command again",
            file=sys.stderr,
        )
        raise SystemExit(USAGE) from None
    try:
        yield
    except SystemExit as stop:
        sys.stdout.flush()
        failed = output and output.failed
        if failed is None or failed.errno == errno.EPIPE:  # `| head` has read enough
            raise
        print(
            f"error: standard output cannot be written ({failed.strerror}); send it elsewhere, "
            "then run the same command again to see the rest: nothing else was lost",
            file=sys.stderr,
        )
        raise SystemExit(stop.code or SOME_FAILED) from None


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Python's version and those of the packages that are installed; nothing is imported."""
    import platform
    from importlib import metadata

    found = {"python": platform.python_version()}
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
