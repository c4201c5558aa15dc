"""Full slots: how much of the wall time is not work.

The toy core's cells wait instead of computing, so these figures are of scheduling, start-up and
shutdown, not of processors that get in each other's way.

export PYTHONPATH=tests/support                   # the toy core
python tests/benchmarks/bench_slots.py            # the three figures of ours
python tests/benchmarks/bench_slots.py --rivals   # 2 s cells against the other ways, too
"""

import math
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from our_runs import TOY, StudyRun, run_study
from rivals import Recipe, job_per_cell, optuna_and_joblib, plain_tune
from timing import Figure

RUNS = 5
SLOTS = os.cpu_count() or 1
CELL_S = 10.0
ARMS = 1_000
RIVAL_CELL_S = 2.0
RIVAL_CELLS = 8


def _toy(*arguments: object) -> StudyRun:
    with tempfile.TemporaryDirectory() as results:
        return run_study(TOY, Path(results), *arguments)


def long_cells() -> list[Figure]:
    """12 cells of 10 s: wall against (compute ÷ slots) + one start-up."""
    runs = [_toy("--set", f"wait_s={CELL_S}") for _ in range(RUNS)]
    cells = len(runs[0].cells_s)
    idle = [r.wall_s - r.start_s - r.end_s - r.compute_s / SLOTS for r in runs]
    return [
        _against(
            f"{cells} cells of {CELL_S:g} s on {SLOTS} slots: wall against compute ÷ slots + one "
            "start-up and shutdown",
            [run.wall_s for run in runs],
            [run.wall_s - waited for run, waited in zip(runs, idle, strict=True)],
            "wall ≤ 1.15 ×",
        ),
        _alone(
            "start-up and shutdown of a study: until its first stage begins, and from the last "
            "commit to the prompt",
            [run.start_s + run.end_s for run in runs],
            "15 s",
        ),
        _alone("of these the shutdown", [run.end_s for run in runs], "—"),
        _alone(
            "what a cell costs beside its own work, in a warm fleet",
            [waited * SLOTS / cells for waited in idle],
            "0.3 s",
        ),
    ]


def many_arms() -> list[Figure]:
    """1,000 arms of one trivial cell each: wall beyond start-up, per arm, and what comes after."""
    levels = ",".join(f"{0.1 + i / 1000:.3f}" for i in range(ARMS))
    arms = ("--seeds", 1, "--set", f"ridge={levels}", "--set", "pooling=8")
    runs = [_toy(*arms) for _ in range(RUNS)]
    return [
        _alone(
            f"{ARMS:,} arms of one trivial cell, per arm",
            [(run.wall_s - run.start_s) / ARMS for run in runs],
            "0.2 s",
        ),
        _alone(
            f"{ARMS:,} arms of one trivial cell, from the last commit to the prompt",
            [run.end_s for run in runs],
            "10 s",
        ),
    ]


def rivals() -> list[Figure]:
    """8 cells of 2 s each way, whole runs with their start and end, the ways in turn."""
    seeds = RIVAL_CELLS // 2
    recipes = [
        Recipe(
            core="toy_core",
            fields={"ridge": ridge, "pooling": 8, "wait_s": RIVAL_CELL_S},
            data="ihc-colon",
            seed=seed,
        )
        for ridge in (1.0, 10.0)
        for seed in range(seeds)
    ]
    ways = {
        "Ray Tune, a function trial per cell": plain_tune,
        "one Ray Train job per cell": job_per_cell,
        "Optuna and joblib": optuna_and_joblib,
    }
    ours: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(RUNS):
        run = _toy(
            "--set", f"wait_s={RIVAL_CELL_S}", "--set", "ridge=1,10", "--set", "pooling=8",
            "--seeds", seeds,
        )  # fmt: skip
        ours.append(run.wall_s)
        for name, way in ways.items():
            with tempfile.TemporaryDirectory() as storage:
                theirs[name].append(way(recipes, storage).wall_s)
    what = f"{RIVAL_CELLS} cells of {RIVAL_CELL_S:g} s, whole run, against"
    return [_against(f"{what} {name}", ours, walls, "—") for name, walls in theirs.items()]


def figures() -> list[Figure]:
    return [*long_cells(), *many_arms(), *rivals()]


def _against(what: str, ours: Sequence[float], rival: Sequence[float], limit: str) -> Figure:
    """Medians of the runs' seconds; the ratio run by run."""
    ratio = median(theirs / own for own, theirs in zip(ours, rival, strict=True))
    return Figure(what=what, ours_s=median(ours), rival_s=median(rival), ratio=ratio, limit=limit)


def _alone(what: str, ours: Sequence[float], limit: str) -> Figure:
    return Figure(what=what, ours_s=median(ours), rival_s=math.nan, ratio=math.nan, limit=limit)


if __name__ == "__main__":
    parts = {"--long": long_cells, "--arms": many_arms, "--rivals": rivals}
    chosen = [parts[a] for a in sys.argv[1:]] or [long_cells, many_arms]
    for part in chosen:
        for figure in part():
            print(figure, flush=True)
