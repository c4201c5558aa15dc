"""What a node costs the driver's node: private memory there, by the number of nodes.

    PYTHONPATH=.:tests/support python tests/benchmarks/bench_head.py --nodes 4,8

Each node is a raylet of this machine with a folder of its own, of one slot or --slots. The study
of long toy cells is there before them, so that its driver joins the head, which has none. When
every slot computes, the private memory (USS) of the head's daemons, of all that its raylet started
and of the study's process is summed. The slope over the counts is what a node costs the head; the
issue asks for at most 4 GB for 1,000. About 0.8 GB of this machine a node.
"""

import argparse
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from own_disks import nodes
from processes import below
from studies import ROOT, command, study_environment
from timing import Figure

WORKER = "ray::RayTrainWorker"
SETTLE_S = 15.0
DASHBOARD = ("dashboard.py", "the dashboard's modules")
"""What a head that is started with --include-dashboard=false has not."""
BEFORE_MIB = 249.0
"""A node's cost with Train's controller and its actor beside the driver (2026-11-28)."""


def private_mib(processes: Iterable[int]) -> dict[str, float]:
    """Title or program → MiB that no other process shares."""
    found: dict[str, float] = {}
    for process in processes:
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            words = Path(f"/proc/{process}/cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue  # it has ended meanwhile
        title = words[0].partition(".")[0].split(" ")[0] if words[0].startswith("ray::") else (
            next((part.split("/")[-1] for part in words if part.endswith(".py")), words[0])
        ).split("/")[-1]  # fmt: skip
        if any("forkserver" in word for word in words):
            title = DASHBOARD[1]
        kib = sum(int(line.split()[1]) for line in rollup.splitlines() if "Private_" in line)
        found[title] = found.get(title, 0.0) + kib / 1024
    return found


def tree(roots: Iterable[int]) -> set[int]:
    """These processes and all that they started."""
    return {process for root in roots for process in (root, *below(root, ""))}


def measure(count: int, slots: int) -> tuple[dict[str, float], dict[str, float]]:
    """MiB of the head and of all nodes, by program, `count` nodes of `slots` computing."""
    with nodes() as cluster, tempfile.TemporaryDirectory() as results:
        study = subprocess.Popen(
            command("--results", results, "--seeds", str(count * slots), "--set", "wait_s=600",
                    "--address", cluster.address),
            cwd=ROOT, env=study_environment(RAY_AUTH_MODE="disabled"), stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        try:
            while "waiting up to 20 min for nodes to come" not in study.stdout.readline():
                assert study.poll() is None
            there = [cluster.add(num_cpus=slots) for _ in range(count)]
            daemons = [daemon for node in there for daemon in cluster.daemons(node)]
            deadline = time.monotonic() + 120 + 60 * count * slots
            while sum(len(below(daemon, WORKER)) for daemon in daemons) < count * slots:
                if study.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"not all of {count} nodes came to work")
                time.sleep(1)
            time.sleep(SETTLE_S)
            head = tree([*cluster.daemons(cluster.head), study.pid])
            return private_mib(head), private_mib(tree(daemons))
        finally:
            study.terminate()
            study.wait(60)


def lines(counts: list[int], slots: int) -> dict[str, tuple[float, float]]:
    """MiB of the head that a node costs, and once, with Ray's dashboard and without; each measured
    count is printed.
    """
    os.environ |= {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": study_environment()["PYTHONPATH"]}
    heads = []
    for count in counts:
        head, others = measure(count, slots)
        heads.append(head)
        each = sum(others.values()) / count
        print(f"{count} nodes: head {sum(head.values()):.0f} MiB, each node {each:.0f} MiB")
        for title, mib in sorted(head.items(), key=lambda item: -item[1]):
            print(f"    {mib:7.1f}  {title}", flush=True)
    found = {}
    for name, less in (("with the dashboard", ()), ("without the dashboard", DASHBOARD)):
        totals = [sum(head.values()) - sum(head.get(t, 0.0) for t in less) for head in heads]
        slope, base = np.polyfit(counts, totals, 1) if len(counts) > 1 else (math.nan, totals[0])
        found[name] = float(slope), float(base)
    return found


def figures() -> list[Figure]:
    """For `make bench`: what a node of one slot costs the head, in MiB."""
    return [
        Figure(
            what="MiB of the driver's node for a node more, one slot each (2 and 20 nodes; "
            f"{base:.0f} MiB once; {name}: 1,000 nodes {(base + 1000 * slope) / 1024:.1f} GiB), "
            "against Train's controllers beside the driver",
            ours_s=slope,
            rival_s=BEFORE_MIB,
            ratio=BEFORE_MIB / slope,
            limit="4 GB for 1,000 workers",
        )
        for name, (slope, base) in lines([2, 20], 1).items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", default="4,8")
    parser.add_argument("--slots", type=int, default=1, help="of each node")
    asked = parser.parse_args()
    counts = [int(count) for count in asked.nodes.split(",")]
    for name, (slope, base) in lines(counts, asked.slots).items():
        print(f"{name}: {slope:.1f} MiB a node and {base:.0f} once: "
              f"1,000 nodes {(base + 1000 * slope) / 1024:.1f} GiB")  # fmt: skip


if __name__ == "__main__":
    main()
