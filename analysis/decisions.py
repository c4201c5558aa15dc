"""The one decision on every arm, from what the study declared; whatever shows an answer reads it.

`sweeps.search.decide` decides; here are the ledger's side of it, and the price of what is open.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd
from scipy import stats

from analysis.aggregate import Metric
from analysis.comparisons import Arms, arms_of, present_metrics, values_of
from analysis.inference import MOST_SEEDS, POWER, Paired, paired_family, seeds_needed
from analysis.partitions import Partitioned, partitioned_in
from analysis.patients import Crossed, accuracy_differences, crossed, right_by_patient
from analysis.reading import Same
from analysis.table import number
from sweeps.ledger.declared import Declared, declared_in, reference_rows
from sweeps.ledger.predictions import DamagedPredictions
from sweeps.ledger.read import Ledger
from sweeps.ledger.schema import arm_label
from sweeps.search.decide import Decided, Rule, decide

MARGIN = 0.01  # of a study that declared none: one point of a fraction
ERROR = 0.05
ALLOWANCE = 1.15
MOST_PREDICTIONS = 2000
"""Cells whose predictions are read."""
UNDECLARED = (
    "Nothing was declared before this study ran: its answers follow the default metric, margin and "
    "error."
)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One arm against the baseline of its task.

    Attributes:
        row, reference: places of both among the study's arms.
        pair: the difference over the common seeds of the look that decided (of all seeds so far
            where none has).
        decided: the answer, for training anew on these test patients.
        both: the same difference over seeds and test patients; None where no predictions say it.
        margin: as declared.
        share: the comparison's part of the error.
        over: what the pairs are, "seeds" or "partitions".
    """

    row: int
    reference: int
    pair: Paired
    decided: Decided
    both: Crossed | None
    margin: float
    share: float
    over: str = "seeds"

    @property
    def for_others(self) -> bool | None:
        """Whether the answer holds for other test patients too; None where nobody can say."""
        if self.both is None or self.answer == "undecided":
            return None
        if self.answer == "equivalent":
            return self.both.p_equivalent <= self.decided.level_equivalent
        same_way = (self.both.mean > 0) == (self.pair.mean > 0)
        return same_way and self.both.p <= self.decided.level

    @property
    def scope(self) -> str:
        """ " on these test patients" where the answer is known to hold for no others."""
        return " on these test patients" if self.for_others is False else ""

    @property
    def answer(self) -> str:
        """ "better", "worse", "equivalent" or "undecided"."""
        return self.decided.answer

    @property
    def text(self) -> str:
        """The answer; with it what is small about it, or what it would cost."""
        if self.answer == "undecided":
            return f"undecided; {self.price}"
        small = self.decided.p_equivalent <= self.decided.level_equivalent
        if self.answer != "equivalent" and small:
            return f"{self.answer}{self.scope}, by less than {number(self.margin, 3)}"
        return f"{self.answer}{self.scope}"

    @property
    def price(self) -> str:
        """What would settle an open comparison: `"about 7 more seeds"`, or why nobody can say."""
        pair = self.pair
        if pair.n == 0:
            return "not run here"
        if self.over == "partitions":
            return "more partitions would tell"
        if pair.n < 2:
            return "too few common seeds to say how many more"
        needs = [
            n
            for n in (
                seeds_needed(pair.d_z, self.share),
                seeds_to_equivalence(pair.mean, pair.std, self.margin, self.share),
            )
            if n is not None
        ]
        if not needs:
            return f"more than {MOST_SEEDS} seeds in all"
        more = max(min(needs) - pair.n, 1)
        return f"about {more} more seed{'' if more == 1 else 's'}"


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """Every comparison of a study.

    Attributes:
        metric: the primary one.
        rule: by which the answers were found.
        every: one for each arm that has a baseline, in plan order.
        declared: what the study declared; None where it declared nothing.
        before: what that replaced after cells were there, oldest first.
        partitioned: how replicates belong to partitions; None where replicates are seeds.
    """

    arms: Arms
    metric: Metric
    rule: Rule
    every: tuple[Decision, ...]
    declared: Declared | None
    before: tuple[Declared, ...]
    partitioned: Partitioned | None = None

    def of(self, row: int) -> Decision | None:
        """The decision on the arm in this row; None of a baseline."""
        return self._of.get(row)

    def row_of(self, arm: str) -> int:
        """The row of the arm that the ledger calls `arm`; −1 where there is none."""
        return self._rows.get(arm, -1)

    @cached_property
    def _of(self) -> dict[int, Decision]:
        return {decision.row: decision for decision in self.every}

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {arm_label(levels): row for row, levels in enumerate(self.arms.levels)}

    @cached_property
    def best_rows(self) -> set[int]:
        """The arms that are marked: decided better than their baseline, and a baseline than which
        every arm of its task is decided worse.
        """
        better = {d.row for d in self.every if d.answer == "better"}
        answers: dict[int, set[str]] = {}
        for decision in self.every:
            answers.setdefault(decision.reference, set()).add(decision.answer)
        return better | {row for row, found in answers.items() if found == {"worse"}}

    @property
    def sentence(self) -> str:
        """How it was decided, for the notes under a table."""
        rule = self.rule
        looks = ", ".join(map(str, rule.looks))
        at = f"looks at {looks} seeds" if len(rule.looks) > 1 else f"one look, at {looks} seeds"
        if self.partitioned is not None:
            at = f"over {self.partitioned.said}"
        return (
            f"Decided by {self.metric.label} alone: {rule.error:.0%} error over the {rule.family} "
            f"comparisons with the baseline together, margin {number(rule.margin, 3)}, {at}; every "
            "other metric is exploratory and decides nothing."
        )

    @property
    def cautions(self) -> tuple[str, ...]:
        """What weakens the answers: nothing declared, declared late, or changed."""
        if self.declared is None:
            return (UNDECLARED,)
        found = ()
        if self.before:
            was = [f"{_differs(old, self.declared)} (until then)" for old in self.before]
            found += (
                f"Changed after {self.declared.after_cells} cells were there: {'; '.join(was)}. "
                "The error that is promised holds only if nobody had looked at them.",
            )
        elif self.declared.after_cells:
            found += (f"Declared when {self.declared.after_cells} cells were already there.",)
        return found


def _differs(old: Declared, new: Declared) -> str:
    """What `old` says otherwise than `new`: `"margin 0.02, looks 5"`."""
    names = ("metric", "margin", "error", "comparisons", "baseline", "looks")
    said = []
    for name in names:
        value = getattr(old, name)
        if value == getattr(new, name):
            continue
        if name == "looks":
            value = ", ".join(map(str, value))
        elif name == "baseline":
            value = ", ".join(value.values())
        said.append(f"{name} {value}")
    return ", ".join(said)


def seeds_to_equivalence(mean: float, std: float, margin: float, error: float) -> int | None:
    """Pairs with which TOST at `error` finds the mean within the margin with 80 % power.

    By the normal law at the mean and the std seen, and what t and its allowance for skewed
    differences need beyond it (ALLOWANCE). None where the mean is no smaller than the
    margin, or above MOST_SEEDS.
    """
    room = margin - abs(mean)
    if room <= 0 or math.isnan(std):
        return None
    # In the middle both of the two tests may fail: each gets half of what power leaves.
    missed = (1 - POWER) / (2 if abs(mean) < margin / 10 else 1)
    z = stats.norm.isf(error) + stats.norm.isf(missed)
    least = max(2, math.ceil(-math.log2(error)))
    needed = max(math.ceil(ALLOWANCE * (z * std / room) ** 2) + 3, least)
    return needed if needed <= MOST_SEEDS else None


def decisions(ledger: Ledger) -> Decisions | None:
    """The study's decisions; None where it has no metric with a better way, or nothing to compare.

    Raises:
        LedgerError: what the study declared is damaged.
    """
    return _decisions(Same(ledger))


@lru_cache(maxsize=1)
def _decisions(same: Same[Ledger]) -> Decisions | None:
    ledger = same.thing
    declared, before = declared_in(ledger.manifest)
    arms, partitioned = arms_of(ledger), partitioned_in(ledger.manifest)
    metric = _primary(ledger, declared)
    reference = reference_rows(arms.levels, ledger.manifest.baseline)
    rows = [i for i, r in enumerate(reference) if r >= 0 and r != i]
    if metric is None or not rows:
        return None
    values = values_of(ledger, arms, metric.name)
    differences = values[rows] - values[reference[rows]]
    settled = _settled(ledger, arms, rows, reference) if declared else None
    if partitioned is not None:
        differences = partitioned.means(differences)
        settled = partitioned.all(settled) if settled is not None else None
    rule = Rule(
        looks=declared.looks if declared else (max(differences.shape[1], 2),),
        margin=declared.margin if declared else MARGIN,
        error=declared.error if declared else ERROR,
        family=declared.comparisons if declared else len(rows),
        higher_is_better=bool(metric.higher_is_better),
        overlap=partitioned.overlap if partitioned is not None else 0.0,
    )
    found = decide(differences, rule, settled=settled)
    used = _at_their_look(differences, found)
    # Each partition has test patients of its own: they are in its differences already.
    both: list[Crossed | None] = [None] * len(rows)
    if partitioned is None:
        both = _with_patients(ledger, arms, metric, rows, reference, used, rule.margin)
    return Decisions(
        arms=arms,
        metric=metric,
        rule=rule,
        every=tuple(
            Decision(
                row=row,
                reference=int(reference[row]),
                pair=pair,
                decided=one,
                both=crossed_with,
                margin=rule.margin,
                share=rule.share,
                over="seeds" if partitioned is None else "partitions",
            )
            for row, pair, one, crossed_with in zip(
                rows, paired_family(used, rule.overlap), found, both, strict=True
            )
        ),
        declared=declared,
        before=before,
        partitioned=partitioned,
    )


def _primary(ledger: Ledger, declared: Declared | None) -> Metric | None:
    """The metric that decides; of a study that declared none accuracy, else its first."""
    directed = {m.name: m for m in present_metrics(ledger) if m.higher_is_better is not None}
    if declared is not None:
        return directed.get(declared.metric)
    return directed.get("accuracy") or next(iter(directed.values()), None)


def _settled(ledger: Ledger, arms: Arms, rows: Sequence[int], reference: np.ndarray) -> np.ndarray:
    """(comparisons, seeds) whether the cells of both arms are over; a cell not planned is not."""
    over = np.zeros((len(arms.labels), len(arms.seeds)), dtype=bool)
    over[arms.row, arms.column] = (ledger.cells["status"] != "missing").to_numpy()
    return over[rows] & over[reference[rows]]


def _with_patients(
    ledger: Ledger,
    arms: Arms,
    metric: Metric,
    rows: Sequence[int],
    reference: np.ndarray,
    used: np.ndarray,
    margin: float,
) -> list[Crossed | None]:
    """Each comparison over seeds and patients; None without predictions, or for another metric.

    Args:
        used: (comparisons, seeds) the differences that count, NaN where one does not.
    """
    nothing: list[Crossed | None] = [None] * len(rows)
    if metric.name != "accuracy" or len(ledger.cells) > MOST_PREDICTIONS:
        return nothing
    keys = np.full((len(arms.labels), len(arms.seeds)), "", dtype=object)
    keys[arms.row, arms.column] = ledger.cells["key"].to_numpy()
    reader, read = ledger.predictions(), {}

    def patients(row: int, seeds: np.ndarray) -> list[pd.DataFrame]:
        for key in keys[row, seeds]:
            if key not in read:
                read[key] = right_by_patient(reader.read(key))
        return [read[key] for key in keys[row, seeds]]

    found = nothing
    for place, row in enumerate(rows):
        seeds = np.flatnonzero(~np.isnan(used[place]))
        if len(seeds) < 2:
            continue
        try:
            lines = accuracy_differences(patients(row, seeds), patients(reference[row], seeds))
        except (FileNotFoundError, DamagedPredictions, ValueError):
            continue  # none, or the table of variances names what is damaged
        if lines.shape[1] > 1:
            found[place] = crossed(lines, margin)
    return found


def _at_their_look(differences: np.ndarray, found: Sequence[Decided]) -> np.ndarray:
    """`differences` without the seeds that came after an answer."""
    used = differences.copy()
    for row, one in enumerate(found):
        if one.answer != "undecided":
            used[row, one.seeds :] = np.nan
    return used
