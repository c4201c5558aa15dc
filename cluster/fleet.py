"""The fleet: one Ray Train run per node, whose workers take items from the broker until stopped.

Workers stay warm from item to item (imports, data, compiled kernels) and share no process group
of their own making: each item fits one worker. When a worker dies, Train restarts that node's run;
what it held goes back to the queue, and no other node notices.
"""

import importlib
import traceback
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchTrainer, get_device

from cluster.broker import on_this_node
from cluster.connect import NAMESPACE, ClusterError

# Trials and the broker need a sliver of a CPU on the nodes that the fleet fills.
CPU_LEFT_PER_WORKER = 0.01
RESTARTS_WITHOUT_PROGRESS = 3


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node of the cluster and the workers it will get."""

    node_id: str
    address: str
    workers: int


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

    Raises:
        ClusterError: no node has room for a single worker.
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
    if not planned:
        raise ClusterError(
            f"no node has room for a worker of {cpus_per_worker} CPU and {gpus_per_worker} GPU; "
            "lower --cpus-per-worker or --gpus-per-worker, or add nodes"
        )
    return planned


def serve(config: Mapping[str, Any]) -> None:
    """What every Train worker runs: take, compute, report, until the broker says stop.

    `config["execute"]` is an import path "module:function" to
    `function(payload, *, device, node, attempt, still_mine) -> report`; an exception that it lets
    out fails the item.
    """
    module, _, name = config["execute"].partition(":")
    execute = getattr(importlib.import_module(module), name)
    broker = ray.get_actor(config["broker"], namespace=NAMESPACE)
    worker = f"{config['run']}/{ray.train.get_context().get_world_rank()}"
    incarnation = uuid.uuid4().hex
    device = str(get_device()) if config["gpu"] else "cpu"
    node = ray.get_runtime_context().get_node_id()
    while True:
        answer = ray.get(broker.take.remote(worker, incarnation))
        if answer == "stop":
            return
        if answer == "wait":
            continue
        item, attempt = answer
        try:
            report = execute(item.payload, device=device, node=node, attempt=attempt)
        except Exception as error:
            ray.get(
                broker.fail.remote(
                    worker,
                    incarnation,
                    item.id,
                    {
                        "error_type": type(error).__name__,
                        "error": str(error),
                        "traceback": traceback.format_exc(),
                    },
                )
            )
        else:
            ray.get(broker.finish.remote(worker, incarnation, item.id, report))


class Supervisor:
    """Keeps one Train run per node alive, from an actor of its own.

    Not from threads of the driver: a thread inside `fit()` when the driver disconnects would
    abort the driver with it. So Ctrl+C, SIGTERM and the end of a study are a plain disconnect,
    after which Ray ends this actor and all it started.
    """

    def __init__(self, loop_config: Mapping[str, Any], storage: str) -> None:
        self._loop_config = dict(loop_config)
        self._storage = storage

    def keep(self, node: Node, run: str, cpus: float, gpus: float) -> str:
        """Run, and run again while items come back finished; returns why the node was given up.

        An empty string: the broker was closed, and the workers went home.
        """
        broker = ray.get_actor(self._loop_config["broker"], namespace=NAMESPACE)
        fruitless, reason = 0, ""
        while fruitless < 2:
            before = ray.get(broker.items_over.remote())
            reason = self._fit(node, run, cpus, gpus)
            ray.get(broker.lose_run.remote(run))
            if not reason:
                return ""
            fruitless = 0 if ray.get(broker.items_over.remote()) > before else fruitless + 1
        return f"{node.address}: {reason}"

    def _fit(self, node: Node, run: str, cpus: float, gpus: float) -> str:
        resources = {"CPU": max(cpus - CPU_LEFT_PER_WORKER, CPU_LEFT_PER_WORKER)}
        if gpus:
            resources["GPU"] = gpus
        trainer = TorchTrainer(
            serve,
            train_loop_config={**self._loop_config, "run": run},
            scaling_config=ray.train.ScalingConfig(
                num_workers=node.workers,
                use_gpu=gpus > 0,
                resources_per_worker=resources,
                label_selector={"ray.io/node-id": node.node_id},
            ),
            run_config=ray.train.RunConfig(
                name=f"fleet-{run}-{uuid.uuid4().hex[:8]}",
                storage_path=self._storage,
                failure_config=ray.train.FailureConfig(max_failures=RESTARTS_WITHOUT_PROGRESS),
            ),
        )
        try:
            trainer.fit()
        except Exception as error:
            lines = str(error).strip().splitlines()
            return lines[-1] if lines else type(error).__name__
        return ""


class Fleet:
    """The study's Train runs, as the driver sees them.

    Args:
        broker_name: of the broker actor.
        execute: import path of the function that carries out a payload.
        storage: a folder or URI that every node can reach, for Train's own bookkeeping.
    """

    def __init__(
        self,
        *,
        broker_name: str,
        execute: str,
        nodes: list[Node],
        cpus_per_worker: float,
        gpus_per_worker: float,
        storage: str,
    ) -> None:
        self.slots = sum(node.workers for node in nodes)
        loop_config = {"broker": broker_name, "execute": execute, "gpu": gpus_per_worker > 0}
        self._supervisor = (
            ray.remote(Supervisor)
            .options(num_cpus=0, max_concurrency=len(nodes) + 1, **on_this_node())
            .remote(loop_config, storage)
        )
        self._runs = [
            self._supervisor.keep.remote(node, f"node{i}", cpus_per_worker, gpus_per_worker)
            for i, node in enumerate(nodes)
        ]

    def given_up(self) -> list[str] | None:
        """Why each node was given up, once no node is left; None while any is up."""
        ended, running = ray.wait(self._runs, num_returns=len(self._runs), timeout=0)
        if running:
            return None
        reasons = []
        for run in ended:
            try:
                reasons.append(ray.get(run))
            except ray.exceptions.RayError as error:
                reasons.append(str(error).strip().splitlines()[0])
        return [reason for reason in reasons if reason] or ["every run ended"]

    def wait_home(self, timeout_s: float) -> None:
        """Wait for the runs to end after the broker was closed (tidy on a cluster that stays)."""
        ray.wait(self._runs, num_returns=len(self._runs), timeout=timeout_s)
