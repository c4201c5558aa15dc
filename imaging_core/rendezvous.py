"""Calls that run side by side and meet: where several ask for the same kind of work, it is done
for all of them at once.

`together(calls, width=K)` runs each call in a thread of its own, but only one at a time: a call
runs until it is over or reaches `meet`, then the next one runs. When every call waits, the requests
of one kind are served at once, at most `width` of them, in the order of the calls. So nothing runs
in parallel, nothing depends on timing, and code between two meetings needs no locks.

Outside `together` a `meet` serves its request alone and `each` runs its calls in order: code that
meets is the same code where nobody else is there.
"""

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

_local = threading.local()


class _Cancelled(BaseException):
    """The group was given up; ends a call that waits."""


@dataclass(frozen=True)
class Alone:
    """An answer that a server gave without the others' requests after all."""

    value: Any


@dataclass(kw_only=True)
class _Request:
    kind: Hashable
    value: Any
    serve: Callable[[list[Any]], Sequence[Any]]


@dataclass(kw_only=True, eq=False)
class _Call:
    """One call: its thread, what it waits for, and what came of it."""

    group: "_Group"
    function: Callable[[], Any]
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    request: _Request | None = None  # what it waits for
    children: "list[_Call]" = field(default_factory=list)  # or whom
    answer: Any = None
    result: Any = None
    error: BaseException | None = None
    over: bool = False
    widest: int = 1  # most requests that were served together with one of this call
    spent: tuple[float, float] = (0.0, 0.0)
    resumed: tuple[float, float] = (0.0, 0.0)

    def charge(self, seconds: tuple[float, float], parts: int = 1) -> None:
        self.spent = (self.spent[0] + seconds[0] / parts, self.spent[1] + seconds[1] / parts)

    def run(self) -> None:
        self.go.acquire()
        _local.call = self
        try:
            if self.group.given_up:
                raise _Cancelled
            self.result = self.function()
        except BaseException as error:
            self.error = error
        finally:
            self.over = True
            self.group.back.release()

    def wait(self) -> Any:
        """Hand over to the group; returns the answer once it lets this call go on."""
        self.group.back.release()
        self.go.acquire()
        if self.group.given_up:
            raise _Cancelled
        answer, self.answer = self.answer, None
        if isinstance(answer, BaseException):
            raise answer
        return answer


def _clock() -> tuple[float, float]:
    """Wall and processor seconds of this process."""
    return time.monotonic(), time.process_time()


def _since(began: tuple[float, float]) -> tuple[float, float]:
    wall, cpu = _clock()
    return wall - began[0], cpu - began[1]


class _Group:
    def __init__(self, width: int) -> None:
        self.width = width
        self.back = threading.Semaphore(0)  # a call has handed over
        self.given_up = False
        self.calls: list[_Call] = []  # in the order that requests are served in
        self.ready: list[_Call] = []

    def add(self, functions: Sequence[Callable[[], Any]]) -> list[_Call]:
        fresh = [_Call(group=self, function=function) for function in functions]
        for call in fresh:
            threading.Thread(target=call.run, daemon=True).start()
        self.calls += fresh
        self.ready += fresh
        return fresh

    def drive(self) -> None:
        while any(not call.over for call in self.calls):
            while self.ready:
                call = self.ready.pop(0)
                call.resumed = _clock()
                call.go.release()
                self.back.acquire()
                call.charge(_since(call.resumed))
                self._wake_parents()
            self._serve()

    def _wake_parents(self) -> None:
        for call in self.calls:
            if call.children and all(child.over for child in call.children):
                call.widest = max([call.widest, *(child.widest for child in call.children)])
                for child in call.children:
                    call.charge(child.spent)
                call.answer, call.children = call.children, []
                self.ready.append(call)
        self.calls = [call for call in self.calls if not call.over]

    def _serve(self) -> None:
        waiting: dict[Hashable, list[_Call]] = {}
        for call in self.calls:
            if call.request is not None:
                waiting.setdefault(call.request.kind, []).append(call)
        for calls in waiting.values():
            for start in range(0, len(calls), self.width):
                part = calls[start : start + self.width]
                began = _clock()
                answers = part[0].request.serve([call.request.value for call in part])
                seconds = _since(began)
                for call, answer in zip(part, answers, strict=True):
                    if isinstance(answer, Alone):
                        answer = answer.value
                    else:
                        call.widest = max(call.widest, len(part))
                    call.charge(seconds, len(part))
                    call.answer, call.request = answer, None
                    self.ready.append(call)


def together(calls: Sequence[Callable[[], Any]], *, width: int) -> list[Any]:
    """The results of the calls, run so that they meet.

    Args:
        width: at most so many requests are served at once.

    Raises:
        Whatever the first of the calls that failed raised, after all are over.
    """
    if getattr(_local, "call", None) is not None:
        raise RuntimeError("together() cannot be nested; inside it, use each()")
    group = _Group(width)
    mine = group.add(calls)
    try:
        group.drive()
    except BaseException:
        # Ctrl+C, or a server that raised: the waiting calls end, a running one at its next meeting.
        group.given_up = True
        for call in group.calls:
            call.go.release()
        raise
    return _results(mine)


def each(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """The results of the calls: inside `together` run so that they meet, else one after the other.

    Raises:
        As `together`; outside it, at the first failure.
    """
    parent: _Call | None = getattr(_local, "call", None)
    if parent is None or len(calls) < 2:
        return [call() for call in calls]
    parent.children = parent.group.add(calls)
    return _results(parent.wait())


def _results(calls: Sequence[_Call]) -> list[Any]:
    for call in calls:
        if call.error is not None:
            raise call.error
    return [call.result for call in calls]


def meet(kind: Hashable, value: Any, serve: Callable[[list[Any]], Sequence[Any]]) -> Any:
    """`serve([value, …])`'s answer to `value`: with the same kind of request of other calls.

    Args:
        serve: gives one answer per value, in `Alone` where it served them apart; an exception
            among them is raised in the call that asked.
    """
    call: _Call | None = getattr(_local, "call", None)
    if call is None:
        (answer,) = serve([value])
        answer = answer.value if isinstance(answer, Alone) else answer
        if isinstance(answer, BaseException):
            raise answer
        return answer
    call.request = _Request(kind=kind, value=value, serve=serve)
    return call.wait()


def meeting() -> bool:
    """Whether the caller is one of the calls of `together`."""
    return getattr(_local, "call", None) is not None


def widest() -> int:
    """Most requests that were served together with one of the call that asks this; 1: none."""
    call: _Call | None = getattr(_local, "call", None)
    return 1 if call is None else call.widest


def spent() -> tuple[float, float]:
    """Wall and processor seconds: of the call that asks this, its share of what was served
    together included; outside `together` those of the process, from an arbitrary zero.
    """
    call: _Call | None = getattr(_local, "call", None)
    if call is None:
        return _clock()
    wall, cpu = _since(call.resumed)
    return call.spent[0] + wall, call.spent[1] + cpu
