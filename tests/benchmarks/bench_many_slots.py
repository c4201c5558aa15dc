"""Many slots: how much of a thousand workers' time, of forty and of sixteen, is work.

    export PYTHONPATH=tests/support
    python tests/benchmarks/bench_many_slots.py --simulated   # 1,000 workers, 5,000 cells of 10 s
    python tests/benchmarks/bench_many_slots.py --forty       # 40 real ones, 480 cells of 10 s
    python tests/benchmarks/bench_many_slots.py --arms        # 16 real ones, 10,000 arms of 1 s
    python tests/benchmarks/bench_many_slots.py --end         # 100,000 cells, two of them missing

All four are whole runs of the toy study, with the real driver, broker, Tune and Optuna; the cells
wait instead of computing. Of the first only the workers are simulated: coroutines that call the
broker as `cluster.fleet.serve` does, from processes of this machine, and commit nothing. The last
two end with the real tables, figures and report. The thousand's share of time counts from the first
lease to the last end, so that the start and the end of a study are in it; that of the forty from
when all are at work, since on two processors forty processes take minutes to import torch.
"""

import argparse
import asyncio
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
from our_runs import SUPPORT, StudyRun, run_study
from timing import Figure

WORKERS, PROCESSES, ROUNDS, CELL_S = 1_000, 4, 5, 10.0
FORTY, FORTY_ROUNDS = 40, 12
ARMS, ARM_S, SLOTS = 10_000, 1.0, 16
THERE = 100_000
REPORTED = SUPPORT / "toy_reported.py"
LOG = "MEDRL_BENCH_CROWD"
"""Of the processes of simulated workers: the file that they write their times to."""


class Crowd:
    """Workers that wait instead of computing, as coroutines of one process."""

    async def work(self, broker_name: str, first: int, count: int, log: str) -> None:
        """Until the broker says stop; then each cell's begin and end, as lines of `log`."""
        from cluster.connect import NAMESPACE

        self._broker = ray.get_actor(broker_name, namespace=NAMESPACE)
        self._times: list[tuple[float, float]] = []
        await asyncio.gather(*(self._serve(f"node0/{first + i}") for i in range(count)))
        Path(log).write_text(json.dumps(self._times))

    async def _serve(self, worker: str) -> None:
        from cluster.signs import EverySoOften
        from cluster.traffic import Report

        answer = await self._broker.take.remote(worker, "1")
        while answer != "stop":
            if answer == "wait":
                answer = await self._broker.take.remote(worker, "1")
                continue
            item, _, share_every_s = answer
            lease = worker, "1", item.id
            began = time.time()
            if item.id.stage is None:
                tell = EverySoOften(partial(self._broker.share_done.remote, *lease), share_every_s)
                for tenth in range(10):
                    tell(tenth / 10)
                    await asyncio.sleep(CELL_S / 10)
                self._times.append((began, time.time()))
            report = Report(wall_s=CELL_S, seed=0, objective=0.5)
            answer = await self._broker.hand_in.remote(*lease, report.to_json(), ok=True)


class CrowdedFleet:
    """`cluster.fleet.Fleet` as `cluster.drive` calls it, of simulated workers."""

    def __init__(self, *, broker_name: str, **_: Any) -> None:
        each = WORKERS // PROCESSES
        make = ray.remote(Crowd).options(num_cpus=0)
        self._crowds = [make.remote() for _ in range(PROCESSES)]
        self._work = [
            crowd.work.remote(broker_name, i * each, each, f"{os.environ[LOG]}.{i}")
            for i, crowd in enumerate(self._crowds)
        ]
        self.slots = WORKERS

    def follow(self, nodes: Iterable[Mapping[str, Any]]) -> bool:
        return False

    def must_live(self) -> None:
        if ended := ray.wait(self._work, timeout=0)[0]:
            ray.get(ended)


def crowded(log: str) -> None:
    """The toy study of ROUNDS cells for each simulated worker, in this process."""
    import toy_study
    from studies import invoke

    import cluster.drive

    os.environ[LOG] = log
    goodbye = cluster.drive._let_view_end

    def wait_for_crowd(tune: Any, broker: Any) -> None:
        goodbye(tune, broker)
        ray.get(broker.close.remote())
        while len(list(Path(log).parent.glob(f"{Path(log).name}.*"))) < PROCESSES:
            time.sleep(0.1)

    levels = ",".join(f"{1 + i / 1000:.3f}" for i in range(WORKERS))
    with (
        tempfile.TemporaryDirectory() as results,
        patch("cluster.drive.Fleet", CrowdedFleet),
        patch("cluster.drive._let_view_end", wait_for_crowd),
    ):
        print(
            invoke(
                toy_study, "--results", results, "--set", f"ridge={levels}", "--set", "pooling=8",
                "--seeds", ROUNDS,
            ).output[-600:],
            file=sys.stderr,
        )  # fmt: skip


def simulated() -> list[Figure]:
    """A thousand simulated workers."""
    with tempfile.TemporaryDirectory() as folder:
        log = f"{folder}/times"
        command = [sys.executable, __file__, "--crowd", log]
        subprocess.run(command, check=True)
        times = [t for path in Path(folder).iterdir() for t in json.loads(path.read_text())]
    assert len(times) == WORKERS * ROUNDS
    began, ended = min(t[0] for t in times), max(t[1] for t in times)
    what = (
        f"{WORKERS:,} simulated workers, {len(times):,} cells of {CELL_S:g} s: wall from the first "
        "lease to the last end"
    )
    return [share(what, ended - began, CELL_S * ROUNDS, "utilisation ≥ 95 %")]


def share(what: str, wall_s: float, ideal_s: float, limit: str) -> Figure:
    """A run against one that never waits."""
    return Figure(
        what=f"{what}, against work alone ({ideal_s / wall_s:.1%} of the workers' time)",
        ours_s=wall_s,
        rival_s=ideal_s,
        ratio=ideal_s / wall_s,
        limit=limit,
    )


def levels_of(count: int) -> str:
    """So many levels of a factor, as typed."""
    return ",".join(f"{1 + i / 10_000:.4f}" for i in range(count))


def forty() -> list[Figure]:
    """Forty real workers on this machine's processors."""
    cpus = (os.cpu_count() or 1) / FORTY
    with tempfile.TemporaryDirectory() as results:
        run = run_study(
            SUPPORT / "toy_study.py", Path(results),
            "--workers", FORTY, "--cpus-per-worker", cpus, "--set", f"wait_s={CELL_S}",
            "--set", f"ridge={levels_of(FORTY)}", "--set", "pooling=8", "--seeds", FORTY_ROUNDS,
        )  # fmt: skip
    busy = run.busy(FORTY)
    what = f"{FORTY} real workers, {len(run.cells_s)} cells of {CELL_S:g} s, once all are at work"
    ours_s = CELL_S / busy
    return [share(f"{what}: seconds of a worker a cell", ours_s, CELL_S, "utilisation ≥ 95 %")]


def arms() -> list[Figure]:
    """Ten thousand arms of one second each on sixteen workers, tables and report included."""
    cpus = (os.cpu_count() or 1) / SLOTS
    with tempfile.TemporaryDirectory() as results:
        run = run_study(
            REPORTED, Path(results),
            "--workers", SLOTS, "--cpus-per-worker", cpus, "--set", f"wait_s={ARM_S}",
            "--set", f"ridge={levels_of(ARMS)}", "--set", "pooling=8", "--seeds", 1,
        )  # fmt: skip
    what = f"{ARMS:,} arms of one cell of {ARM_S:g} s on {SLOTS} workers: "
    ideal_s = ARMS * ARM_S / SLOTS
    return [
        share(f"{what}whole run", run.wall_s, ideal_s, "≤ 1.2 × work alone"),
        share(f"{what}from the first cell to the last", run.cells_wall_s, ideal_s, "—"),
        *afterwards(what, run),
    ]


def afterwards(what: str, run: StudyRun) -> list[Figure]:
    """The last step of a run: until its tables are there, and until its end."""
    seconds = {
        "tables are there": (run.table_s, "10 s"),
        "prompt, figures and report too": (run.end_s, "—"),
    }
    return [
        Figure(
            what=f"{what}from the last commit until the {until}",
            ours_s=taken,
            rival_s=math.nan,
            ratio=math.nan,
            limit=limit,
        )
        for until, (taken, limit) in seconds.items()
    ]


def end() -> list[Figure]:
    """A study of a thousand arms whose last two cells are computed."""
    import toy_study
    from bench_far_ledger import make

    from sweeps.engine.plan import make_plan
    from sweeps.engine.study import Request

    arms, text = THERE // 100, levels_of(THERE // 100)
    levels = {"ridge": tuple(map(float, text.split(","))), "pooling": (8,)}
    study = replace(toy_study.STUDY, factors=levels, baseline={})
    with tempfile.TemporaryDirectory() as results:
        plan = make_plan(study, Request(seeds="100"), results=results, retry_failed=False)
        make(Path(results), plan, THERE - 2)
        run = run_study(
            REPORTED, Path(results),
            "--set", f"ridge={text}", "--set", "pooling=8", "--seeds", 100,
        )  # fmt: skip
        assert f"{THERE} of {THERE} cells" in run.last_line, run.last_line
    return afterwards(f"{THERE:,} cells of {arms:,} arms, two computed now: ", run)


PARTS = {"simulated": simulated, "forty": forty, "arms": arms, "end": end}


def figures() -> list[Figure]:
    """All of it."""
    return [figure for part in PARTS.values() for figure in part()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crowd", help=argparse.SUPPRESS)
    for name in PARTS:
        parser.add_argument(f"--{name}", action="store_true")
    asked = vars(parser.parse_args())
    if asked["crowd"]:
        crowded(asked["crowd"])
        return
    for name, part in PARTS.items():
        if asked[name] or not any(asked.values()):
            for figure in part():
                print(figure, flush=True)


if __name__ == "__main__":
    main()
