"""Which cell comes next: what the two loops of `run` ask and tell, whatever kind of run it is.

    while (step := source.next()) is not None:   # in this process: one after the other
        ...compute step.stages, then step.cell...
        source.tell(step.cell, objective)

On Ray the driver asks until it gets None, queues all that, and asks again whenever it has told the
source of a cell (`cluster.drive`). So a source that hands out everything at once is a grid, and one
that waits for results before it goes on (a race, which adds seeds) is nothing else to the loops:
None means "nothing now", and with nothing under way "done". A cell's row is in the ledger before
its source is told, so a source may read there what it decides on: other metrics, or predictions.

A search is a source in this process. On Ray its place is the Tune process, where Ray's
`OptunaSearch` is, and the driver only follows: its `experiment` says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sweeps.engine.plan import Cell, Plan, StageWork
from sweeps.engine.study import arms_named
from sweeps.ledger.files import Store
from sweeps.ledger.read import read_metric

if TYPE_CHECKING:
    from cluster.drive import Experiment


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One cell that is wanted, and what it takes.

    Attributes:
        stages: those that it needs and that were missing when it was planned, needs first.
        turn: of two steps that could go on, the one with the lower turn does (`cluster.queue`).
        judged: what a pruner judges the cell by while it runs (`engine.judging`), of a search
            alone: its source hears `ended(cell)` where `tell` would come. None: nobody does.
    """

    cell: Cell
    stages: tuple[StageWork, ...]
    turn: int = 0
    judged: Mapping[str, Any] | None = None


class ArmSource(Protocol):
    """Says which (arm, seed) is wanted next, and hears what came of each."""

    def next(self) -> Step | None:
        """The next cell that is wanted; None: none before more has been told, or none at all.

        Each cell comes once, and only one that is neither committed nor, unless failed cells are
        retried, failed.
        """

    def tell(self, cell: Cell, objective: float | None) -> None:
        """The cell's row is in the ledger.

        Args:
            cell: of a step that `next` gave.
            objective: the study's objective; None: the cell failed.
        """

    @property
    def left(self) -> int:
        """How many cells may still be told, at most: those under way, and those to come."""

    @property
    def plan(self) -> Plan:
        """What is wanted, as far as is known now: the cells that are there or certainly will be.

        At the end of a run, all that it wanted: the run succeeded if each of these is committed.
        """

    def experiment(self, database: Path | None) -> "Experiment":
        """How Ray Tune sees it.

        Args:
            database: where Optuna's studies go; None keeps them in memory.
        """


class Grid:
    """Every missing cell of a plan, seed by seed over all arms.

    So a study that is stopped anywhere has arms whose numbers of seeds differ by one at most, and
    the stages come when the next cells need them. Arms that `--first` names go ahead, by themselves
    in the same order.
    """

    def __init__(self, plan: Plan, ledger: Store) -> None:
        self._plan, self._ledger = plan, ledger
        first = plan.request.first
        ahead = [] if first is None else arms_named(plan.arms, first, "--first")
        self._ahead = {id(arm) for arm in ahead}
        self._turns = {seed: turn for turn, seed in enumerate(plan.seeds)}
        self._cells = iter(sorted(plan.todo, key=self.turn))
        self._left = len(plan.todo)

    def next(self) -> Step | None:
        cell = next(self._cells, None)
        return None if cell is None else self.step(cell)

    def step(self, cell: Cell) -> Step:
        """A missing cell of the plan, as the loops take it."""
        return Step(cell=cell, stages=self._plan.missing(cell), turn=self.turn(cell))

    def turn(self, cell: Cell) -> int:
        """Lower ones go first: a seed's place among the plan's; below 0 for arms that go ahead."""
        turn = self._turns[cell.seed]
        return turn - len(self._turns) if id(cell.arm) in self._ahead else turn

    def tell(self, cell: Cell, objective: float | None) -> None:
        self._left -= 1

    @property
    def left(self) -> int:
        return self._left

    @property
    def plan(self) -> Plan:
        return self._plan

    def experiment(self, database: Path | None) -> "Experiment":
        """Tune's trials follow the arms that miss cells, whichever get them when."""
        from cluster.drive import Experiment

        plan = self._plan
        values = read_metric(self._ledger, set(plan.done), plan.study.objective)
        known: dict[int, dict[int, float]] = {id(arm): {} for arm in plan.arms}
        for cell in plan.cells:
            if cell.key in values:
                known[id(cell.arm)][cell.seed] = values[cell.key]
        return Experiment(
            run="cluster.following:follow",
            arguments={
                "study_name": plan.study.name,
                "levels": {name: list(levels) for name, levels in plan.study.factors.items()},
                "arms": [(arm.label, arm.levels, known[id(arm)]) for arm in plan.arms],
                "missing": {cell.arm.label for cell in plan.todo},
                "database": database,
            },
            leads=False,
        )
