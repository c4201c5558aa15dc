"""Which cells a race wants: seeds for the arms whose comparison is open, and for their baseline.

Nothing is remembered: what is wanted follows from the values that are there. So a race that was
killed anywhere goes on as if it had not been, and ends with the same answers.
"""

from collections.abc import Sequence

import numpy as np

from sweeps.search.decide import Decided, Rule, decide
from sweeps.search.looks import schedule

EFFECTS = (0.0, 0.5, 1.0, 2.0, 3.0)
"""True differences, in margins, and as many arms of each, for which `expected_cells` reckons."""
SIMULATED = 60


def answers(
    values: np.ndarray,
    settled: np.ndarray,
    rows: Sequence[int],
    reference: Sequence[int],
    rule: Rule,
) -> list[Decided]:
    """The answer to each comparison, from the cells that are settled.

    Args:
        values: (arms, seeds) the primary metric, NaN where there is none (yet).
        settled: (arms, seeds) whether nothing more will come of this cell.
        rows, reference: of each comparison the arm and its baseline.
        rule: as declared.
    """
    rows, reference = list(rows), list(reference)
    return decide(
        values[rows] - values[reference], rule, settled=settled[rows] & settled[reference]
    )


def wanted(
    values: np.ndarray,
    settled: np.ndarray,
    rows: Sequence[int],
    reference: Sequence[int],
    rule: Rule,
) -> np.ndarray:
    """(arms, seeds) the cells that are wanted so far, those that are there among them.

    An arm with an answer wants no more than the seeds that gave it; an open one goes to its next
    look, and its baseline with it. Arguments as in `answers`.
    """
    want = np.zeros(values.shape, dtype=bool)
    want[:, : rule.looks[0]] = True
    found = answers(values, settled, rows, reference, rule)
    for row, base, one in zip(rows, reference, found, strict=True):
        later = [look for look in rule.looks if look > one.seeds]
        until = later[0] if one.answer == "undecided" and later else max(one.seeds, rule.looks[0])
        want[[row, base], :until] = True
    return want


def race(
    values: np.ndarray, rows: Sequence[int], reference: Sequence[int], rule: Rule
) -> tuple[list[Decided], int]:
    """The answers of a whole race, and the cells that it spent, `values` holding every cell.

    Args:
        values: (arms, most seeds); NaN: the cell fails.
        rows, reference, rule: as in `answers`.
    """
    settled = np.zeros(values.shape, dtype=bool)
    while True:
        want = wanted(np.where(settled, values, np.nan), settled, rows, reference, rule)
        if not (want & ~settled).any():
            found = answers(np.where(settled, values, np.nan), settled, rows, reference, rule)
            return found, int(settled.sum())
        settled |= want


def expected_cells(arms: int, most_seeds: int, rule: Rule) -> int:
    """Cells that a race of `arms` (the baseline among them) spends on average.

    True differences are those of EFFECTS; their spread over seeds is one margin. By simulation,
    which is the same every time.
    """
    rng = np.random.default_rng(0)
    looks = schedule(most_seeds)
    means = np.resize(EFFECTS, arms - 1)[:, None] * rule.margin
    spent = []
    for _ in range(max(1, SIMULATED // arms)):
        noise = rng.normal(0, rule.margin / np.sqrt(2), size=(arms, looks[-1]))
        noise[1:] += means
        spent.append(race(noise, range(1, arms), [0] * (arms - 1), rule)[1])
    return round(float(np.mean(spent)))
