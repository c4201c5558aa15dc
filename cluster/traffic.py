"""What travels between the driver, the broker and the workers: keys, reports, failures. No Ray."""

from dataclasses import dataclass

CELL = "cell"


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
class Report:
    """An item has been carried out.

    Attributes:
        wall_s: seconds that it took.
        computed: of a stage, whether it was not there already.
        seed, objective: of a cell.
    """

    wall_s: float = 0.0
    computed: bool = False
    seed: int | None = None
    objective: float | None = None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An item raised, took its worker down, or needs one that failed.

    Attributes:
        error_type, error, traceback: of the exception, or of what stands for one.
        inherited: what it needs failed; it was never begun.
    """

    error_type: str
    error: str
    traceback: str = ""
    inherited: bool = False
