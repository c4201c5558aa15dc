"""A space in Optuna's words: each axis a distribution, a point asked of a trial axis by axis."""

from typing import Any

import optuna

from sweeps.search.space import Choice, Point, Range, Space, active


def distribution(axis: Range | Choice) -> optuna.distributions.BaseDistribution:
    """The axis as Optuna names it."""
    if not isinstance(axis, Range):
        return optuna.distributions.CategoricalDistribution(list(axis.levels))
    if axis.whole:
        return optuna.distributions.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return optuna.distributions.FloatDistribution(axis.low, axis.high, log=axis.log)


def distributions(space: Space) -> dict[str, optuna.distributions.BaseDistribution]:
    """Every axis, whatever its conditions."""
    return {name: distribution(axis) for name, axis in space.items()}


def ask(trial: optuna.Trial, *, space: Space, fixed: Point) -> dict[str, Any]:
    """The trial's point, defined by run: asked for the axes whose conditions hold, and only those.

    Args:
        fixed: the fields that the group fixes; conditions may name them.
    """
    point: dict[str, Any] = {}
    for name, axis in space.items():
        if not active(axis, {**fixed, **point}):
            continue
        if not isinstance(axis, Range):
            point[name] = trial.suggest_categorical(name, list(axis.levels))
        elif axis.whole:
            point[name] = trial.suggest_int(name, int(axis.low), int(axis.high), log=axis.log)
        else:
            point[name] = trial.suggest_float(name, axis.low, axis.high, log=axis.log)
    return point
