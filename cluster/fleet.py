"""The fleet: one Ray Train run per node, whose workers take items from the broker until stopped.

Workers stay warm from item to item (imports, data, compiled kernels) and share no process group
of their own making: each item fits one worker. When a worker dies, Train restarts that node's run;
what it held goes back to the queue, and no other node notices.
"""

import importlib
import threading
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchTrainer, get_device

from cluster.connect import ClusterError

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
    broker = ray.get_actor(config["broker"], namespace=config["namespace"])
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


class Fleet:
    """The study's Train runs, each kept alive by a thread of the driver.

    Args:
        broker: the actor, and `broker_name` its name.
        execute: import path of the function that carries out a payload.
        storage: a folder or URI that every node can reach, for Train's own bookkeeping.
    """

    def __init__(
        self,
        *,
        broker: Any,
        broker_name: str,
        execute: str,
        nodes: list[Node],
        cpus_per_worker: float,
        gpus_per_worker: float,
        storage: str,
    ) -> None:
        self.broker = broker
        self.nodes = nodes
        self.slots = sum(node.workers for node in nodes)
        self.failures: dict[str, str] = {}
        self._storage = storage
        self._gpus = gpus_per_worker
        self._cpus = cpus_per_worker
        self._loop_config = {
            "broker": broker_name,
            "namespace": "medrl",
            "execute": execute,
            "gpu": gpus_per_worker > 0,
        }
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._keep, args=(node, f"node{i}"), daemon=True)
            for i, node in enumerate(nodes)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether any run is up or coming up."""
        return any(thread.is_alive() for thread in self._threads)

    def stop(self, timeout_s: float) -> None:
        """Tell every worker to stop after its item, and wait for the runs to end."""
        self._stopping.set()
        ray.get(self.broker.close.remote())
        for thread in self._threads:
            thread.join(timeout_s)

    def _trainer(self, node: Node, run: str) -> TorchTrainer:
        resources = {"CPU": max(self._cpus - CPU_LEFT_PER_WORKER, CPU_LEFT_PER_WORKER)}
        if self._gpus:
            resources["GPU"] = self._gpus
        return TorchTrainer(
            serve,
            train_loop_config={**self._loop_config, "run": run},
            scaling_config=ray.train.ScalingConfig(
                num_workers=node.workers,
                use_gpu=self._gpus > 0,
                resources_per_worker=resources,
                label_selector={"ray.io/node-id": node.node_id},
            ),
            run_config=ray.train.RunConfig(
                name=f"fleet-{run}-{uuid.uuid4().hex[:8]}",
                storage_path=self._storage,
                failure_config=ray.train.FailureConfig(max_failures=RESTARTS_WITHOUT_PROGRESS),
            ),
        )

    def _finished(self) -> int:
        events, _ = ray.get(self.broker.events_since.remote(0, 0.0))
        return sum(event.kind in ("finished", "failed") for event in events)

    def _keep(self, node: Node, run: str) -> None:
        """Run, and run again while items come back finished; give the node up otherwise."""
        fruitless = 0
        while not self._stopping.is_set() and fruitless < 2:
            before = self._finished()
            reason = self._fit(node, run)
            if self._stopping.is_set():
                return
            ray.get(self.broker.lose_run.remote(run))
            if reason is None:
                return
            self.failures[run] = f"{node.address}: {reason}"
            fruitless = 0 if self._finished() > before else fruitless + 1

    def _fit(self, node: Node, run: str) -> str | None:
        try:
            self._trainer(node, run).fit()
        except Exception as error:
            lines = str(error).strip().splitlines()
            return lines[-1] if lines else type(error).__name__
        return None


def wait_until(done: Callable[[], bool], *, poll_s: float, timeout_s: float) -> bool:
    """Whether `done()` came true within `timeout_s`."""
    waited = 0.0
    pause = threading.Event()
    while waited < timeout_s:
        if done():
            return True
        pause.wait(poll_s)
        waited += poll_s
    return done()
