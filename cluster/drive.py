"""Drive a run on a cluster that `connect` has joined: broker, fleet and Tune together.

Ray Tune, Ray Train and torch take seconds to import each, so the driver imports none of them: the
processes that need them do, side by side.
"""

import importlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import ray

from cluster.broker import on_this_node, start_broker
from cluster.census import Census
from cluster.errors import ClusterLost
from cluster.fleet import Fleet
from cluster.queue import NOTE, Event, WorkItem
from cluster.traffic import Pulse
from cluster.versions import check_versions

TIDY_TIMEOUT_S = 20.0
POLL_S = 0.5
NODES_WAIT_S = 1_200.0  # a spot node that installs the packages takes 8 minutes


class Feed(Protocol):
    """Who knows what is wanted, where the driver leads, and hears what came of it."""

    def wanted(self) -> list[WorkItem]:
        """What is wanted now and was not handed over before."""

    @property
    def more(self) -> bool:
        """Whether more may be wanted once results are there."""

    @property
    def spent(self) -> bool:
        """Whether nothing more is to be started, where the feed does not say what is wanted."""

    def hear(self, event: Event) -> None:
        """An item has started, finished, failed, or was lost and waits again."""

    def has_slots(self, slots: int) -> None:
        """How many workers there are: at the start, and when nodes come or go."""

    def see(self, pulses: Mapping[str, Pulse]) -> None:
        """What is known of each item that is being computed; about twice a second."""

    def tick(self) -> None:
        """About twice a second, after `see`."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The Tune experiment beside the fleet, in a process of its own.

    Attributes:
        run: import path of what runs it; "cluster.following:follow" or
            "cluster.tune:search".
        arguments: of that function, beside the broker's name and a folder for Tune.
        leads: it says what is computed, and the run ends with it; else the driver's feed does.
    """

    run: str
    arguments: Mapping[str, Any]
    leads: bool


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """How much of the cluster to use.

    Attributes:
        workers: at most so many; None takes every slot.
        gpus_per_worker: None means one where the cluster has GPUs, else none.
        max_attempts: how often an item may take its worker down before it counts as failed.
    """

    workers: int | None
    cpus_per_worker: float
    gpus_per_worker: float | None
    max_attempts: int


def drive(
    feed: Feed,
    experiment: Experiment,
    capacity: Capacity,
    *,
    execute: str,
    scratch: str,
    persistent: bool,
    say: Callable[..., None],
) -> None:
    """Compute what is wanted; returns when all of it is finished or failed.

    Args:
        execute: import path of the function that carries out a payload.
        scratch: a folder or URI that every node can reach, for Ray's own bookkeeping.
        persistent: the cluster is there before and after us: wait NODES_WAIT_S for nodes that are
            to come where there is none, and for the runs to end once they are told to stop.
        say: `say(text)` tells the user of nodes; with `always=True` a quiet one too, of a warning.

    Raises:
        ClusterError: nodes differ in their versions, or no node has room for a worker.
        ClusterLost: the broker, the driver of a search, the whole fleet or the cluster died.
    """
    census = Census()
    try:
        _drive(
            feed, experiment, capacity, census,
            execute=execute, scratch=scratch, persistent=persistent, say=say,
        )  # fmt: skip
    except ray.exceptions.RayError as error:
        raise ClusterLost(census.dead(looking=True) or _what_died(error)) from error
    finally:
        census.close()


def _what_died(error: ray.exceptions.RayError) -> str:
    """Of what the driver waits for: the broker, or (only in a search) Tune."""
    text = str(error)
    if isinstance(error, ray.exceptions.WorkerCrashedError):
        return "Tune's driver died: its process was ended (killed, or out of memory)"
    if isinstance(error, ray.exceptions.NodeDiedError) or "node" in text.partition("\n")[0]:
        return "Ray's node on the driver's machine died"
    if isinstance(error, ray.exceptions.RayActorError):
        return "the broker died: its process was ended (killed, or out of memory)"
    lines = text.strip().splitlines()
    return f"Ray failed: {lines[-1] if lines else type(error).__name__}"


def _drive(
    feed: Feed,
    experiment: Experiment,
    capacity: Capacity,
    census: Census,
    *,
    execute: str,
    scratch: str,
    persistent: bool,
    say: Callable[..., None],
) -> None:
    gpus = capacity.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if ray.cluster_resources().get("GPU", 0) else 0.0
    checked = check_versions()
    name = f"broker-{uuid.uuid4().hex[:12]}"
    broker = start_broker(name=name, max_attempts=capacity.max_attempts)
    handed = _Handed(feed, broker)
    first = [] if experiment.leads else handed.over()
    fleet = Fleet(
        broker=broker,
        broker_name=name,
        execute=execute,
        workers=capacity.workers,
        cpus_per_worker=capacity.cpus_per_worker,
        gpus_per_worker=gpus,
        storage=scratch,
        checked=checked,
        say=say,
        patience_s=NODES_WAIT_S if persistent else 0.0,
    )
    fleet.must_live()
    feed.has_slots(fleet.slots)
    broker.set_slots.remote(fleet.slots)
    ray.get(first)  # before a trial can ask for its arm
    arguments = {**experiment.arguments, "broker_name": name, "storage_path": scratch}
    tune = _beside(experiment.run, arguments)
    seen, look_at = 0, 0.0
    over = mourned = stopping = False
    while not over:
        ended = bool(ray.wait([tune], timeout=0)[0])
        events, _ = ray.get(broker.events_since.remote(seen, POLL_S))
        seen += len(events)
        for event in _heard(events, say):
            handed.open -= event.kind in ("finished", "failed")
            feed.hear(event)
        # A thousand workers bring hundreds of events a second; what costs as much as there are
        # workers is not done for each.
        looking = time.monotonic() >= look_at
        if looking:
            look_at = time.monotonic() + POLL_S
            pulses = ray.get(broker.pulses.remote())
            feed.see({item: Pulse.from_json(pulse) for item, pulse in pulses.items()})
            feed.tick()
        nodes = census.news()
        if nodes is not None:
            if fleet.follow(nodes):
                feed.has_slots(fleet.slots)
                broker.set_slots.remote(fleet.slots)
            if persistent:
                fleet.want(ray.get(broker.arms_left.remote()) if experiment.leads else handed.open)
        if experiment.leads:
            if not stopping and feed.spent:
                stopping = True
                broker.start_no_more.remote()
            over = ended and not events
            if ended:
                ray.get(tune)  # raises Tune's own error, if it has one
        else:
            ray.get(handed.over())
            over = not handed.open
            if ended and not over and not mourned:
                mourned = True
                say(f"Tune's driver died; the study goes on without it ({_last_words(tune)})")
        if looking and not over:
            fleet.must_live()
    if not experiment.leads:
        _let_view_end(tune, broker)
    _heard(ray.get(broker.events_since.remote(seen, 0.0))[0], say)
    ray.get(broker.close.remote())
    if persistent:
        fleet.want(0)
        fleet.join(TIDY_TIMEOUT_S)


class _Handed:
    """What the feed wanted and the broker has.

    Attributes:
        open: how many of these items are not over.
    """

    def __init__(self, feed: Feed, broker: Any) -> None:
        self._feed, self._broker = feed, broker
        self._more: bool | None = None  # what the broker was told of it
        self.open = 0

    def over(self) -> Any:
        """Hand over what is wanted now; a future of it."""
        items = self._feed.wanted()
        self.open += len(items)
        if not items and self._feed.more == self._more:
            return []
        self._more = self._feed.more
        return self._broker.add.remote(items, more=self._more)


def _heard(events: Sequence[Event], say: Callable[..., None]) -> list[Event]:
    """What the events tell of items; notes are passed on to the user, who may want no others."""
    for event in events:
        if event.kind == NOTE:
            say(event.text, always=True)
    return [event for event in events if event.kind != NOTE]


def _let_view_end(tune: Any, broker: Any) -> None:
    """Wait for the last batch of Optuna's database, unless what writes it is gone.

    Not for Tune: of arms that it has not come to, the ledger and the database have everything.
    """
    ray.wait([tune, broker.end_view.remote()], timeout=TIDY_TIMEOUT_S)
    ray.cancel(tune, force=True)


def _call(path: str, arguments: Mapping[str, Any]) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)(**arguments)


def _beside(path: str, arguments: Mapping[str, Any]) -> Any:
    """The function at `path` in a process beside the driver; its future."""
    task = ray.remote(_call).options(num_cpus=0, max_retries=0, **on_this_node())
    return task.remote(path, arguments)


def _last_words(task: Any) -> str:
    """The last line of what a task that has ended raised.

    Raises:
        NodeDiedError: it went with its node, which is the driver's too.
    """
    try:
        ray.get(task)
    except ray.exceptions.NodeDiedError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines()
        return lines[-1] if lines else type(error).__name__
    return "it ended early"
