"""What a kill costs: lost, repeated and interrupted cells, and the extra wall time.

export PYTHONPATH=tests/support                          # the toy study's
python tests/benchmarks/bench_faults.py                  # all three kinds, about 6 minutes
python tests/benchmarks/bench_faults.py driver --kills 5 # one kind

A toy study (24 cells of a second and a half, two slots) runs undisturbed and killed, each kind on
a Ray of its own: the driver (`kill -9`, then run again), a worker (Train restarts its node's run),
a node's raylet (another node takes its place). It fails where a committed cell is lost or computed
again, or where a number differs from the undisturbed run's. Not part of `make bench`: it holds the
machine.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from own_disks import nodes
from processes import below
from studies import ROOT, command, study_environment

from sweeps.ledger.files import Store
from sweeps.ledger.progress import progress_of
from sweeps.ledger.read import read_ledger

CELLS = 24
STUDY = ("--seeds", 4, "--set", "wait_s=1.5", "--quiet")
workers = partial(below, text="RayTrainWorker")
MOST_S = 600.0


@dataclass(kw_only=True)
class Toll:
    """What the kills of one kind cost.

    Attributes:
        lost: committed cells that were gone after a kill.
        rerun: committed cells that were written again.
        interrupted: cells that ran when the kill came, and had to be computed again.
        undisturbed_s, wall_s: of the study without and with the kills, restarts included.
    """

    kind: str
    kills: int
    undisturbed_s: float = 0.0
    wall_s: float = 0.0
    lost: int = 0
    rerun: int = 0
    interrupted: int = 0
    _stamps: dict[str, int] = field(default_factory=dict)

    @property
    def extra_s(self) -> float:
        """Seconds that a kill adds, on average."""
        return (self.wall_s - self.undisturbed_s) / self.kills

    def look(self, results: Path) -> None:
        """Compare what is committed with the last look."""
        now = stamps(results)
        self.lost += len(self._stamps.keys() - now.keys())
        self.rerun += sum(now.get(name, old) != old for name, old in self._stamps.items())
        self._stamps = now


def stamps(results: Path) -> dict[str, int]:
    """Committed cell → when it was written."""
    folder = results / "toy" / "cells"
    return {p.name: p.stat().st_mtime_ns for p in folder.glob("[!.]*.parquet")}


def numbers(results: Path) -> list[tuple]:
    """(arm, seed, status, accuracy) of every cell."""
    cells = read_ledger(str(results / "toy")).cells
    columns = ("arm", "seed", "status", "metric.accuracy")
    return list(zip(*(cells[name] for name in columns), strict=True))


def running(results: Path) -> int:
    """How many cells run now, as `sweeps/status.py` sees it."""
    holder = progress_of(Store(results / "toy")).holder
    return sum("seed" in item.what for item in holder.running) if holder else 0


def start(results: Path, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        command("--results", results, *STUDY, *arguments),
        cwd=ROOT,
        env=study_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )


def wait(process: subprocess.Popen, done: Callable[[], bool]) -> None:
    """Until `done`, while the study runs."""
    deadline = time.monotonic() + MOST_S
    while not done():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the study ended with {process.poll()} before it could be killed")
        time.sleep(0.05)


def finish(process: subprocess.Popen) -> int:
    """How many items the study says it had to repeat."""
    out, _ = process.communicate(timeout=MOST_S)
    if process.returncode != 0:
        raise SystemExit(f"the study ended with {process.returncode}: {out}")
    repeated = re.search(r"(\d+) interrupted by a lost worker and repeated", out)
    return int(repeated[1]) if repeated else 0


def moments(kills: int, chance: random.Random) -> list[int]:
    """After how many committed cells each kill comes: spread over the study, at random."""
    share = (CELLS - 2) // kills
    return [k * share + chance.randrange(share) for k in range(kills)]


def kill_driver(results: Path, toll: Toll, chance: random.Random, *arguments: object) -> None:
    """`kill -9` of the driver, and the same command again."""
    for after in moments(toll.kills, chance):
        process = start(results, *arguments)
        goal = max(after, len(stamps(results)))
        wait(process, lambda goal=goal: len(stamps(results)) >= goal and running(results) > 0)
        toll.interrupted += running(results)
        process.kill()
        process.wait()
        toll.look(results)
    finish(start(results, *arguments))


def kill_worker(results: Path, toll: Toll, chance: random.Random, *arguments: object) -> None:
    """`kill -9` of a worker process; the study goes on."""
    process = start(results, *arguments)
    for after in moments(toll.kills, chance):
        wait(process, lambda after=after: len(stamps(results)) >= after and workers(process.pid))
        os.kill(chance.choice(workers(process.pid)), signal.SIGKILL)
        toll.look(results)
        time.sleep(3)
    toll.interrupted = finish(process)


class Nodes:
    """A head without a CPU, and two nodes of one CPU each while a study runs."""

    def __init__(self, stack: ExitStack) -> None:
        os.environ["PYTHONPATH"] = study_environment()["PYTHONPATH"]
        self._cluster = stack.enter_context(nodes())
        self._nodes: list[Any] = []
        self.address = self._cluster.address

    def start(self, results: Path, *arguments: object) -> subprocess.Popen:
        """The study first, then its nodes: so the driver sits on the head, which stays."""
        for node in self._nodes:
            self._cluster.kill(node)
        process = start(results, *arguments)
        wait(process, (results / "toy" / "running.json").exists)
        self._nodes = [self._cluster.add() for _ in range(2)]
        return process

    def kill(self, results: Path, toll: Toll, chance: random.Random, *arguments: object) -> None:
        """`kill -9` of a node's raylet; another node comes in its place."""
        process = self.start(results, *arguments)
        for after in moments(toll.kills, chance):
            wait(process, lambda after=after: len(stamps(results)) > after)
            self._cluster.kill(self._nodes.pop(chance.randrange(2)))
            toll.look(results)
            self._nodes.append(self._cluster.add())
        toll.interrupted = finish(process)


def measure(kind: str, kills: int, folder: Path, chance: random.Random) -> Toll:
    """Run the study undisturbed and killed, and compare."""
    toll = Toll(kind=kind, kills=kills)
    with ExitStack() as stack:
        begin, how, arguments = start, {"driver": kill_driver, "worker": kill_worker}.get(kind), ()
        if how is None:
            cluster = Nodes(stack)
            begin, how, arguments = cluster.start, cluster.kill, ("--address", cluster.address)
        began = time.monotonic()
        finish(begin(folder / "calm", *arguments))
        toll.undisturbed_s = time.monotonic() - began
        began = time.monotonic()
        how(folder / "killed", toll, chance, *arguments)
        toll.wall_s = time.monotonic() - began
    toll.look(folder / "killed")
    if numbers(folder / "killed") != numbers(folder / "calm"):
        raise SystemExit(f"{kind}: the numbers differ from the undisturbed run's")
    if toll.lost or toll.rerun:
        raise SystemExit(f"{kind}: {toll.lost} committed cells lost, {toll.rerun} written again")
    return toll


def main() -> None:
    kinds = ("driver", "worker", "node")
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("kinds", nargs="*", default=kinds, help=", ".join(kinds))
    parser.add_argument("--kills", type=int, default=3, help="of each kind (1 to 7)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    chosen = parser.parse_args()
    if not 1 <= chosen.kills <= 7 or not set(chosen.kinds) <= set(kinds):
        parser.error(f"kinds are {', '.join(kinds)}; --kills is 1 to 7")
    print("| killed | times | lost | written again | interrupted | undisturbed, s | killed, s "
          "| extra per kill, s |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    for kind in chosen.kinds:
        with tempfile.TemporaryDirectory() as folder:
            toll = measure(kind, chosen.kills, Path(folder), random.Random(chosen.seed))
        print(f"| {kind} | {toll.kills} | {toll.lost} | {toll.rerun} | {toll.interrupted} | "
              f"{toll.undisturbed_s:.0f} | {toll.wall_s:.0f} | {toll.extra_s:.1f} |",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
