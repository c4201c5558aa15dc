"""`--max-hours`, `--max-gpu-hours`: when a budget is spent no further cell starts.

A budgeted source hands out no more than the slots can take at once, so what is spent beyond the
budget is at most a cell (with its stages) per slot.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from imaging_core.fields import ConfigError
from sweeps.engine.display import duration
from sweeps.engine.plan import Cell, Plan
from sweeps.engine.source import ArmSource, Step

if TYPE_CHECKING:
    from cluster.drive import Experiment

HOUR_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a run may take.

    Attributes:
        hours: of wall time; None: any.
        gpu_hours: of slots, each with `gpus_per_slot` GPUs; None: any.
        gpus_per_slot: a slot without a GPU counts as one, so that the budget holds there too.
    """

    hours: float | None = None
    gpu_hours: float | None = None
    gpus_per_slot: float = 1.0

    def check(self) -> None:
        """Refuse what nobody can spend.

        Raises:
            ConfigError: names the option.
        """
        for option, value in (("--max-hours", self.hours), ("--max-gpu-hours", self.gpu_hours)):
            if value is not None and not value > 0:
                raise ConfigError(f"{option} must be above 0, got {value:g}; leave it out for none")

    def less(self, seconds: float, slot_s: float) -> "Budget":
        """What is left of it after so many seconds of wall time, and of slots."""
        hours, gpu_hours = self.hours, self.gpu_hours
        if hours is not None:
            hours -= seconds / HOUR_S
        if gpu_hours is not None:
            gpu_hours -= slot_s * self.gpus_per_slot / HOUR_S
        return replace(self, hours=hours, gpu_hours=gpu_hours)

    def __bool__(self) -> bool:
        return self.hours is not None or self.gpu_hours is not None


class Budgeted:
    """`source`, until the budget is spent; an `ArmSource` itself.

    Args:
        clock: seconds that never go back.
    """

    def __init__(
        self, source: ArmSource, budget: Budget, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._source, self._budget, self._clock = source, budget, clock
        self._slots: Callable[[], int] = lambda: 1
        self._began: float | None = None
        self._last = 0.0
        self._slot_s = 0.0
        self._cell_s: list[float] = []
        self._under_way: dict[str, float] = {}
        self.spent = False

    def use(self, slots: Callable[[], int]) -> None:
        """From now on `slots()` says how many there are; until then there is one."""
        self._slots = slots

    def look(self) -> float:
        """Count the time since the last look, and whether it is spent; now."""
        now = self._clock()
        if self._began is None:
            self._began = self._last = now
        self._slot_s += (now - self._last) * self._slots()
        self._last = now
        hours, gpu_hours = self._budget.hours, self._budget.gpu_hours
        gpu_s = self._slot_s * self._budget.gpus_per_slot
        self.spent |= hours is not None and now - self._began >= hours * HOUR_S
        self.spent |= gpu_hours is not None and gpu_s >= gpu_hours * HOUR_S
        return now

    def next(self) -> Step | None:
        """As the source's; None once the budget is spent, and while every slot has a cell."""
        now = self.look()
        if self.spent or len(self._under_way) >= max(1, self._slots()):
            return None
        step = self._source.next()
        if step is not None:
            self._under_way[step.cell.key] = now
        return step

    def tell(self, cell: Cell, objective: float | None) -> None:
        """As the source's."""
        self._over(cell)
        self._source.tell(cell, objective)

    def ended(self, cell: Cell) -> None:
        """As the source's."""
        self._over(cell)
        self._source.ended(cell)

    def took(self, seconds: float) -> None:
        """A cell that this source did not hand out (a search on Ray leads elsewhere) took so long;
        it was the only one of its slot.
        """
        self._cell_s.append(seconds)

    def _over(self, cell: Cell) -> None:
        now = self.look()
        began = self._under_way.pop(cell.key, None)
        if began is not None:
            self._cell_s.append(now - began)

    @property
    def left(self) -> int:
        """Cells under way, and those to come unless the budget is spent."""
        return len(self._under_way) if self.spent else self._source.left

    @property
    def plan(self) -> Plan:
        """As the source's."""
        return self._source.plan

    def experiment(self, database: Path | None) -> "Experiment":
        """As the source's."""
        return self._source.experiment(database)

    @property
    def rest(self) -> Budget:
        """What is left of the budget."""
        return self._budget.less(self._last - (self._began or 0.0), self._slot_s)

    @property
    def line(self) -> str | None:
        """As `line_of` what the source has left."""
        return self.line_of(self._source.left)

    def line_of(self, rest: int) -> str | None:
        """What was spent, and what `rest` more cells would cost; None unless the budget ended the
        run before them.

        A cell is taken to need what one of this run needed, its stages among it.
        """
        if not self.spent or not rest:
            return None
        wall, slots = self._last - (self._began or 0.0), max(1, self._slots())
        gpu = self._slot_s * self._budget.gpus_per_slot
        line = (
            f"the budget is spent ({duration(wall)} of wall time, {gpu / HOUR_S:.2f} slot-hours); "
            f"{rest} cells are left"
        )
        if not self._cell_s:
            return f"{line}, and nobody knows what one takes"
        each = sorted(self._cell_s)
        mean, low, high = sum(each) / len(each), each[0], each[-1]
        by = " by the cell"
        if len(each) > 1:
            by = f", {duration(rest * low / slots)} to {duration(rest * high / slots)} by the cells"
        return (
            f"{line}, about {duration(rest * mean / slots)} on {slots} slots"
            f"{by} of this run ({rest * mean / HOUR_S:.2f} slot-hours)"
        )
