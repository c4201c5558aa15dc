"""Drive a whole study on a cluster that `connect` has joined: broker, fleet and arms together."""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from cluster.arms import start_arms
from cluster.broker import point_key, start_broker
from cluster.campaign import Work
from cluster.connect import ClusterError
from cluster.fleet import Fleet
from cluster.queue import Event, WorkItem
from cluster.space import Problem
from cluster.tuning import start_search
from cluster.versions import check_versions

TIDY_TIMEOUT_S = 20.0
POLL_S = 0.5
NODES_EVERY_S = 2.0


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
        database: where the view for optuna-dashboard goes; None keeps it in memory.
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
    search: tuple[Problem, Work] | None = None


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
    tidy: bool,
    on_slots: Callable[[int], None],
    on_event: Callable[[Event], None],
    on_tick: Callable[[], None],
) -> None:
    """Compute the load; returns when every item is finished or failed.

    Args:
        tidy: wait for the runs to go home, as on a cluster that stays after us.
        on_slots: told how many workers there are, at the start and when nodes come or go.
        on_event, on_tick: told of each event, and about twice a second.

    Raises:
        ClusterError: no node has room for a worker, or the whole fleet is gone.
    """
    gpus = capacity.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if ray.cluster_resources().get("GPU", 0) else 0.0
    check_versions()
    name = f"broker-{uuid.uuid4().hex[:12]}"
    broker = start_broker(name=name, max_attempts=capacity.max_attempts)
    cells = {point_key(levels): list(items) for levels, items in load.arms}
    ray.get(broker.register.remote(list(load.shared), cells))
    fleet = Fleet(
        broker=broker,
        broker_name=name,
        execute=load.execute,
        workers=capacity.workers,
        cpus_per_worker=capacity.cpus_per_worker,
        gpus_per_worker=gpus,
        storage=load.scratch,
    )
    on_slots(fleet.slots)
    arms = _start(load, name, fleet.slots, [len(items) for items in cells.values()])
    left = len(load.shared) + sum(len(items) for items in cells.values())
    seen = 0
    looked = time.monotonic()
    over = False
    while not over:
        ended = bool(ray.wait([arms], timeout=0)[0])
        events, _ = ray.get(broker.events_since.remote(seen, POLL_S))
        seen += len(events)
        for event in events:
            left -= event.kind in ("finished", "failed")
            on_event(event)
        on_tick()
        if time.monotonic() - looked > NODES_EVERY_S:
            looked = time.monotonic()
            if fleet.follow(ray.nodes()):
                on_slots(fleet.slots)
        over = ended and not events if load.search else not left
        if ended and (load.search or not over):
            ray.get(arms)  # raises Tune's own error, if it has one
        if not over and (reasons := fleet.given_up()):
            raise ClusterError(
                f"every worker is gone: {'; '.join(reasons)}; run the command again to resume"
            )
    ray.wait([arms], timeout=TIDY_TIMEOUT_S)
    ray.get(broker.close.remote())
    if tidy:
        fleet.wait_home(TIDY_TIMEOUT_S)


def _start(load: Load, broker_name: str, slots: int, cells_per_arm: Sequence[int]) -> Any:
    """The arms as a Tune experiment; its future."""
    common = {
        "broker_name": broker_name,
        "storage_path": load.scratch,
        "database": load.database,
    }
    if load.search:
        problem, work = load.search
        # Seed by seed, an arm keeps one slot busy; one more bridges the gap between two seeds.
        return start_search(problem=problem, work=work, max_concurrent=slots + 1, **common)
    return start_arms(
        study_name=load.study,
        levels=load.levels,
        points=[levels for levels, _ in load.arms],
        finished=load.finished,
        max_concurrent=concurrency(slots, cells_per_arm),
        seed=0,
        **common,
    )


def concurrency(slots: int, cells_per_arm: Sequence[int]) -> int:
    """How many arms must run at once so that no slot idles: enough for every slot, and one more."""
    return max(2, -(-slots // max(1, min(cells_per_arm, default=1))) + 1)
