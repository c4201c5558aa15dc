"""What travels between the driver, the broker and the workers: keys, reports, failures. No Ray."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

CELL = "cell"
Points = Mapping[str, tuple[int, tuple[float, ...]]]
"""Curve → the step of the first of these values, from 0, and the values of the steps from there."""


class Key(str):
    """An item's id: a stage's is its name, a dash and a hash, a cell's a hash alone."""

    __slots__ = ()

    @property
    def stage(self) -> str | None:
        """The name of the stage; None: it is a cell's key."""
        return self.rpartition("-")[0] or None

    @property
    def kind(self) -> str:
        """Items of one kind take about as long: the cells, and the stages of each name."""
        return self.stage or CELL


@dataclass(frozen=True, kw_only=True)
class Message:
    """What goes from one process to another as JSON values: a recipe, a report, a failure."""

    def to_json(self) -> dict[str, Any]:
        """Field → value; `json` takes it as it is."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """What `to_json` wrote, also where it was text on its way: a list there is a tuple."""
        listed = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **listed})


@dataclass(frozen=True, kw_only=True)
class Report(Message):
    """An item has been carried out.

    Attributes:
        wall_s: seconds that it took.
        computed: of a stage, whether it was not there already.
        seed, objective: of a cell.
        ended: a pruner ended it while it ran; it has no objective.
    """

    wall_s: float = 0.0
    computed: bool = False
    seed: int | None = None
    objective: float | None = None
    ended: bool = False


@dataclass(frozen=True, kw_only=True)
class Failure(Message):
    """An item raised, took its worker down, or needs one that failed.

    Attributes:
        error_type, error, traceback: of the exception, or of what stands for one.
        inherited: what it needs failed; it was never begun.
    """

    error_type: str
    error: str
    traceback: str = ""
    inherited: bool = False


@dataclass(frozen=True, kw_only=True)
class Pulse(Message):
    """What is known of an item that is being computed.

    Attributes:
        share: how much of it is done, in [0, 1]; None: its worker has not said.
        silent_s: seconds since its last sign of progress.
        worth_a_word_s: the silence after which somebody should hear of it.
        points: of its curves, those that came since the last look.
    """

    share: float | None = None
    silent_s: float = 0.0
    worth_a_word_s: float = float("inf")
    points: Points = field(default_factory=dict)
