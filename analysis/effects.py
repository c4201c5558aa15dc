"""Main effects and two-factor interactions of a study whose factors have two levels each.

An effect is the mean over all arms with one level less that over all arms with the other; an
interaction is half of what the effect of one factor changes with the other. Seeds are blocks, whose
luck every arm shares. Least squares and intervals are statsmodels'; ours is the bookkeeping of what
a fraction cannot tell apart. Box, Hunter and Hunter 2005, chapters 5 and 6.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.aggregate import Metric
from analysis.comparisons import Arms, arms_of, probability, values_of
from analysis.decisions import decisions
from analysis.degenerate import warned
from analysis.inference import ALPHA, holm
from analysis.table import MISSING, Entry, Row, Table, interval, number
from sweeps.ledger.declared import TASK_FACTORS
from sweeps.ledger.read import Ledger
from sweeps.ledger.schema import DESIGN

FEWEST_FACTORS = 3  # of a study that asked for no design: two are a grid, which has its own table


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One effect, in the metric's unit.

    Attributes:
        names: the factor, or the two that interact.
        aliases: interactions that the arms cannot tell from it, each with its sign; the effect is
            that of all of them together.
        estimate, low, high, p: of least squares with the seeds as blocks; the last three are NaN
            where nothing is left to measure the error with.
        p_holm: over the main effects, or over the interactions.
        same_sign, blocks: in how many of the blocks in which every arm is there the effect has the
            sign of the estimate.
    """

    names: tuple[str, ...]
    aliases: tuple[tuple[int, tuple[str, str]], ...]
    estimate: float
    low: float
    high: float
    p: float
    p_holm: float
    same_sign: int
    blocks: int

    @property
    def label(self) -> str:
        """`"target × sampling (+ a × b − c × d)"`."""
        others = " ".join(f"{'+' if s > 0 else '−'} {' × '.join(n)}" for s, n in self.aliases)
        return " × ".join(self.names) + (f" ({others})" if others else "")


@dataclass(frozen=True, kw_only=True)
class Effects:
    """Every effect of a study.

    Attributes:
        levels: factor → (the baseline's level, the other one); effects are other minus baseline.
        main, interactions: in the order of the factors.
        cells: that they were estimated from.
    """

    metric: Metric
    levels: Mapping[str, tuple[str, str]]
    main: tuple[Effect, ...]
    interactions: tuple[Effect, ...]
    cells: int


def effects(ledger: Ledger) -> Effects | None:
    """The study's effects on its primary metric; None where its arms are no two-level factorial, or
    nothing decides.

    A factorial is every planned combination of two factors equally often, within each task.

    Raises:
        LedgerError: what the study declared is damaged.
    """
    found, arms = decisions(ledger), arms_of(ledger)
    if found is None:
        return None
    levels = _two_levels(arms, ledger.manifest.baseline)
    if not levels or len(levels) < (2 if DESIGN in ledger.manifest.extra else FEWEST_FACTORS):
        return None
    signs = np.array(
        [[1 if arm[n] == other else -1 for n, (_, other) in levels.items()] for arm in arms.levels]
    )
    tasks = [tuple((n, arm[n]) for n in TASK_FACTORS if n in arm) for arm in arms.levels]
    for task in set(tasks):
        mine = signs[[each == task for each in tasks]]
        if mine.sum(axis=0).any() or not _is_diagonal(mine.T @ mine):
            return None
    values = values_of(ledger, arms, found.metric.name)
    block_of_task = np.array([sorted(set(tasks)).index(task) for task in tasks])
    main, interactions = estimated(signs, values, tuple(levels), block_of_task)
    return Effects(
        metric=found.metric,
        levels=levels,
        main=main,
        interactions=interactions,
        cells=int((~np.isnan(values)).sum()),
    )


def _is_diagonal(matrix: np.ndarray) -> bool:
    return not (matrix - np.diag(np.diag(matrix))).any()


def _two_levels(arms: Arms, baseline: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Factor → its two levels, the baseline's first; empty where another one has more."""
    found = {}
    for name in dict.fromkeys(n for levels in arms.levels for n in levels):
        levels = list(dict.fromkeys(each.get(name, "") for each in arms.levels))
        if name in TASK_FACTORS or len(levels) < 2:
            continue
        if len(levels) > 2 or baseline.get(name) not in levels:
            return {}
        first = baseline[name]
        found[name] = (first, next(level for level in levels if level != first))
    return found


def estimated(
    signs: np.ndarray, values: np.ndarray, names: Sequence[str], tasks: np.ndarray
) -> tuple[tuple[Effect, ...], tuple[Effect, ...]]:
    """Main effects and interactions, those that the arms cannot tell apart as one.

    Args:
        signs: (arms, factors) −1 for the baseline's level, 1 for the other; a factorial.
        values: (arms, seeds), NaN where a cell is missing.
        names: of the factors.
        tasks: (arms,) the task of each arm; a task's seeds are blocks of their own.
    """
    from statsmodels.regression.linear_model import OLS

    columns, members = _terms(signs, names)
    every = tasks[:, None] * values.shape[1] + np.arange(values.shape[1])[None]
    there = ~np.isnan(values)
    if not there.any():
        return (), ()
    row = np.nonzero(there)[0]
    blocks = (every[there][:, None] == np.unique(every[there])).astype(float)
    x = columns[row] / 2
    kept = _independent(blocks, x)
    fit = OLS(values[there], np.hstack([x[:, kept], blocks])).fit()
    bounds = np.full((len(kept), 3), np.nan)
    if fit.df_resid > 0 and fit.ssr > 0:
        bounds = np.column_stack([fit.conf_int(ALPHA), fit.pvalues])[: len(kept)]
    agree = _signs_by_block(columns, values, tasks)
    families: tuple[list[Effect], list[Effect]] = ([], [])
    for place, column in enumerate(kept):
        (own, of_own), *others = members[column]
        estimate = float(fit.params[place])
        low, high, p = bounds[place].tolist()
        families[len(of_own) - 1].append(
            Effect(
                names=of_own,
                aliases=tuple((own * sign, of_other) for sign, of_other in others),
                estimate=estimate,
                low=low,
                high=high,
                p=p,
                p_holm=np.nan,
                same_sign=int(np.sum(agree[:, column] == np.sign(estimate))),
                blocks=len(agree),
            )
        )
    main, interactions = (_adjusted(family) for family in families)
    return main, interactions


def _adjusted(family: Sequence[Effect]) -> tuple[Effect, ...]:
    p = holm([one.p for one in family])
    return tuple(replace(one, p_holm=float(q)) for one, q in zip(family, p, strict=True))


Members = list[tuple[int, tuple[str, ...]]]
"""What one column stands for: the sign in it and the factor, or the two that interact."""


def _terms(signs: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[Members]]:
    """(arms, terms) of −1 and 1, those that are equal up to their sign as one, and what each is."""
    columns: list[np.ndarray] = []
    members: list[Members] = []
    pairs = itertools.combinations(range(len(names)), 2)
    for of_term in [*((i,) for i in range(len(names))), *pairs]:
        column = signs[:, of_term].prod(axis=1)
        called = tuple(names[i] for i in of_term)
        for place, other in enumerate(columns):
            if abs(int(column @ other)) == len(column):
                members[place].append((int(np.sign(column @ other)), called))
                break
        else:
            columns.append(column)
            members.append([(1, called)])
    return np.stack(columns, axis=1).astype(float), members


def _independent(blocks: np.ndarray, x: np.ndarray) -> list[int]:
    """The columns of `x` that those before them and `blocks` do not make up."""
    basis = [block / np.linalg.norm(block) for block in blocks.T]
    kept = []
    for place, column in enumerate(x.T):
        left = column.copy()
        for _ in range(2):  # once more, for what rounding left
            for each in basis:
                left -= (each @ left) * each
        if np.linalg.norm(left) > 1e-8 * np.linalg.norm(column):
            basis.append(left / np.linalg.norm(left))
            kept.append(place)
    return kept


def _signs_by_block(columns: np.ndarray, values: np.ndarray, tasks: np.ndarray) -> np.ndarray:
    """(blocks, terms) the sign of each effect in each task and seed that has every arm."""
    found = []
    for task in np.unique(tasks):
        mine, of_task = columns[tasks == task], values[tasks == task]
        whole = of_task[:, ~np.isnan(of_task).any(axis=0)]
        found.append(np.sign((whole - whole.mean(axis=0)).T @ mine) if len(whole) else [])
    return np.concatenate(found)


def effect_table(ledger: Ledger) -> Table | None:
    """Every effect, in points (hundredths) of a metric that is a fraction; None where none is.

    Raises:
        LedgerError: what the study declared is damaged.
    """
    found = effects(ledger)
    if found is None or not found.main:
        return None
    digits = 2 if found.metric.fraction else found.metric.digits
    percent = found.metric.fraction

    def row(one: Effect, group: str) -> Row:
        label = one.label
        if len(one.names) == 1:
            first, other = found.levels[one.names[0]]
            label = f"{label}: {other} − {first}"
        known = np.isfinite(one.low)
        bounds = interval(one.low, one.high, digits, percent=percent) if known else MISSING
        return Row(
            label=label,
            group=group,
            entries=(
                Entry(
                    text=number(one.estimate, digits, percent=percent),
                    values={"value": one.estimate},
                    order=abs(one.estimate),
                ),
                Entry(text=bounds, values={"low": one.low, "high": one.high} if known else {}),
                Entry(text=probability(one.p_holm), values={"value": one.p_holm} if known else {}),
                Entry(text=f"{one.same_sign} of {one.blocks}"),
            ),
        )

    unit = f"{found.metric.label}, points" if percent else found.metric.label
    confused = sum(1 + len(one.aliases) for one in found.interactions if one.aliases)
    table = Table(
        name="effects",
        title=f"{unit}: main effects and interactions of two factors",
        stub="factor",
        columns=("effect", "95 % interval", "p (Holm)", "seeds of this sign"),
        rows=(
            *(row(one, "main effect") for one in found.main),
            *(row(one, "interaction") for one in found.interactions),
        ),
        notes=(
            "main effect: mean over all arms with the other level minus that over all arms with "
            "the baseline's, averaged over the levels of every other factor; interaction: half of "
            f"what one factor's effect changes with the other. Least squares over {found.cells} "
            "cells with the seeds as blocks.",
            "p (Holm): over the main effects, and over the interactions. Exploratory: decides "
            "nothing; an effect that differs from seed to seed shows in the last column.",
            *(
                (
                    f"{confused} interactions cannot be told apart by these arms: an effect "
                    "with others in brackets is the sum of all of them, with their signs.",
                )
                if confused
                else ()
            ),
            "Where a level makes other factors void (masks that are empty), their effects are "
            "averaged over arms in which they do nothing, and shrink.",
        ),
    )
    return warned(ledger, table)


def effect_sentence(ledger: Ledger) -> str:
    """`"Averaged over the other factors (exploratory), …"`: the main effects that are seen; empty
    where the study has no effects.
    """
    found = effects(ledger)
    if found is None or not found.main:
        return ""
    seen = sorted(
        (one for one in found.main if one.p_holm <= ALPHA), key=lambda one: -abs(one.estimate)
    )
    percent = found.metric.fraction
    digits = 2 if percent else found.metric.digits
    unit = " points" if percent else ""
    named = [
        f"{one.names[0]} = {found.levels[one.names[0]][1]} changes {found.metric.label} by "
        f"{number(one.estimate, digits, percent=percent)}{unit} "
        f"{interval(one.low, one.high, digits, percent=percent)}"
        for one in seen
    ]
    if not seen:
        named = [f"none of the {len(found.main)} factors shows an effect"]
    elif rest := len(found.main) - len(seen):
        named.append(f"of {rest} more nothing is seen")
    return f"Averaged over the other factors (exploratory), {'; '.join(named)}."
