"""What a search may propose: ranges and choices, some of them only under conditions. No Optuna.

A point is a mapping field → value that holds exactly the axes whose conditions it meets.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Point = Mapping[str, Any]


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; integers where both ends are.

    Attributes:
        log: uniform in the logarithm: for scales, as learning rates are.
        when: field → levels: the axis is there only where each of these fields has one of them.
    """

    low: float
    high: float
    log: bool = False
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether it holds integers only."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def holds(self, value: Any) -> bool:
        return not isinstance(value, str | bool) and self.low <= value <= self.high

    def probes(self) -> tuple[Any, ...]:
        """Values that stand for all in a check of validity: the ends."""
        return (self.low, self.high)


@dataclass(frozen=True)
class Choice:
    """One of `levels`; `when` as in `Range`."""

    levels: tuple[Any, ...]
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def holds(self, value: Any) -> bool:
        return value in self.levels

    def probes(self) -> tuple[Any, ...]:
        """Every level."""
        return self.levels


Space = Mapping[str, Range | Choice]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One search: what to propose, for whom, how often.

    Attributes:
        name: of the search, for Optuna.
        space: the axes; one that another depends on comes before it.
        groups: name of a group → the fields that it fixes. Each group has a sampler and a budget
            of its own, so that a comparison of groups is one of tuned with tuned.
        defaults: group → the point that is proposed first.
        trials: proposals per group.
        seeds: the tuning seeds, in the order they are computed.
        maximize: whether a higher objective is better.
        alpha: level of the stopping rule (`sweeps.search.pruner`); 0 never stops.
        seed: of the samplers.
        round: each group's proposals are made so many at a time, from finished rounds alone, so
            that the search is the same for any number of workers; 0: from whatever is there.
        prune: the pruner that hears running cells (`sweeps.search.cell_pruner`); "": none does.
    """

    name: str
    space: Space
    groups: Mapping[str, Point]
    defaults: Mapping[str, Point]
    trials: int
    seeds: tuple[int, ...]
    maximize: bool
    alpha: float
    seed: int
    round: int = 0
    prune: str = ""

    def round_start(self, position: int) -> int:
        """How many of a group's proposals the one at `position` among them may know the end of."""
        return position - position % (self.round or 1)


def active(axis: Range | Choice, known: Point) -> bool:
    """Whether the fields known so far meet the axis' conditions."""
    return all(known.get(name) in levels for name, levels in axis.when.items())


def restrict(space: Space, group: Point, values: Point) -> dict[str, Any]:
    """The point that `values` (which may hold more) makes in `space`."""
    point: dict[str, Any] = {}
    for name, axis in space.items():
        if active(axis, {**group, **point}):
            point[name] = values[name]
    return point


def points(space: Space, group: Point) -> Iterator[dict[str, Any]] | None:
    """Every point, or None where a range of real numbers makes them endless."""
    axes: list[Sequence[Any]] = []
    for axis in space.values():
        if isinstance(axis, Choice):
            axes.append(axis.levels)
        elif axis.whole:
            axes.append(range(int(axis.low), int(axis.high) + 1))
        else:
            return None
    found = (
        restrict(space, group, dict(zip(space, values, strict=True)))
        for values in itertools.product(*axes)
    )
    return iter({tuple(point.items()): point for point in found}.values())
