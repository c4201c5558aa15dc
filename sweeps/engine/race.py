"""A race as a source of cells: seeds for the arms whose comparison is open, until all are decided.

What is wanted is `sweeps.search.race`'s, from the cells that the ledger holds; nothing else is
kept, so that a race which was killed goes on as if it had not been.
"""

from dataclasses import replace

import numpy as np

from sweeps.engine.declaring import declared_manifest, declared_of
from sweeps.engine.plan import Cell, Plan
from sweeps.engine.source import Grid, Step
from sweeps.ledger.commit import write_manifest
from sweeps.ledger.declared import compared, reference_rows
from sweeps.ledger.files import Store
from sweeps.ledger.read import read_metric
from sweeps.search.decide import Rule
from sweeps.search.race import answers, expected_cells, wanted


class Race(Grid):
    """Adds seeds in looks; stops an arm once its comparison with the baseline has an answer.

    Args:
        plan: of every arm with the most seeds.
        ledger: the study's.

    Raises:
        KeyError: the cells that are there have no such metric.
    """

    def __init__(self, plan: Plan, ledger: Store) -> None:
        super().__init__(plan, ledger)
        told = declared_of(plan)
        self._metric = told.metric
        self._rule = rule_of(plan)
        levels = [arm.text_levels for arm in plan.arms]
        self._rows = compared(levels, told.baseline)
        self._reference = reference_rows(levels, told.baseline)[self._rows]
        self._values = np.full((len(plan.arms), len(plan.seeds)), np.nan)
        self._settled = np.zeros(self._values.shape, dtype=bool)
        places = {id(arm): row for row, arm in enumerate(plan.arms)}
        turns = {seed: turn for turn, seed in enumerate(plan.seeds)}
        self._places: dict[str, list[tuple[int, int]]] = {}  # two arms may share a cell
        for cell in plan.cells:
            place = places[id(cell.arm)], turns[cell.seed]
            self._places.setdefault(cell.key, []).append(place)
        self._missing = {cell.key: cell for cell in plan.todo}
        self._waiting: list[Cell] = []
        self._handed: set[str] = set()
        self._read(set(plan.done))
        self._settle(plan.failed - set(self._missing))
        self._heard: set[str] = set()
        self._look()

    def _settle(self, keys: "set[str] | frozenset[str]") -> None:
        for key in keys:
            for place in self._places[key]:
                self._settled[place] = True

    def _read(self, keys: set[str]) -> None:
        """The primary metric of these cells, which are in the ledger."""
        found = read_metric(self._ledger, keys, self._metric)
        for key, value in found.items():
            for place in self._places[key]:
                self._values[place] = value
        self._settle(set(found))

    def _look(self) -> None:
        """Ask again what is wanted, of the cells that are settled now."""
        asked = (self._values, self._settled, self._rows, self._reference, self._rule)
        self._want = wanted(*asked)
        open_rows = [
            (row, base)
            for row, base, one in zip(self._rows, self._reference, answers(*asked), strict=True)
            if one.answer == "undecided"
        ]
        most = self._want.copy()
        most[[row for pair in open_rows for row in pair]] = True
        self._left = sum(
            bool((most & ~self._settled)[tuple(zip(*self._places[key], strict=True))].any())
            for key in self._missing
        )
        fresh = [
            cell
            for key, cell in self._missing.items()
            if key not in self._handed and any(self._want[place] for place in self._places[key])
        ]
        self._waiting = sorted(fresh, key=lambda cell: self._turns[cell.seed])

    def next(self) -> Step | None:
        if not self._waiting and self._heard:
            self._read(self._heard)
            self._heard = set()
            self._look()
            if self._waiting:  # so that who looks on, or reads after a kill, knows these cells too
                write_manifest(self._ledger, declared_manifest(self.plan, self._ledger, {}))
        if not self._waiting:
            return None
        cell = self._waiting.pop(0)
        self._handed.add(cell.key)
        return self.step(cell)

    def tell(self, cell: Cell, objective: float | None) -> None:
        self._missing.pop(cell.key, None)
        self._left -= 1
        self._heard.add(cell.key)
        if objective is None:
            self._settle({cell.key})

    @property
    def left(self) -> int:
        return self._left

    @property
    def plan(self) -> Plan:
        """The cells that are wanted so far, and the seeds of the last look among them."""
        plan = super().plan
        until = int(np.flatnonzero(self._want.any(axis=0)).max()) + 1
        cells = tuple(
            cell
            for cell in plan.cells
            if any(self._want[place] for place in self._places[cell.key])
        )
        return replace(plan, cells=cells, seeds=plan.seeds[:until])


def rule_of(plan: Plan) -> Rule:
    """What `plan` declares, as the race asks for it."""
    told = declared_of(plan)
    return Rule(
        looks=told.looks,
        margin=told.margin,
        error=told.error,
        family=told.comparisons,
        higher_is_better=told.higher_is_better,
    )


def race_line(plan: Plan) -> str:
    """`"a race: at least 120 cells, at most 240, about 160 expected"`."""
    arms, rule = len(plan.arms), rule_of(plan)
    fewest = arms * rule.looks[0]
    expected = expected_cells(arms, len(plan.seeds), rule)
    return (
        f"a race until every comparison is decided: at least {fewest} cells, at most "
        f"{len(plan.cells)}; about {expected} where true differences lie between 0 and 3 margins"
    )
