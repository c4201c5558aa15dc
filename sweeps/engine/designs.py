"""`--design`: which combinations of its factors' levels a study computes.

full: all. one-at-a-time: the baseline, and each other level of each factor with the rest as in the
baseline. screening: two levels a factor, and of their combinations the smallest regular fraction
of resolution IV (pydoe): no main effect is confused with another or with an interaction of two
factors; those may be with one another. A main effect then has half of all cells on either side.
Box, Hunter and Hunter 2005, "Statistics for Experimenters", chapters 6 and 12.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from imaging_core.fields import ConfigError, did_you_mean
from sweeps.engine.study import SETTING, Study
from sweeps.ledger.declared import PARTITIONS, TASK_FACTORS

DESIGNS = ("full", "one-at-a-time", "screening")
RESOLUTION = 4
MOST_SCREENED = 16  # beyond it the combinations that are left out are too many to go through


def designed(study: Study, design: str | None, typed: Sequence[str] = ()) -> Study:
    """`study` with the arms of `design`; as it declares them itself where that is None.

    Factors that change the task (data, k_shot, fold, …) are crossed with every design.

    Args:
        study: with the levels that were asked for.
        typed: factors whose levels the user gave; the others of a screening have the two that the
            study declares for it (`Study.screening`), if it does.

    Raises:
        ConfigError: an unknown design; a study of bundles; for a screening a factor of more than
            two levels, or fewer than two factors of two.
    """
    if design is None:
        return study
    if design not in DESIGNS:
        raise ConfigError(
            f'--design must be one of {", ".join(DESIGNS)}, got "{design}"'
            f"{did_you_mean(design, DESIGNS)}"
        )
    if study.bundles:
        raise ConfigError(
            f"--design {design} needs factors that can be combined, the levels of {SETTING} in "
            f"{study.name} are bundles; leave it out"
        )
    if design == "full":
        return replace(study, only=())
    if design == "one-at-a-time":
        return replace(study, only=_crossed(study.factors, _single_moves(study)))
    return _screened(study, typed)


def _crossed(
    factors: Mapping[str, Sequence[Any]], combinations: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], ...]:
    """Each combination of methods on every task."""
    tasks = {n: levels for n, levels in factors.items() if n in (*TASK_FACTORS, *PARTITIONS)}
    return tuple(
        {**combination, **dict(zip(tasks, levels, strict=True))}
        for combination in combinations
        for levels in itertools.product(*tasks.values())
    )


def _methods(study: Study) -> dict[str, Sequence[Any]]:
    return {n: v for n, v in study.factors.items() if n not in (*TASK_FACTORS, *PARTITIONS)}


def _single_moves(study: Study) -> list[dict[str, Any]]:
    methods = _methods(study)
    default = {name: study.baseline[name] for name in methods}
    moves = [{n: level} for n, levels in methods.items() for level in levels if level != default[n]]
    return [default, *({**default, **move} for move in moves)]


def _screened(study: Study, typed: Sequence[str]) -> Study:
    own = {n: levels for n, levels in study.screening.items() if n not in typed}
    factors = {name: tuple(own.get(name, levels)) for name, levels in study.factors.items()}
    study = replace(study, factors=factors)
    methods = _methods(study)
    if many := {n: levels for n, levels in methods.items() if len(levels) > 2}:
        said = "; ".join(f"{n} has {', '.join(map(str, levels))}" for n, levels in many.items())
        remedy = " ".join(f"--set {n}={','.join(map(str, v[:2]))}" for n, v in many.items())
        raise ConfigError(
            f"--design screening takes two levels of a factor at most, {said}; choose, for example "
            f"{remedy}"
        )
    two = [name for name, levels in methods.items() if len(levels) == 2]
    if not 2 <= len(two) <= MOST_SCREENED:
        raise ConfigError(
            f"--design screening needs from 2 to {MOST_SCREENED} factors of two levels, "
            f"{study.name} has {len(two)}"
        )
    baseline = {
        name: study.baseline[name] if study.baseline.get(name) in levels else levels[0]
        for name, levels in study.factors.items()
    }
    other = {n: next(level for level in methods[n] if level != baseline[n]) for n in two}
    same = {name: baseline[name] for name in methods if name not in two}
    combinations = [
        {
            **same,
            **{n: other[n] if moved else baseline[n] for n, moved in zip(two, row, strict=True)},
        }
        for row in fraction(len(two))
    ]
    return replace(study, baseline=baseline, only=_crossed(factors, combinations))


def fraction(factors: int) -> np.ndarray:
    """(arms, factors) bool: which factors each arm moves from the baseline; the first arm none.

    The smallest regular two-level fraction of resolution IV; up to three factors all combinations.
    """
    from pydoe import fracfact_by_res

    signs = np.asarray(fracfact_by_res(factors, RESOLUTION)) > 0
    # To turn a column round changes no resolution, and lets the baseline be among the arms.
    return signs != signs[0]
