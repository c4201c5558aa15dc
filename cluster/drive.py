"""Drive a whole study on a cluster that `connect` has joined: broker, fleet and arms together.

Ray Tune, Ray Train and torch take seconds to import each, so the driver imports none of them: the
processes that need them do, side by side.
"""

import importlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from cluster.broker import on_this_node, point_key, start_broker
from cluster.census import Census
from cluster.errors import ClusterLost
from cluster.fleet import Fleet
from cluster.queue import NOTE, Event, WorkItem
from cluster.versions import check_versions
from sweeps.search.space import Problem

if TYPE_CHECKING:
    from sweeps.search.campaign import Work

TIDY_TIMEOUT_S = 20.0
POLL_S = 0.5
TRIALS_AT_ONCE = 1  # no slot waits for one (see the broker), and each is a process
NODES_WAIT_S = 1_200.0  # a spot node that installs the packages takes 8 minutes


@dataclass(frozen=True, kw_only=True)
class Load:
    """Everything there is to compute.

    Attributes:
        study: its name, for Optuna.
        execute: import path of the function that carries out a payload.
        levels: factor → all its levels.
        shared: the stages, which several arms wait for.
        arms: (levels of the arm, its missing cells), in the order to run them.
        finished: (levels, objective) of the arms that miss nothing.
        scratch: a folder or URI that every node can reach, for Ray's own bookkeeping.
        database: where the database for optuna-dashboard goes; None keeps it in memory.
        search: proposes arms as results come, instead of `arms`.
    """

    study: str
    execute: str
    levels: Mapping[str, Sequence[Any]]
    shared: Sequence[WorkItem]
    arms: Sequence[tuple[Mapping[str, Any], Sequence[WorkItem]]]
    finished: Sequence[tuple[Mapping[str, Any], float]]
    scratch: str
    database: Path | None
    search: "tuple[Problem, Work] | None" = None


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
    load: Load,
    capacity: Capacity,
    *,
    stays: bool,
    say: Callable[..., None],
    on_slots: Callable[[int], None],
    on_event: Callable[[Event], None],
    on_tick: Callable[[], None],
) -> None:
    """Compute the load; returns when every item is finished or failed.

    Args:
        stays: the cluster is there before and after us: wait NODES_WAIT_S for nodes that are to
            come where there is none, and for the runs to go home at the end.
        say: `say(text)` tells the user of nodes; with `always=True` a quiet one too, of a warning.
        on_slots: told how many workers there are, at the start and when nodes come or go.
        on_event, on_tick: told of each event, and about twice a second.

    Raises:
        ClusterError: nodes differ in their versions, or no node has room for a worker.
        ClusterLost: the broker, the driver of a search, the whole fleet or the cluster died.
    """
    census = Census()
    try:
        _drive(
            load, capacity, census,
            stays=stays, say=say, on_slots=on_slots, on_event=on_event, on_tick=on_tick,
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
    load: Load,
    capacity: Capacity,
    census: Census,
    *,
    stays: bool,
    say: Callable[[str], None],
    on_slots: Callable[[int], None],
    on_event: Callable[[Event], None],
    on_tick: Callable[[], None],
) -> None:
    gpus = capacity.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if ray.cluster_resources().get("GPU", 0) else 0.0
    checked = check_versions()
    name = f"broker-{uuid.uuid4().hex[:12]}"
    broker = start_broker(name=name, max_attempts=capacity.max_attempts)
    cells = {point_key(levels): list(items) for levels, items in load.arms}
    registered = broker.register.remote(list(load.shared), cells)
    fleet = Fleet(
        broker=broker,
        broker_name=name,
        execute=load.execute,
        workers=capacity.workers,
        cpus_per_worker=capacity.cpus_per_worker,
        gpus_per_worker=gpus,
        storage=load.scratch,
        checked=checked,
        say=say,
        patience_s=NODES_WAIT_S if stays else 0.0,
    )
    fleet.must_live()
    on_slots(fleet.slots)
    broker.set_slots.remote(fleet.slots)
    ray.get(registered)  # before a trial can ask for its arm
    arms = _start(load, name)
    left = len(load.shared) + sum(len(items) for items in cells.values())
    seen = 0
    over = mourned = False
    while not over:
        ended = bool(ray.wait([arms], timeout=0)[0])
        events, _ = ray.get(broker.events_since.remote(seen, POLL_S))
        seen += len(events)
        for event in _heard(events, say):
            left -= event.kind in ("finished", "failed")
            on_event(event)
        on_tick()
        nodes = census.news()
        if nodes is not None:
            if fleet.follow(nodes):
                on_slots(fleet.slots)
                broker.set_slots.remote(fleet.slots)
            if stays:
                fleet.want(ray.get(broker.arms_left.remote()) if load.search else left)
        over = ended and not events if load.search else not left
        if ended and load.search:
            ray.get(arms)  # raises Tune's own error, if it has one
        elif ended and not over and not mourned:
            mourned = True
            say(f"Tune's driver died; the study goes on without it ({_last_words(arms)})")
        if not over:
            fleet.must_live()
    _let_tune_end(arms, broker)
    _heard(ray.get(broker.events_since.remote(seen, 0.0))[0], say)
    ray.get(broker.close.remote())
    if stays:
        fleet.want(0)
        fleet.wait_home(TIDY_TIMEOUT_S)


def _heard(events: Sequence[Event], say: Callable[..., None]) -> list[Event]:
    """What the events tell of items; notes are passed on to the user, who may want no others."""
    for event in events:
        if event.kind == NOTE:
            say(event.report["text"], always=True)
    return [event for event in events if event.kind != NOTE]


def _let_tune_end(arms: Any, broker: Any) -> None:
    """Wait for its last reports while it makes some: nothing but Optuna's database needs them."""
    before = -1
    while (now := ray.get(broker.trials_started.remote())) > before:
        before = now
        if ray.wait([arms], timeout=TIDY_TIMEOUT_S)[0]:
            return


def _start(load: Load, broker_name: str) -> Any:
    """The arms as a Tune experiment; its future."""
    common = {
        "broker_name": broker_name,
        "storage_path": load.scratch,
        "database": load.database,
    }
    if load.search:
        problem, work = load.search
        arguments = {"problem": problem, "work": work, **common}
        return _beside("cluster.tuning:run_search", arguments)
    arguments = dict(
        study_name=load.study,
        levels=load.levels,
        points=[levels for levels, _ in load.arms],
        finished=load.finished,
        max_concurrent=TRIALS_AT_ONCE,
        seed=0,
        **common,
    )
    return _beside("cluster.arms:run_arms", arguments)


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
