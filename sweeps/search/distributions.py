"""A space in Optuna's words: each axis a distribution, a point asked of a trial axis by axis."""

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Axes:
    """Define-by-run: asks a trial for the axes whose conditions hold, and only those.

    Attributes:
        fixed: the fields that the group fixes; conditions may name them.
    """

    space: Space
    fixed: Point

    def __call__(self, trial: optuna.Trial) -> dict[str, Any]:
        """The trial's point."""
        point: dict[str, Any] = {}
        for name, axis in self.space.items():
            if not active(axis, {**self.fixed, **point}):
                continue
            if not isinstance(axis, Range):
                point[name] = trial.suggest_categorical(name, list(axis.levels))
            elif axis.whole:
                point[name] = trial.suggest_int(name, int(axis.low), int(axis.high), log=axis.log)
            else:
                point[name] = trial.suggest_float(name, axis.low, axis.high, log=axis.log)
        return point
