"""How often `--prune` ends the truly best arm, and how many steps it saves, by simulation.

    PYTHONPATH=. python tests/benchmarks/cell_pruner_errors.py --runs 400

Searches as in `tests/search_tests/test_pruner.py`: 20 arms, 5 tuning seeds, normal values, the best
arm's lead in standard deviations of a paired difference, the stopping rule after each seed; and
each cell has a curve of 20 steps that rises to its value at a speed of its arm's own, with noise.
"""

import argparse
import itertools

import numpy as np

from sweeps.search.cell_pruner import CellPruner
from sweeps.search.pruner import ALPHA, should_prune

SPECS = (
    "",
    "median",
    "median:n_startup_trials=8,n_warmup_steps=10",
    "halving",
    "halving:reduction_factor=2,min_resource=5",
    "hyperband",
    "hyperband:reduction_factor=2,min_resource=5",
)
ARMS, SEEDS, STEPS = 20, 5, 20
RISE, JITTER = 6.0, 0.5  # of a curve, and its noise per step, in the same unit as the lead


def simulate(spec: str, *, gap: float, runs: int) -> tuple[float, float]:
    """(rate at which the truly best arm is ended or stopped, share of steps never computed).

    Args:
        spec: of `--prune`; "": the rule after each seed alone.
    """
    generator = np.random.default_rng(7)
    lost = steps = 0
    for _ in range(runs):
        values = generator.normal(0, np.sqrt(0.5), (ARMS, SEEDS))
        best = int(generator.integers(ARMS))
        values[best] += gap
        time = np.arange(1, STEPS + 1) / STEPS
        speed = generator.uniform(2, 5, (ARMS, 1, 1))
        noise = generator.normal(0, JITTER, (ARMS, SEEDS, STEPS))
        curves = values[:, :, None] - RISE * np.exp(-speed * time) + noise
        complete, spent = _search(spec, curves)
        lost += best not in complete
        steps += spent
    return lost / runs, 1 - steps / (runs * ARMS * SEEDS * STEPS)


def _search(spec: str, curves: np.ndarray) -> tuple[list[int], int]:
    """The arms that were computed on every seed, and the steps of all cells."""
    objectives = curves.max(axis=2)
    pruner = CellPruner(spec, name="s", maximize=True, known=()) if spec else None
    complete: list[int] = []
    spent = 0
    for arm in range(ARMS):
        if pruner is not None:
            pruner.begin(arm)
            heard = (pruner.hear(curves[arm, 0, :k]) for k in range(1, STEPS))
            ended = next((step for step in heard if step is not None), None)
            if ended is None:
                pruner.hear(curves[arm, 0])  # its last step ends nothing
            pruner.end(pruned=ended is not None)
            if ended is not None:
                spent += ended
                continue
        for seeds in range(1, SEEDS + 1):
            spent += STEPS
            rival = max(complete, key=lambda other: objectives[other].mean(), default=None)
            if seeds < SEEDS and rival is not None and should_prune(
                dict(enumerate(objectives[arm, :seeds])),
                dict(enumerate(objectives[rival])),
                alpha=ALPHA,
                maximize=True,
            ):  # fmt: skip
                break
        else:
            complete.append(arm)
    return complete, spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=400)
    runs = parser.parse_args().runs
    print("| `--prune` | lead | the truly best arm is ended | steps saved |\n|---|---|---|---|")
    for spec, gap in itertools.product(SPECS, (0.5, 1.0, 2.0)):
        lost, saved = simulate(spec, gap=gap, runs=runs)
        print(f"| {spec or 'none'} | {gap:g} | {lost:.1%} | {saved:.0%} |", flush=True)


if __name__ == "__main__":
    main()
