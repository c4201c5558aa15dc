"""The one decision on a comparison, at looks: better, worse, equivalent, or still open.

A comparison has two nulls: "the mean difference is 0", and "it is at least the margin". One of them
at most is true, so each may be tested with the whole error of the comparison, and an answer is
wrong with no more. The family's error is divided by its comparisons (Bonferroni). Holm's step-down
would promise too much here: an arm at the margin's edge is mostly rightly called better, which
would pass its share on, and now and then wrongly called equivalent, which has spent it already
(7.4 % instead of 5 % with two comparisons; `tests/search_tests/test_decide.py`).

No Ray, no ledger, no torch: the race and the tables ask the same functions, and the answers depend
on the rows at the looks alone.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sweeps.search.looks import levels
from sweeps.search.paired import difference_p, equivalence_p

Answer = Literal["better", "worse", "equivalent", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What was declared.

    Attributes:
        looks: seeds at each look, ascending; one look for a study that is no race.
        margin: the smallest difference that matters, in the metric's unit.
        error: of the family: the chance of one wrong answer or more.
        family: comparisons.
        higher_is_better: the metric's direction.
        overlap: 0 for seeds; of partitions, test images for each one that is learned from. What
            stands for a seed in `decide` is then a partition.
    """

    looks: tuple[int, ...]
    margin: float
    error: float
    family: int
    higher_is_better: bool = True
    overlap: float = 0.0

    @property
    def share(self) -> float:
        """The error of one comparison."""
        return self.error / max(self.family, 1)


@dataclass(frozen=True, kw_only=True)
class Decided:
    """The answer to one comparison.

    Attributes:
        answer: "better" and "worse" are said of the arm, "equivalent" of both.
        seeds: seeds of the look that gave the answer, or of the last look so far; 0 before one.
        n: common seeds among them.
        p, p_equivalent: of that look; NaN before one.
        level, level_equivalent: at or below which p decides there.
    """

    answer: Answer
    seeds: int = 0
    n: int = 0
    p: float = np.nan
    p_equivalent: float = np.nan
    level: float = np.nan
    level_equivalent: float = np.nan


def decide(
    differences: np.ndarray, rule: Rule, *, settled: np.ndarray | None = None
) -> list[Decided]:
    """The answer to each comparison from the looks that its cells have reached.

    A look is reached when each of its seeds is settled. The first that answers ends the comparison:
    what comes after changes nothing. Where both tests reject, the arm is better or worse.

    Args:
        differences: (m, seeds) arm minus baseline in the order of the seeds, NaN where one of the
            two has no value.
        rule: as declared.
        settled: (m, seeds) whether nothing more will come of this seed (both cells are there, or
            failed); by default all of them are.
    """
    differences = np.asarray(differences, dtype=float)
    settled = np.ones(differences.shape, dtype=bool) if settled is None else settled
    found = [Decided(answer="undecided") for _ in differences]
    still = np.ones(len(differences), dtype=bool)
    two, one = (levels(rule.looks, rule.share, sides=sides) for sides in (2, 1))
    for place, seeds in enumerate(rule.looks):
        if len(rule.looks) > 1 and differences.shape[1] < seeds:
            break
        still &= settled[:, :seeds].all(axis=1)
        here = differences[:, :seeds]
        counts = np.sum(~np.isnan(here), axis=1)
        for n in np.unique(counts[still]):
            rows = np.flatnonzero(still & (counts == n))
            if n < 2:
                continue
            block = here[rows]
            block = block[~np.isnan(block)].reshape(len(rows), n)
            p = difference_p(block, rule.overlap)
            same = equivalence_p(block, rule.margin, rule.overlap)
            up = (block.mean(axis=1) > 0) == rule.higher_is_better
            for i, row in enumerate(rows):
                answer: Answer = "undecided"
                if p[i] <= two[place]:
                    answer = "better" if up[i] else "worse"
                elif same[i] <= one[place]:
                    answer = "equivalent"
                found[row] = Decided(
                    answer=answer,
                    seeds=seeds,
                    n=int(n),
                    p=float(p[i]),
                    p_equivalent=float(same[i]),
                    level=two[place],
                    level_equivalent=one[place],
                )
        still &= np.array([decided.answer == "undecided" for decided in found], dtype=bool)
        if not still.any():
            break
    return found
