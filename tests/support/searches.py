"""A toy search without an engine: its objective, and a ledger in a list that may die anywhere."""

from sweeps.search.campaign import Campaign
from sweeps.search.optuna_study import GroupStudy
from sweeps.search.space import Choice, Problem, Range
from sweeps.search.trials import COMPLETE, OPEN, STOPPED, Trial

SPACE = {
    "rate": Range(1e-4, 1.0, log=True),
    "kind": Choice(("a", "b")),
    "depth": Range(1, 4, when={"kind": ("b",)}),
    "extra": Range(0.0, 1.0, when={"arm": ("two",)}),
}
GROUPS = {"one": {"arm": "one"}, "two": {"arm": "two"}}


def problem(**changes) -> Problem:
    values = {
        "name": "toy",
        "space": SPACE,
        "groups": GROUPS,
        "defaults": {
            "one": {"rate": 0.1, "kind": "a"},
            "two": {"rate": 0.1, "kind": "a", "extra": 0.5},
        },
        "trials": 7,
        "seeds": (10, 11, 12, 13),
        "maximize": True,
        "alpha": 0.125,
        "seed": 0,
    }
    return Problem(**{**values, **changes})


def objective(point, seed) -> float:
    """Best at rate 0.01 and kind b; the seeds shift every arm alike."""
    bonus = 0.2 if point["kind"] == "b" else 0.0
    return bonus - abs(point["rate"] - 0.01) + 0.01 * (seed % 3)


class Stopped(Exception):
    """The process is gone."""


class Book:
    """A ledger in memory that dies after so many writes and cells."""

    def __init__(self) -> None:
        self.recorded, self.stops, self.cells = [], {}, {}
        self.elsewhere: dict[int, float] = {}
        self.left: int | None = None

    def _tick(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Stopped

    def known(self):
        found = []
        for number, group, point in self.recorded:
            values = {s: v for (n, s), v in self.cells.items() if n == number}
            state = COMPLETE if len(values) == 4 else STOPPED if number in self.stops else OPEN
            found.append(
                Trial(number=number, group=group, params=point, state=state, values=values)
            )
        return found

    def record(self, trial) -> dict[int, float]:
        self._tick()
        self.recorded.append((trial.number, trial.group, dict(trial.params)))
        return dict(self.elsewhere)

    def record_stop(self, trial, best) -> None:
        self._tick()
        self.stops[trial.number] = best.number

    def missing(self, trial) -> list[int]:
        return [seed for seed in problem().seeds if seed not in trial.values]

    def campaign(self, asked: Problem, database=None, search=GroupStudy.begin) -> Campaign:
        return Campaign(
            asked,
            self.known(),
            record=self.record,
            record_stop=self.record_stop,
            database=database,
            search=search,
        )

    def run(self, asked: Problem, database=None, search=GroupStudy.begin) -> Campaign:
        campaign = self.campaign(asked, database, search)
        while (trial := campaign.next()) is not None:
            for seed in self.missing(trial):
                self._tick()
                assert (trial.number, seed) not in self.cells, "a cell was computed twice"
                value = objective(trial.params, seed)
                self.cells[trial.number, seed] = value
                goes_on = campaign.report(trial, seed, value)
                campaign.tell(trial)
                if not goes_on:
                    break
        return campaign
