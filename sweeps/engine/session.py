"""How a run ends, in one place: what a signal does, what is said last, and with which exit code.

    listen()                  as the first thing a script does, before its imports
    Session().conclude(work)  around everything a command does; returns the exit code

SIGINT, SIGTERM and SIGHUP (a closed terminal, a lost SSH session) end a run alike: `Interrupted`
is raised where the main thread is, so that locks and Ray's processes are given back. A thread of
its own sees to it that this ends: it leaves after GRACE_S, wherever the main thread hangs (Ray is
C++, and waits without looking at signals), and at once after a second signal.

Only the standard library is imported at the top: a signal in the first second must find this ready.
"""

import atexit
import contextlib
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

from sweeps.exits import OK, SOME_FAILED, USAGE, code_of, of_signal
from sweeps.process import open_descriptors

if TYPE_CHECKING:
    from rich.console import Console

    from sweeps.engine.run import Resources

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_S = 20.0
AGAIN_S = 0.2
"""A second signal sooner than this is the first one's echo: `timeout` sends each twice."""
ROOM_BYTES = 1 << 20  # less than this free: the disk is full, whoever noticed it first
GONE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENODEV)


class Interrupted(BaseException):
    """A signal asks the run to end; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Ears:
    """What this process has heard, and whom it concerns."""

    def __init__(self) -> None:
        self.heard: int | None = None  # the first signal
        self.raised = False
        self.said = False  # the last words
        self.cut_short = False
        self.session: Session | None = None  # that runs now
        self.watched = False
        self.terminal = 1  # a descriptor that stays the terminal's while 1 is a log's


_ears = _Ears()


def listen() -> None:
    """From now on a signal ends this process with a word, and with 128 + its number.

    Called before the imports of a script, so that the second that they take is no exception, and
    once more by the command line.
    """
    if threading.current_thread() is not threading.main_thread() or _ears.watched:
        return
    open_descriptors()
    _ears.watched, _ears.terminal = True, os.dup(1)
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_stop_listening)
    threading.Thread(target=_watch, args=(read,), name="signals", daemon=True).start()
    _install()


def run_app(app: Callable[[], None]) -> NoReturn:
    """Run a command line, and end this process as it says."""
    listen()
    try:
        app()
        code = OK
    except SystemExit as end:
        if not _ears.cut_short:
            raise
        code = end.code if isinstance(end.code, int) else 1
    # What was cut short may hold threads in Ray's C++, which would crash in an orderly end.
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def listen_again() -> None:
    """After code that sets handlers of its own, as `ray.init` does for SIGTERM."""
    if _ears.session is not None and threading.current_thread() is threading.main_thread():
        _install()


def _install() -> None:
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, _hear)


def _stop_listening() -> None:
    """In a forked process: its signals are its own, and must not wake the parent's watch."""
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            if signal.getsignal(number) is _hear:
                signal.signal(number, signal.SIG_DFL)


def _hear(number: int, _frame: object) -> None:
    _ears.heard = _ears.heard or number
    if _ears.session is None:  # importing, or through and on its way out
        _leave(number)
    if _ears.raised:
        if not _ears.watched:
            _leave(number)
        return
    _ears.raised = True
    raise Interrupted(number)


def _watch(read: int) -> None:
    """Told of every signal at once, while handlers wait for the main thread's next step."""
    began = None
    while True:
        number = os.read(read, 1)[0]
        if number not in SIGNALS:
            continue
        _ears.heard = _ears.heard or number
        if began is None:
            began = time.monotonic()
            _later(GRACE_S, lambda number=number: _leave(number))
        elif time.monotonic() - began > AGAIN_S:
            _leave(number)


def _later(seconds: float, act: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()
    return timer


def _leave(number: int) -> None:
    """End this process at once: what is committed is whole, and Ray's processes end with it."""
    session = _ears.session or Session()
    _exit(session.words(_interruption(number)), of_signal(number))


def _exit(words: str, code: int) -> None:
    if not _ears.said:
        _ears.said = True
        with contextlib.suppress(OSError):
            os.write(_ears.terminal, f"{words}\n".encode())
    os._exit(code)


def _interruption(number: int) -> str:
    return f"interrupted ({signal.Signals(number).name})"


def resume_command() -> str:
    """The command line that started this process, ready to paste."""
    import shlex

    return shlex.join(["python", *sys.argv])


class Reporting(Protocol):
    """What a study makes of its ledger once the cells are there (`analysis.reporting.run`)."""

    def __call__(self, results: str, study: str, console: "Console", *, quiet: bool) -> None:
        """`results` is the folder or URI of all studies, `study` the name of this one."""


class Session:
    """One command's run: what was asked of it besides the question, and how it ends.

    Attributes:
        results: folder or URI of all studies, once it is known.
        resources: which machines compute.
        reporting: what is made of the ledger once the cells are there.
        only_plan: say what would be computed, and stop.
        pilot: before that, compute a cell of every arm.
        retry_failed: compute failed cells again.
        quiet: the last line and errors only.
        count: says how many cells are committed, in words; None before there is a plan.
        tables: makes of the committed cells what can be made; None where nothing can.
        log: the file that has the last words where the terminal is gone.
    """

    def __init__(
        self,
        *,
        resources: "Resources | None" = None,
        reporting: "Reporting | None" = None,
        only_plan: bool = False,
        retry_failed: bool = False,
        quiet: bool = False,
        pilot: bool = False,
    ) -> None:
        self.pilot = pilot
        self.resources, self.reporting = resources, reporting
        self.only_plan, self.retry_failed, self.quiet = only_plan, retry_failed, quiet
        self.results: str | None = None
        self.count: Callable[[], str] | None = None
        self.tables: Callable[[], None] | None = None
        self.log: Path | None = None

    def conclude(self, work: Callable[[], int]) -> int:
        """Run `work` and return its exit code, or that of what ended it, which is then said.

        Raises:
            Exception: what nobody foresaw, with its traceback.
        """
        with self._hearing():
            try:
                return work()
            except BaseException as error:
                try:
                    return self._ended_by(error)
                except Interrupted as stop:
                    return self._interrupted(stop.number)

    @contextlib.contextmanager
    def _hearing(self) -> Iterator[None]:
        """A signal raises `Interrupted` in the block; before and after, it ends the process."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        outer, _ears.session = _ears.session, self
        if outer is None and not _ears.watched:  # called from Python, maybe not for the first time
            _ears.heard, _ears.raised, _ears.said = None, False, False
        _install()
        try:
            yield
        finally:
            _ears.session = outer
            for number, handler in before.items():
                signal.signal(number, handler)

    def words(self, what: str) -> str:
        """What happened, how many cells are committed, and how to go on: one line."""
        return f"{what}{self._state()}. To resume: {resume_command()}"

    def _state(self) -> str:
        if self.count is None:
            return " before anything was started; nothing is lost"
        try:
            return f"; {self.count()}. Nothing committed is lost"
        except Exception as error:  # of a disk that is gone, say
            return f"; how many cells are committed cannot be read ({type(error).__name__})"

    def _ended_by(self, error: BaseException) -> int:
        if _ears.heard is not None:
            # Whatever came up: Ray's own handler raises SystemExit(15), a dead terminal OSError.
            return self._interrupted(_ears.heard)
        if self._disk_is_full(error):
            return self._out_of_room(error)
        code = code_of(error)
        if code == SOME_FAILED:
            # Of a remote task with Ray's traceback around.
            return self.cut_short(str(getattr(error, "cause", error)))
        if code == USAGE:
            return self._refuse(str(error))
        if isinstance(error, OSError) and error.errno in GONE and self.count is not None:
            name = f" of {error.filename}" if error.filename else ""
            return self.cut_short(f"{self.results} cannot be used any more: {error.strerror}{name}")
        raise error

    def _interrupted(self, number: int) -> int:
        _ears.cut_short = True
        self._say(self.words(_interruption(number)))
        return of_signal(number)

    def _refuse(self, message: str) -> int:
        """Bad input; nothing was started."""
        self._say(message, error=True)
        return USAGE

    def cut_short(self, what: str) -> int:
        """What computes, or where it is written, is gone: tables from what is there, last words."""
        _ears.cut_short = True
        if self.tables is not None:
            with contextlib.suppress(Exception):  # it says itself what it could not do
                self.tables()
        self._say(self.words(what), error=True)
        return SOME_FAILED

    def _disk_is_full(self, error: BaseException) -> bool:
        """By what the system said of it, or by the room: sqlite has words of its own."""
        from sweeps.ledger.files import lack_of_room

        if not isinstance(error, Exception) or self.results is None:
            return False
        if lack_of_room(error) is not None:
            return True
        if "://" in self.results:
            return False
        import shutil

        try:
            return shutil.disk_usage(self.results).free < ROOM_BYTES
        except OSError:
            return False  # the disk does not even say that

    def _out_of_room(self, error: BaseException) -> int:
        import os.path

        from sweeps.ledger.files import lack_of_room

        known = lack_of_room(error)
        number = known and (getattr(known, "number", None) or known.errno)
        said = f": {os.strerror(number)}" if number else ""
        # Ray's folder may be on another disk.
        other = known and known.filename and os.path.dirname(str(known.filename))
        where = other if other and not str(other).startswith(str(self.results)) else self.results
        again = resume_command()
        if "--retry-failed" not in again:
            again += " --retry-failed"
        self._say(
            f"no space left in {where} ({type(error).__name__}{said}){self._state()}. "
            f"Make room, then: {again}",
            error=True,
        )
        return SOME_FAILED

    def _say(self, words: str, *, error: bool = False) -> None:
        from rich.console import Console
        from rich.markup import escape

        _ears.said = True
        head = "[bold red]error:[/] " if error else ""
        try:
            Console(stderr=error).print(f"{head}{escape(words)}", soft_wrap=True)
            sys.stdout.flush()
        except OSError:  # the terminal is gone
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            if self.log is not None:
                with contextlib.suppress(OSError), self.log.open("a") as log:
                    log.write(f"{words}\n")

    @contextlib.contextmanager
    def leaving(self, what: str) -> Iterator[None]:
        """Let go of something that may hang, because of `what`: after GRACE_S without it."""
        timer = _later(GRACE_S, lambda: _exit(f"error: {self.words(what)}", SOME_FAILED))
        try:
            yield
        finally:
            timer.cancel()
