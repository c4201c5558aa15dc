"""How much error each look at a growing study may spend: Lan and DeMets, "Discrete sequential
boundaries for clinical trials", Biometrika 70 (1983).

The error α is spent as α t², t being the share of the most seeds that a look has (Kim and DeMets
1987, ρ = 2). The levels come from the normal law of the running mean; a test whose p is uniform
under its null keeps them (simulated in `tests/search_tests/test_decide.py`).
"""

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import optimize, stats

Numbers = Sequence[float] | np.ndarray

SCHEDULE = (12, 16, 24, 32, 40)
"""Seeds at which a race looks. Not earlier: the exact test of eight pairs has no p below .0078, and
a seed in ten that collapses is absent from eight in 43 % of the cases, from twelve in 28 %."""
RHO = 2.0
GRID = 801  # points of the density between two looks: levels are right to four digits
FAR = 8.5  # standard errors, beyond which there is no mass


def schedule(most_seeds: int) -> tuple[int, ...]:
    """The looks of a race that may use `most_seeds`; the last look has them all."""
    before = [n for n in SCHEDULE if n < most_seeds]
    last = max(SCHEDULE)
    while last + 16 < most_seeds:  # a long race goes on in steps of sixteen
        last += 16
        before.append(last)
    return (*before, most_seeds)


@lru_cache(maxsize=4096)
def levels(looks: tuple[int, ...], error: float, *, sides: int) -> tuple[float, ...]:
    """The p-value at or below which each look rejects.

    Over all looks a true null is rejected with probability `error`; a single look has all of it.

    Args:
        looks: seeds at each look, ascending.
        error: of the whole sequence, in (0, 1).
        sides: 1 or 2 tails of the test.

    Raises:
        ValueError: looks that do not ascend from at least 2. A single one may be of one seed: of a
            study that was asked for one, which decides nothing.
    """
    if (
        not looks
        or looks[0] < min(len(looks), 2)
        or any(b <= a for a, b in itertools.pairwise(looks))
    ):
        raise ValueError(f"looks must be ascending numbers of seeds from 2 on, got {looks}")
    if len(looks) == 1:
        return (error,)
    times = np.array(looks) / looks[-1]
    bounds = boundaries(times, np.diff(error * times**RHO, prepend=0), sides=sides)
    return tuple(float(sides * stats.norm.sf(bound)) for bound in bounds)


def boundaries(times: Numbers, spent: Numbers, *, sides: int) -> list[float]:
    """z at which each look rejects, so that it rejects first there with the probability `spent`.

    The sum of the data up to time t is a Brownian motion; its density among the paths that no look
    has stopped is carried from look to look (Armitage, McPherson and Rowe 1969).

    Args:
        times: information at each look, ascending, the last one 1.
        spent: error of each look.
        sides: 1 or 2 tails.
    """
    found: list[float] = []
    grid = density = np.zeros(0)
    before = 0.0
    for time, error in zip(times, spent, strict=True):
        root, step = math.sqrt(time), math.sqrt(time - before)
        if not found:
            bound = float(stats.norm.isf(error / sides))
        else:
            bound = _crossing(grid, density, root, step, error, sides)
        low = -bound if sides == 2 else -FAR
        new = np.linspace(low * root, bound * root, GRID)
        weight = np.full(GRID, new[1] - new[0])
        weight[[0, -1]] /= 2
        if not found:
            density = stats.norm.pdf(new / root) / root * weight
        else:
            density = stats.norm.pdf((new[:, None] - grid) / step) @ density / step * weight
        grid, before = new, time
        found.append(bound)
    return found


def _crossing(
    grid: np.ndarray, density: np.ndarray, root: float, step: float, error: float, sides: int
) -> float:
    """The z beyond which the paths in `density` (mass at `grid`) are with probability `error`."""

    def surplus(bound: float) -> float:
        beyond = density @ stats.norm.sf((bound * root - grid) / step)
        if sides == 2:
            beyond += density @ stats.norm.cdf((-bound * root - grid) / step)
        return float(beyond - error)

    return float(optimize.brentq(surplus, 0.0, FAR, xtol=1e-6))
