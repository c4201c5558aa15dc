"""How many cells one factor at a time needs for the precision of a screening, by simulation.

python tests/benchmarks/screening.py              # 4 to 14 factors, 5 seeds a screened arm
python tests/benchmarks/screening.py --studies 2000

Cells have normal noise of one standard deviation beside what their seed has in common. A screening
is estimated as `analysis.effects` does it, moves from the baseline as `analysis.inference` does.
"""

import argparse

import numpy as np

from analysis.effects import estimated
from analysis.inference import paired_family
from sweeps.engine.designs import fraction

EFFECT = 0.5  # of each second factor, in standard deviations of a cell


def spread_of_screening(factors: int, seeds: int, studies: int, seed: int) -> tuple[float, float]:
    """Standard deviation of a main effect's estimate over studies, and its interval's coverage."""
    rng = np.random.default_rng(seed)
    signs = np.where(fraction(factors), 1, -1)
    truth = EFFECT * (np.arange(factors) % 2)
    estimates, covered = [], []
    names = [str(i) for i in range(factors)]
    for _ in range(studies):
        values = (signs / 2) @ truth[:, None] + rng.normal(size=(len(signs), seeds))
        main, _ = estimated(
            signs, values + 5 * rng.normal(size=seeds), names, np.zeros(len(signs), dtype=int)
        )
        estimates.append([one.estimate for one in main])
        covered.append([one.low <= t <= one.high for one, t in zip(main, truth, strict=True)])
    return float(np.std(np.array(estimates) - truth)), float(np.mean(covered))


def spread_of_moves(factors: int, seeds: int, studies: int, seed: int) -> float:
    """The same of arms that each move one factor from the baseline, paired by seed."""
    rng = np.random.default_rng(seed)
    truth = EFFECT * (np.arange(factors) % 2)
    found = []
    for _ in range(studies):
        base, moved = rng.normal(size=seeds), rng.normal(size=(factors, seeds))
        found.append([one.mean for one in paired_family(moved + truth[:, None] - base)])
    return float(np.std(np.array(found) - truth))


def compared(factors: int, seeds: int, studies: int, seed: int = 0) -> dict[str, float]:
    """Cells of the screening, of one factor at a time at the same precision, and what was seen."""
    arms = len(fraction(factors))
    spread, coverage = spread_of_screening(factors, seeds, studies, seed)
    # A move of n seeds has 2 / n of a cell's variance: the seeds that this spread takes.
    needed = int(np.ceil(2 / spread**2))
    return {
        "arms": arms,
        "cells": arms * seeds,
        "spread": spread,
        "coverage": coverage,
        "seeds of a move": needed,
        "cells of moves": (factors + 1) * needed,
        "spread of moves": spread_of_moves(factors, needed, max(studies // 4, 50), seed),
    }


def main() -> None:
    """Print a row for each number of factors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    print("| factors | arms | cells | s.d. of an effect | coverage | one at a time: cells | s.d. |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for factors in (4, 6, 8, 10, 12, 14):
        got = compared(factors, asked.seeds, asked.studies)
        print(
            f"| {factors} | {got['arms']} | {got['cells']} | {got['spread']:.3f} | "
            f"{got['coverage']:.1%} | {got['cells of moves']} | {got['spread of moves']:.3f} |"
        )


if __name__ == "__main__":
    main()
