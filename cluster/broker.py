"""The study's broker: one small Ray actor that owns the queue and wakes whoever waits on it."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.connect import NAMESPACE
from cluster.queue import NOTE, Event, WorkItem, WorkQueue
from cluster.signs import SHARE_EVERY_S, Silences
from cluster.traffic import Failure, Key, Points, Pulse, Report

LONG_POLL_S = 5.0
SHARES_A_SECOND = 100.0  # of the whole fleet: each is a call, and so is an item's end
Json = Mapping[str, Any]  # of `Message.to_json`


class Lease(NamedTuple):
    """An item for a worker, and how often it may say how much of it is done."""

    item: WorkItem
    attempt: int
    share_every_s: float


class Broker:
    """Leases work to the fleet's workers and hands each arm its results in order of arrival.

    What the driver adds is queued at once, so that no slot waits for Tune. An arm that a search
    holds is queued step by step, as its trial asks.

    Async, so that many workers and trials can wait in it at once; every method runs to its next
    await without interruption, which is the only locking the queue needs.
    """

    def __init__(self, *, max_attempts: int) -> None:
        self.queue = WorkQueue(max_attempts=max_attempts)
        self.closed = False
        self._cells: dict[str, list[str]] = {}  # arm → its cells, as far as they are known
        self._held: dict[str, list[list[WorkItem]]] = {}  # arm → its steps, queued when asked for
        self._stopping = False  # no step that a search holds is queued any more
        self._more = False  # whether the driver may add cells to an arm
        self._slots = 0
        self._arms_left = 0
        self._arms_of: dict[str, list[str]] = {}  # item → the arms that hold it
        self._over: dict[str, dict[str, Any]] = {}  # item → its result
        self._reserved: dict[str, Any] = {}  # run → the placement group of its workers
        self._results: dict[str, list[dict[str, Any]]] = {}  # arm → its results so far
        self._shares: dict[str, float] = {}  # item that is being computed → how much of it is done
        self._points: dict[str, dict[str, tuple[int, tuple[float, ...]]]] = {}  # of these, new ones
        self._silences = Silences()
        self._read = 0  # events that `_notify` has sorted into the above
        self._log: list[tuple[str, int | None, float | None]] = []  # arm, seed, objective
        self._ending = asyncio.Event()  # the driver has all that it wanted
        self._shown = asyncio.Event()  # Optuna's database has it too
        self._changed = asyncio.Condition()  # results and events: for trials and the driver
        self._work = asyncio.Condition()  # items that are ready: for workers

    async def _notify(self) -> None:
        for event in self.queue.events[self._read :]:
            if event.kind in ("finished", "failed", "lost"):
                self._silences.over(event.item, ok=event.kind == "finished")
            if event.kind in ("finished", "failed"):
                result = {"item": event.item, "ok": event.report is not None}
                if event.report:
                    result |= {"seed": event.report.seed, "objective": event.report.objective}
                    result["ended"] = event.report.ended
                self._over[event.item] = result
                for key in self._arms_of.get(event.item, ()):
                    self._have(key, result)
        self._read = len(self.queue.events)
        async with self._changed:
            self._changed.notify_all()
        await self._wake()

    async def _wake(self) -> None:
        """As many waiting workers as there is work for: each of the others would only look."""
        async with self._work:
            if self.closed:
                self._work.notify_all()
            else:
                self._work.notify(self.queue.ready)

    async def _wait(self, timeout_s: float, on: asyncio.Condition | None = None) -> None:
        on = on or self._changed
        async with on:
            try:
                await asyncio.wait_for(on.wait(), timeout_s)
            except TimeoutError:
                return

    def _have(self, arm: str, result: dict[str, Any]) -> None:
        """The arm has one more result."""
        self._results[arm].append(result)
        self._log.append((arm, result.get("seed"), result.get("objective")))

    def _know(self, arm: str, cells: Sequence[str]) -> None:
        """These cells are the arm's, after those that it has."""
        self._cells.setdefault(arm, []).extend(cells)
        self._results.setdefault(arm, [])
        for cell in cells:
            holders = self._arms_of.setdefault(cell, [])
            if arm not in holders:  # a search holds an arm again after a node's loss
                holders.append(arm)
            if cell in self._over:
                self._have(arm, self._over[cell])

    async def add(self, items: Sequence[WorkItem], *, more: bool) -> None:
        """Queue the items; `more`: another call may add cells to any arm."""
        self._more = more
        fresh: dict[str, list[str]] = {}
        for item in items:
            if item.arm is not None:
                fresh.setdefault(item.arm, []).append(item.id)
        for arm, cells in fresh.items():
            self._know(arm, cells)
        self.queue.add(items)
        await self._notify()

    async def hold(self, arm: str, steps: list[list[WorkItem]]) -> None:
        """An arm that is computed seed by seed: each step has its stages, and its cell last."""
        self._held[arm], self._cells[arm], self._results[arm] = steps, [], []
        self._know(arm, [step[-1].id for step in steps])

    async def result_of_arm(self, arm: str, position: int) -> dict[str, Any] | None:
        """The arm's result that came in at `position`, which is waited for; None: it has no more.

        Its entry "last" says whether the arm surely has no other after it.
        """
        held = self._held.get(arm, ())
        if position < len(held):
            if self._stopping and not self.queue.has(held[position][-1].id):
                return None
            self.queue.add(held[position])
            await self._notify()
        while len(self._results.get(arm, ())) <= position:
            if position >= len(self._cells.get(arm, ())) and not self._more:
                return None
            await self._wait(LONG_POLL_S)
        last = position + 1 >= len(self._cells[arm]) and not self._more
        return {**self._results[arm][position], "last": last}

    async def signed(self, worker: str, incarnation: str, item: str, saved: bool) -> None:
        """The work on the item goes on, see `WorkQueue.signed`."""
        self.queue.signed(worker, incarnation, item, saved=saved)
        if self.queue.holds(worker, incarnation, item):
            self._silences.sign(Key(item))

    async def share_done(
        self, worker: str, incarnation: str, item: str, share: float, points: Points
    ) -> None:
        """So much of the item is done, in [0, 1], and these points of its curves are new; of a
        lease that is lost it is ignored.
        """
        if self.queue.holds(worker, incarnation, item):
            self._shares[item] = share
            self._silences.sign(Key(item))
            known = self._points.setdefault(item, {})
            for name, (first, values) in points.items():
                start, before = known.get(name, (first, ()))
                known[name] = (start, before + values) if first else (0, values)

    async def pulses(self) -> dict[str, Json]:
        """Of each item that is being computed, what its worker has said; points are told once."""
        leased, points = self.queue.leased, self._points
        self._points = {}
        self._shares = {item: share for item, share in self._shares.items() if item in leased}
        return {
            item: Pulse(
                share=self._shares.get(item),
                silent_s=self._silences.silent_s(Key(item)),
                worth_a_word_s=self._silences.worth_a_word_s(Key(item)),
                points=points.get(item, {}),
            ).to_json()
            for item in leased
        }

    async def hand_in(
        self, worker: str, incarnation: str, identity: str, outcome: Json, *, ok: bool
    ) -> Lease | str:
        """What came of an item, a report or a failure, and `take`: one call for an item, not two.

        A thousand workers whose cells end together would wait for each other's second call.
        """
        await (self.finish if ok else self.fail)(worker, incarnation, identity, outcome)
        if self.queue.current(worker) != incarnation:  # it died, and came back meanwhile
            return "stop"
        return await self.take(worker, incarnation)

    async def take(self, worker: str, incarnation: str) -> Lease | str:
        """The next item, or "wait" (nothing is ready yet), or "stop"."""
        for _ in range(2):
            if self.closed:
                return "stop"
            leased = self.queue.take(worker, incarnation)
            if len(self.queue.events) > self._read:
                await self._notify()
            if leased:
                self._silences.began(leased[0].id, leased[0].deadline_s)
                pause_s = self._slots / SHARES_A_SECOND
                if leased[0].deadline_s is not None:  # a share is a sign of progress too
                    pause_s = min(pause_s, leased[0].deadline_s / 4)
                return Lease(*leased, max(SHARE_EVERY_S, pause_s))
            await self._wait(LONG_POLL_S, self._work)
            # The caller may have died and come back while this call was waiting: an old
            # incarnation must not be leased anything.
            if self.queue.current(worker) != incarnation:
                return "stop"
        return "wait"

    async def finish(self, worker: str, incarnation: str, identity: str, report: Json) -> None:
        self.queue.finish(worker, incarnation, identity, Report.from_json(report))
        await self._notify()

    async def fail(self, worker: str, incarnation: str, identity: str, failure: Json) -> None:
        self.queue.fail(worker, incarnation, identity, Failure.from_json(failure))
        await self._notify()

    async def say_reserved(self, run: str, group: Any) -> None:
        """A run's workers say where they are: the placement group that holds their resources."""
        self._reserved[run] = group

    async def lose_run(self, run: str) -> Any:
        """Every worker of `run` is gone; returns the placement group it had, None if it had none.

        Ray keeps a group for the length of the job, though the run that asked for it may be dead.
        """
        self.queue.lose_run(run)
        await self._notify()
        return self._reserved.pop(run, None)

    async def events_since(self, position: int, timeout_s: float) -> tuple[list[Event], int]:
        """Events from `position` on, and how many items are still open."""
        if len(self.queue.events) <= position and not self.closed:
            await self._wait(timeout_s)
        return self.queue.events[position:], self.queue.open

    async def note(self, text: str) -> None:
        """Something that the user should read; the driver hears of it as an event."""
        self.queue.events.append(Event(kind=NOTE, text=text))
        await self._notify()

    async def items_over(self) -> int:
        """How many items are finished or failed."""
        return len(self._over)

    async def news_of_arms(
        self, position: int, timeout_s: float
    ) -> tuple[list[tuple[str, int | None, float | None]], set[str], bool]:
        """Results of all arms from `position` on, after so long, or at once when the run ends.

        Returns:
            (arm, seed, objective) of each, without an objective where the cell failed; which of
            these arms surely have no other; whether the run has ended.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), timeout_s)
        news = self._log[position:]
        over = {
            arm
            for arm, _, _ in news
            if not self._more and len(self._results[arm]) >= len(self._cells[arm])
        }
        return news, over, self._ending.is_set()

    async def say_shown(self) -> None:
        """Optuna's database has every result of a run that has ended."""
        self._shown.set()

    async def end_view(self) -> None:
        """The run has ended; returns when Optuna's database has all of it."""
        self._ending.set()
        await self._shown.wait()

    async def set_slots(self, slots: int) -> None:
        """The driver says how many workers the fleet has now."""
        self._slots = slots

    async def slots(self) -> int:
        """How many workers the fleet has now."""
        return self._slots

    async def start_no_more(self) -> None:
        """The budget of a search is spent: what runs goes on, and its arms stay open."""
        self._stopping = True

    async def may_start(self) -> bool:
        """Whether a search may take up another arm."""
        return not self._stopping

    async def set_arms_left(self, arms: int) -> None:
        """A search says how many of its arms are not over."""
        self._arms_left = arms

    async def arms_left(self) -> int:
        """How many arms of a search are not over."""
        return self._arms_left

    async def close(self) -> None:
        """Every worker that asks from now on is told to stop."""
        self.closed = True
        await self._notify()


def on_this_node() -> dict[str, Any]:
    """Actor options that keep a small actor beside the driver."""
    here = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=True)}


def warner(broker_name: str) -> Callable[[str], None]:
    """`warn(text)` of a process beside the driver: the user reads it, on the driver's terminal."""
    broker = ray.get_actor(broker_name, namespace=NAMESPACE)
    return broker.note.remote


def start_broker(*, name: str, max_attempts: int) -> Any:
    """The broker actor, on the driver's node, named so that workers and trials find it."""
    actor = ray.remote(Broker).options(
        name=name, num_cpus=0, max_concurrency=10_000, **on_this_node()
    )
    return actor.remote(max_attempts=max_attempts)
