"""The toy study with a source that goes on with one arm once it has heard of every first seed.

python tests/support/toy_race.py --seeds 3
"""

if __name__ == "__main__":  # before the imports, which take a second
    from sweeps.engine.session import listen

    listen()

from dataclasses import replace

import toy_study

from sweeps.engine.cli import main
from sweeps.engine.plan import Cell, Plan
from sweeps.engine.source import Grid, Step
from sweeps.ledger.files import Store
from sweeps.ledger.read import read_metric

MORE = 2  # seeds that the one arm gets after the first look

STUDY = replace(toy_study.STUDY, name="race", seeds=1 + MORE)
reporting = toy_study.reporting


class TwoLooks(Grid):
    """The first seed of every arm; after that, MORE seeds of the arm with the worst accuracy."""

    def __init__(self, plan: Plan, ledger: Store) -> None:
        super().__init__(plan, ledger)
        self._ledger = ledger
        first = plan.seeds[0]
        missing = {cell.key for cell in plan.todo}
        self._wanted = [cell for cell in plan.cells if cell.seed == first]
        self._waiting = [cell for cell in self._wanted if cell.key in missing]
        self._under_way: set[str] = set()
        self._looked = False

    def next(self) -> Step | None:
        if not self._waiting and not self._under_way and not self._looked:
            self._look()
        if not self._waiting:
            return None
        cell = self._waiting.pop(0)
        self._under_way.add(cell.key)
        return self.step(cell)

    def _look(self) -> None:
        self._looked = True
        # Not the objective that `tell` brings: what the ledger holds.
        found = read_metric(self._ledger, {cell.key for cell in self._wanted}, "accuracy")
        worst = min(self._wanted, key=lambda cell: found[cell.key]).arm
        plan = super().plan
        more = [c for c in plan.cells if c.arm is worst and c.seed != plan.seeds[0]]
        missing = {cell.key for cell in plan.todo}
        self._wanted += more
        self._waiting = [cell for cell in more if cell.key in missing]

    def tell(self, cell: Cell, objective: float | None) -> None:
        assert objective is not None
        self._under_way.discard(cell.key)

    @property
    def left(self) -> int:
        under_way = len(self._waiting) + len(self._under_way)
        return under_way if self._looked else under_way + MORE

    @property
    def plan(self) -> Plan:
        wanted = {cell.key for cell in self._wanted}
        plan = super().plan
        return replace(plan, cells=tuple(cell for cell in plan.cells if cell.key in wanted))


if __name__ == "__main__":
    main(STUDY, reporting, __doc__, make_source=TwoLooks)
