"""The fleet: one Ray Train run per node, whose workers take items from the broker until stopped.

Workers stay warm from item to item (imports, data, compiled kernels) and share no process group
of their own making: each item fits one worker. When a worker dies, Train restarts that node's run;
what it held goes back to the queue, and no other node notices.
"""

import faulthandler
import importlib
import inspect
import os
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ray

from cluster.admission import NodeAdmission
from cluster.broker import on_this_node
from cluster.connect import NAMESPACE
from cluster.demand import Demand
from cluster.errors import ClusterError, ClusterLost
from cluster.signs import EverySoOften, Signs
from cluster.traffic import Failure, Points

# Trials and the broker need a sliver of a CPU on the nodes that the fleet fills.
CPU_LEFT_PER_WORKER = 0.01
RESTARTS_WITHOUT_PROGRESS = 3
MAX_NODES = 1_000
# Train starts an actor that watches for preemption so that workers can save a checkpoint; ours
# have committed what they finished, and save its process.
TRAIN_SETTINGS = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node of the cluster and the workers it will get."""

    node_id: str
    address: str
    workers: int
    run: str = ""


def plan_nodes(
    nodes: list[Mapping[str, Any]],
    *,
    workers: int | None,
    cpus_per_worker: float,
    gpus_per_worker: float,
) -> list[Node]:
    """How many workers each alive node gets: every slot it has, up to `workers` in all.

    Args:
        nodes: as `ray.nodes()` lists them.
    """
    planned: list[Node] = []
    left = workers if workers is not None else 10**9
    for node in sorted(nodes, key=lambda n: n["NodeID"]):
        resources = node.get("Resources", {})
        slots = int(resources.get("CPU", 0) / cpus_per_worker)
        if gpus_per_worker:
            slots = min(slots, int(resources.get("GPU", 0) / gpus_per_worker + 1e-9))
        slots = min(slots, left)
        if node["Alive"] and slots > 0:
            left -= slots
            planned.append(
                Node(node_id=node["NodeID"], address=node["NodeManagerAddress"], workers=slots)
            )
    return planned


def _worker_cpus(cpus: float) -> float:
    return max(cpus - CPU_LEFT_PER_WORKER, CPU_LEFT_PER_WORKER)


def serve(config: Mapping[str, Any]) -> None:
    """What every Train worker runs: take, compute, report, until the broker says stop.

    `config["execute"]` is an import path "module:function" to
    `function(payload, *, device, node, attempt) -> Report`; an exception that it lets out fails the
    item. One that has a parameter `signs` calls it while its work goes on: the deadline counts from
    the last call. One that has a parameter `progress` calls that with the share that is done and
    the curves so far, which is a sign too.
    """
    import ray.train  # here, as the driver imports this module and needs neither it nor torch

    module, _, name = config["execute"].partition(":")
    execute = getattr(importlib.import_module(module), name)
    takes_signs = "signs" in inspect.signature(execute).parameters
    takes_progress = "progress" in inspect.signature(execute).parameters
    broker = ray.get_actor(config["broker"], namespace=NAMESPACE)
    rank = ray.train.get_context().get_world_rank()
    worker = f"{config['run']}/{rank}"
    if rank == 0:
        broker.say_reserved.remote(config["run"], ray.util.get_current_placement_group())
    incarnation = uuid.uuid4().hex
    device = _gpu() if config["gpu"] else "cpu"
    node = ray.get_runtime_context().get_node_id()
    asked = broker.take.remote(worker, incarnation)
    while (answer := ray.get(asked)) != "stop":
        if answer == "wait":
            asked = broker.take.remote(worker, incarnation)
            continue
        item, attempt, share_every_s = answer
        lease = worker, incarnation, item.id
        try:
            if item.deadline_s is not None:
                # A watchdog outside Python's lock: it ends this process even where native code
                # hangs, and leaves every thread's traceback in the worker's log.
                faulthandler.dump_traceback_later(item.deadline_s, exit=True)
            tells = {}
            signs = Signs(item.deadline_s, partial(broker.signed.remote, *lease))
            if takes_signs:
                tells["signs"] = signs
            if takes_progress:
                tells["progress"] = EverySoOften(
                    partial(_tell_progress, signs, partial(broker.share_done.remote, *lease)),
                    share_every_s,
                )
            report = execute(item.payload, device=device, node=node, attempt=attempt, **tells)
        except Exception as error:
            outcome, ok = Failure(
                error_type=type(error).__name__,
                error=str(error),
                traceback=traceback.format_exc(),
            ), False  # fmt: skip
        else:
            outcome, ok = report, True
        finally:
            faulthandler.cancel_dump_traceback_later()
        asked = broker.hand_in.remote(*lease, outcome.to_json(), ok=ok)


def _tell_progress(signs: Signs, tell: Callable[..., Any], share: float, points: Points) -> None:
    signs(saved=False)
    tell(share, points)


def _gpu() -> str:
    """The GPU that Train gave this worker."""
    from ray.train.torch import get_device

    return str(get_device())


class Supervisor:
    """Keeps one Train run per node alive, from an actor of its own.

    Not from threads of the driver: a thread inside `fit()` when the driver disconnects would
    abort the driver with it. So Ctrl+C, SIGTERM and the end of a study are a plain disconnect,
    after which Ray ends this actor and all it started.
    """

    def __init__(self, loop_config: Mapping[str, Any], storage: str) -> None:
        for name, value in TRAIN_SETTINGS.items():
            os.environ.setdefault(name, value)  # Train hands these to its controller and workers
        self._loop_config = dict(loop_config)
        self._storage = storage

    def keep(self, node: Node, cpus: float, gpus: float) -> str:
        """Run, and run again while items come back finished; returns why the node was given up.

        An empty string: the broker was closed, and the workers went home.
        """
        broker = ray.get_actor(self._loop_config["broker"], namespace=NAMESPACE)
        fruitless, reason = 0, ""
        while fruitless < 2:
            before = ray.get(broker.items_over.remote())
            reason = self._fit(node, cpus, gpus)
            reserved = ray.get(broker.lose_run.remote(node.run))
            if not reason:
                return ""
            if reserved is not None:
                # Train's controller gives its workers' room back, but not one that was killed.
                ray.util.remove_placement_group(reserved)
            if node.node_id not in {each["NodeID"] for each in ray.nodes() if each["Alive"]}:
                break  # Train's controller went with it, and another would wait for it
            fruitless = 0 if ray.get(broker.items_over.remote()) > before else fruitless + 1
        return f"{node.address}: {reason}"

    def _fit(self, node: Node, cpus: float, gpus: float) -> str:
        import ray.train

        from cluster.trainer import NODE_LABEL, FleetTrainer

        resources = {"CPU": _worker_cpus(cpus)}
        if gpus:
            resources["GPU"] = gpus
        trainer = FleetTrainer(
            serve,
            train_loop_config={**self._loop_config, "run": node.run},
            scaling_config=ray.train.ScalingConfig(
                num_workers=node.workers,
                use_gpu=gpus > 0,
                resources_per_worker=resources,
                label_selector={NODE_LABEL: node.node_id},
            ),
            node_id=node.node_id,
            run_config=ray.train.RunConfig(
                name=f"fleet-{node.run}-{uuid.uuid4().hex[:8]}",
                storage_path=self._storage,
                failure_config=ray.train.FailureConfig(
                    max_failures=RESTARTS_WITHOUT_PROGRESS,
                    controller_failure_limit=RESTARTS_WITHOUT_PROGRESS,
                ),
            ),
        )
        try:
            trainer.fit()
        except Exception as error:
            lines = str(error).strip().splitlines()
            return lines[-1] if lines else type(error).__name__
        return ""


class Fleet:
    """The study's Train runs, one per node, as the driver sees them.

    Args:
        broker_name: of the broker actor, which is `broker`.
        execute: import path of the function that carries out a payload.
        storage: a folder or URI that every node can reach, for Train's own bookkeeping.
        workers: at most so many in all; None takes every slot there is and comes to be.
        checked: ids of the nodes whose versions are known to agree; others are asked first.
        say: `say(text)` tells the user of a node that is not used, and of waiting for nodes.
        patience_s: how long to wait for nodes to come where there is none.
    """

    def __init__(
        self,
        *,
        broker: Any,
        broker_name: str,
        execute: str,
        workers: int | None,
        cpus_per_worker: float,
        gpus_per_worker: float,
        storage: str,
        checked: frozenset[str],
        say: Callable[[str], None],
        patience_s: float,
    ) -> None:
        self._broker = broker
        self._workers, self._cpus, self._gpus = workers, cpus_per_worker, gpus_per_worker
        loop_config = {"broker": broker_name, "execute": execute, "gpu": gpus_per_worker > 0}
        self._supervisor = (
            ray.remote(Supervisor)
            .options(num_cpus=0, max_concurrency=MAX_NODES, **on_this_node())
            .remote(loop_config, storage)
        )
        self._nodes: dict[str, Node] = {}
        self._runs: dict[str, Any] = {}  # node id → future of its run
        self._reasons: list[str] = []
        self._started = 0
        self._admission, self._say = NodeAdmission(checked), say
        self._patience_s = patience_s
        self._alone_since: float | None = None
        self._demand = Demand(cpus=_worker_cpus(cpus_per_worker), gpus=gpus_per_worker)
        self._there: frozenset[str] = frozenset()  # ids of the nodes that are up, ours or not
        self.follow(ray.nodes())

    @property
    def slots(self) -> int:
        """Workers on the nodes that are there now."""
        return sum(node.workers for node in self._nodes.values())

    def follow(self, nodes: list[Mapping[str, Any]]) -> bool:
        """Give every new node its run, and forget dead ones; whether anything changed.

        Args:
            nodes: as `ray.nodes()` lists them.
        """
        self._there = frozenset(node["NodeID"] for node in nodes if node["Alive"])
        gone = [identity for identity in self._nodes if identity not in self._there]
        for identity in gone:
            node = self._nodes.pop(identity)
            ray.get(self._broker.lose_run.remote(node.run))
            ray.cancel(self._runs.pop(identity))
            self._reasons.append(f"{node.address} left the cluster")
        fresh = [node for node in nodes if node["NodeID"] not in self._nodes]
        planned = self._room([node for node in fresh if self._may_use(node)])
        for node in planned:
            self._nodes[node.node_id] = named = replace(node, run=f"node{self._started}")
            self._started += 1
            self._runs[node.node_id] = self._supervisor.keep.remote(named, self._cpus, self._gpus)
        return bool(gone or planned)

    def _room(self, nodes: list[Mapping[str, Any]]) -> list[Node]:
        left = None if self._workers is None else self._workers - self.slots
        return plan_nodes(
            nodes, workers=left, cpus_per_worker=self._cpus, gpus_per_worker=self._gpus
        )

    def _may_use(self, node: Mapping[str, Any]) -> bool:
        if not self._room([node]):
            return False
        welcome, why_not = self._admission.admits(node)
        if why_not:
            self._say(why_not)
        return welcome

    def want(self, slots: int) -> None:
        """Ask the autoscaler, where there is one, for what is missing of so many slots."""
        most = slots if self._workers is None else min(slots, self._workers)
        self._demand.ask(most - self.slots, not_on=self._there)

    def must_live(self) -> None:
        """Nothing while a run is up, or while nodes may still come.

        Raises:
            ClusterError: no node came that has room for a worker.
            ClusterLost: every run ended, and no node came within `patience_s`.
        """
        reasons = self._given_up()
        if reasons is None:
            self._alone_since = None
            return
        if not self._started:
            why = (
                f"no node has room for a worker of {self._cpus:g} CPU and {self._gpus:g} GPU; "
                "lower --cpus-per-worker or --gpus-per-worker, or add nodes"
            )
        else:
            why = f"every worker is gone: {'; '.join(reasons)}"
        now = time.monotonic()
        if (
            self._nodes
            or now - (self._alone_since or now) > self._patience_s
            or not self._patience_s
        ):
            raise ClusterLost(why) if self._started else ClusterError(why)
        if self._alone_since is None:
            self._alone_since = now
            self._say(f"waiting up to {self._patience_s / 60:.0f} min for nodes to come: {why}")

    def _given_up(self) -> list[str] | None:
        """Why each node was given up, once none is left; None while any is up."""
        ended, running = ray.wait(
            list(self._runs.values()), num_returns=len(self._runs), timeout=0
        ) if self._runs else ([], [])  # fmt: skip
        if running:
            return None
        reasons = list(self._reasons)
        for run in ended:
            try:
                reasons.append(ray.get(run))
            except ray.exceptions.RayActorError:
                reasons.append("the supervisor of the fleet died (killed, or out of memory)")
            except ray.exceptions.RayError as error:
                reasons.append(str(error).strip().splitlines()[0])
        return [reason for reason in dict.fromkeys(reasons) if reason] or ["every run ended"]

    def join(self, timeout_s: float) -> None:
        """Wait for the runs to end after the broker was closed (tidy on a cluster that stays)."""
        runs = list(self._runs.values())
        if runs:
            ray.wait(runs, num_returns=len(runs), timeout=timeout_s)
