"""Who computes what next: the broker's bookkeeping, without Ray, so that it can be tested alone.

An item is leased to one worker at a time. A worker that comes back as a new incarnation has lost
what its former self held; a run that ended has lost what all its workers held. Lost items are
leased again, up to `max_attempts`; an item that raised is not, because a cell is a pure function
and would raise again.
"""

import heapq
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cluster.traffic import Failure, Key, Report

UNKNOWN_S = 1.0  # of every kind, until one of it has finished


@dataclass(frozen=True, kw_only=True)
class WorkItem:
    """One unit of work, as a recipe that any worker can carry out.

    Attributes:
        id: unique, and says what kind of item it is; adding the same id twice adds nothing.
        payload: what the worker's function is called with (JSON values).
        needs: ids of the items that must be finished before this one is leased.
        arm: of a cell, the arm that waits for the result.
        cost_s: expected seconds. 0 = unknown: the mean of its kind so far.
        turn: whose turn it is: lower ones go first. A stage has that of the first cell that needs
            it.
        deadline_s: a worker that gives no sign of progress for so long ends itself; its loss is the
            item's failure.
    """

    id: Key
    payload: Mapping[str, Any]
    needs: tuple[str, ...] = ()
    arm: str | None = None
    cost_s: float = 0.0
    turn: int = 0
    deadline_s: float | None = None


NOTE = "note"  # an event about no item: a text for the user
NO_ITEM = Key()


@dataclass(kw_only=True)
class Event:
    """Something the driver may want to show or record.

    Attributes:
        kind: "started" | "finished" | "failed" | "lost" | NOTE.
        report: of an item that is finished.
        failure, payload: of one that failed: why, and its recipe.
        text: of a note.
    """

    kind: str
    item: Key = NO_ITEM
    arm: str | None = None
    worker: str = ""
    attempt: int = 0
    report: Report | None = None
    failure: Failure | None = None
    payload: Mapping[str, Any] | None = None
    text: str = ""


class WorkQueue:
    """Leases items to workers: of those whose needs are met, turn by turn, and cells at once.

    So the first results come early, and the arms of a study that is stopped have about equally many
    seeds. Once the longest chain of what is left takes as long as all of it on every slot, that
    chain goes first, so that no slot idles at the end. Durations are those of finished items of the
    same kind.

    Args:
        max_attempts: how often an item may be leased before its loss counts as its failure.
        clock: seconds that never go back (no wall clock: it may be set while a study runs).
    """

    def __init__(self, *, max_attempts: int, clock: Callable[[], float] = time.monotonic) -> None:
        if max_attempts < 1:
            raise ValueError(f"max_attempts must be at least 1, got {max_attempts}")
        self.max_attempts = max_attempts
        self._clock = clock
        self._since: dict[str, float] = {}  # worker → when its lease began
        self._signed: dict[str, float] = {}  # worker → when it last said that the work goes on
        self._saved: set[str] = set()  # workers whose attempt left something to go on with
        self.events: list[Event] = []
        self._items: dict[str, WorkItem] = {}
        self._attempts: dict[str, int] = {}
        self._excused: dict[str, int] = {}  # of these, attempts that were gone on with
        self._done: set[str] = set()
        self._failed: dict[str, Failure] = {}
        self._unmet: dict[str, set[str]] = {}
        self._dependents: dict[str, list[str]] = {}
        self._ready: dict[str, list[tuple[Any, ...]]] = {}  # kind → heap, the next one first
        self._order = 0
        self._waiting: dict[str, int] = {}  # kind → items that are not leased and not over
        self._stated_s = 0.0  # of these, the seconds of those whose cost is stated
        self._unstated: dict[str, int] = {}  # and how many of each kind state none
        self._after: dict[str, set[str]] = {}  # kind → kinds that need it
        self._seen_s: dict[str, tuple[int, float]] = {}  # kind → finished items and their seconds
        self._said_s: dict[str, tuple[int, float]] = {}  # the same of the costs that are stated
        self._lease: dict[str, str] = {}  # worker → item
        self._incarnation: dict[str, str] = {}

    def add(self, items: Iterable[WorkItem]) -> int:
        """Queue `items`; returns how many were new."""
        fresh = [item for item in items if item.id not in self._items]
        for item in fresh:
            self._items[item.id] = item
            self._attempts[item.id] = 0
            self._count(item, 1)
            if item.cost_s:
                count, seconds = self._said_s.get(item.id.kind, (0, 0.0))
                self._said_s[item.id.kind] = count + 1, seconds + item.cost_s
            for need in item.needs:
                self._dependents.setdefault(need, []).append(item.id)
        for item in fresh:
            for need in item.needs:
                if need in self._items:
                    self._after.setdefault(self._items[need].id.kind, set()).add(item.id.kind)
            broken = [need for need in item.needs if need in self._failed]
            self._unmet[item.id] = {need for need in item.needs if need not in self._done}
            if broken:
                self._fail(item.id, "", self._because(broken[0]))
            elif not self._unmet[item.id]:
                self._push(item.id)
        return len(fresh)

    def _count(self, item: WorkItem, change: int) -> None:
        """`item` has come, or was leased or ended (−1)."""
        self._waiting[item.id.kind] = self._waiting.get(item.id.kind, 0) + change
        if item.cost_s:
            self._stated_s += change * item.cost_s
        else:
            self._unstated[item.id.kind] = self._unstated.get(item.id.kind, 0) + change

    def _push(self, identity: str) -> None:
        item = self._items[identity]
        self._order += 1
        needed = len(self._dependents.get(identity, ()))
        place = (item.turn, item.id.stage is not None, -needed, -item.cost_s, self._order, identity)
        heapq.heappush(self._ready.setdefault(item.id.kind, []), place)

    def _usual_s(self, kind: str) -> float:
        """Seconds that an item of this kind takes, as far as is known."""
        count, seconds = self._seen_s.get(kind) or self._said_s.get(kind) or (1, UNKNOWN_S)
        return seconds / count

    def _chain_s(self, kind: str) -> float:
        """Seconds of the longest chain that begins with an item of this kind."""
        after = (self._chain_s(k) for k in self._after.get(kind, ()) if k != kind)
        return self._usual_s(kind) + max(after, default=0.0)

    def _left_s(self) -> float:
        """Seconds of everything that waits, one after the other."""
        return self._stated_s + sum(n * self._usual_s(k) for k, n in self._unstated.items())

    def _next_kind(self) -> str | None:
        """The kind whose first ready item goes next; None where nothing is ready."""
        ready = [kind for kind, heap in self._ready.items() if heap]
        if not ready:
            return None
        longest = max(ready, key=self._chain_s)
        if self._chain_s(longest) * max(len(self._incarnation), 1) >= self._left_s():
            return longest
        return min(ready, key=lambda kind: self._ready[kind][0])

    def take(self, worker: str, incarnation: str) -> tuple[WorkItem, int] | None:
        """The next item for `worker` with its attempt number, or None where nothing is ready."""
        if self._incarnation.get(worker) != incarnation:
            self.lose(worker)
            self._incarnation[worker] = incarnation
        if worker in self._lease:
            raise ValueError(f"{worker} asks for work while it holds {self._lease[worker]}")
        while (kind := self._next_kind()) is not None:
            identity = heapq.heappop(self._ready[kind])[-1]
            if identity in self._done or identity in self._failed:
                continue
            self._count(self._items[identity], -1)
            self._attempts[identity] += 1
            self._lease[worker] = identity
            self._since[worker] = self._signed[worker] = self._clock()
            self._saved.discard(worker)
            self._note("started", identity, worker)
            return self._items[identity], self._attempts[identity]
        return None

    def has(self, identity: str) -> bool:
        """Whether the item was ever added."""
        return identity in self._items

    def current(self, worker: str) -> str | None:
        """The incarnation of `worker` that last asked for work."""
        return self._incarnation.get(worker)

    def holds(self, worker: str, incarnation: str, identity: str) -> bool:
        """Whether this incarnation of `worker` still has the lease of the item."""
        return self._lease.get(worker) == identity and self._incarnation.get(worker) == incarnation

    @property
    def leased(self) -> set[str]:
        """The items that workers hold now."""
        return set(self._lease.values())

    def signed(self, worker: str, incarnation: str, identity: str, *, saved: bool) -> None:
        """The work on the item goes on; `saved`: its loss would cost minutes, not all of it."""
        if self.holds(worker, incarnation, identity):
            self._signed[worker] = self._clock()
            if saved:
                self._saved.add(worker)

    def finish(self, worker: str, incarnation: str, identity: str, report: Report) -> None:
        """The worker has carried the item out; a report from a lost lease is ignored."""
        if not self.holds(worker, incarnation, identity):
            return
        del self._lease[worker]
        self._done.add(identity)
        kind = Key(identity).kind
        count, seconds = self._seen_s.get(kind, (0, 0.0))
        took_s = self._clock() - self._since[worker]
        self._seen_s[kind] = count + 1, seconds + took_s
        self._note("finished", identity, worker, report=report)
        for dependent in self._dependents.get(identity, ()):
            unmet = self._unmet[dependent]
            unmet.discard(identity)
            if not unmet and dependent not in self._failed:
                self._push(dependent)

    def fail(self, worker: str, incarnation: str, identity: str, failure: Failure) -> None:
        """The item raised: it is over, and so is everything that needs it."""
        if not self.holds(worker, incarnation, identity):
            return
        del self._lease[worker]
        self._fail(identity, worker, failure)

    def _fail(self, identity: str, worker: str, failure: Failure) -> None:
        if identity in self._failed:
            return
        if not self._attempts[identity]:
            self._count(self._items[identity], -1)
        self._failed[identity] = failure
        payload = self._items[identity].payload
        self._note("failed", identity, worker, failure=failure, payload=payload)
        for dependent in self._dependents.get(identity, ()):
            self._fail(dependent, "", self._because(identity))

    def _because(self, identity: str) -> Failure:
        failure = self._failed[identity]
        return replace(failure, error=f"{identity} failed: {failure.error}", inherited=True)

    def lose(self, worker: str) -> None:
        """`worker` is gone: what it held is leased again, or failed after `max_attempts`."""
        identity = self._lease.pop(worker, None)
        self._incarnation.pop(worker, None)
        if identity is None:
            return
        silent_s = self._clock() - self._signed[worker]
        if worker in self._saved:  # the next attempt goes on where this one stood: none is lost
            self._excused[identity] = self._excused.get(identity, 0) + 1
        deadline_s = self._items[identity].deadline_s
        if deadline_s is not None and silent_s >= deadline_s:
            message = (
                f"it gave no sign of progress for {deadline_s:g} s, its deadline, and its worker "
                "was ended; raise --deadline, then --retry-failed"
            )
            self._fail(identity, worker, Failure(error_type="DeadlineExceeded", error=message))
        elif self._attempts[identity] - self._excused.get(identity, 0) >= self.max_attempts:
            times = self._attempts[identity] - self._excused.get(identity, 0)
            message = (
                f"the worker died {times} times while computing it "
                f"(last: {worker}); out of memory? Run with fewer --workers, then --retry-failed"
            )
            self._fail(identity, worker, Failure(error_type="WorkerDied", error=message))
        else:
            self._note("lost", identity, worker)
            self._count(self._items[identity], 1)
            self._push(identity)

    def lose_run(self, run: str) -> None:
        """Every worker of `run` (named `<run>/<rank>`) is gone."""
        for worker in [w for w in self._incarnation if w.startswith(f"{run}/")]:
            self.lose(worker)

    def _note(self, kind: str, identity: str, worker: str, **more: Any) -> None:
        self.events.append(
            Event(
                kind=kind,
                item=Key(identity),
                arm=self._items[identity].arm,
                worker=worker,
                attempt=self._attempts[identity],
                **more,
            )
        )

    @property
    def ready(self) -> int:
        """At least as many as there are items that a worker could take now."""
        return sum(map(len, self._ready.values()))

    @property
    def open(self) -> int:
        """Items that are neither finished nor failed."""
        return len(self._items) - len(self._done) - len(self._failed)
